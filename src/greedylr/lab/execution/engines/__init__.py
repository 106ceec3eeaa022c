"""Ways to get many runs done, which differ in what they can do, and how fast.

A run gives the same result, bit for bit, with every engine that trains one run at a time, on machines of one kind. An
engine that trains runs in stacks rounds sums of floating-point numbers differently: the same result but for last bits,
which :attr:`greedylr.lab.results.Result.stacked` says, and the key of a run in a store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greedylr.lab.execution.engines import batched, cluster, pool
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

Keep = Callable[[Result], None]
"""Receiver of a result; called in the process that asked for it, in no particular order."""

Wanted = Callable[[Run], bool]
"""Asked once, when a run is about to be started: it may be finished, or others may have finished it meanwhile."""


@dataclass(frozen=True)
class Engine:
    """A way to get runs done.

    Attributes:
        name: Identifier, on the command line.
        note: What it does, in a line.
        supports: Whether it can train a run.
        train: Trains every run that it is given and that is wanted, on so many cores, and hands each result on as it
            comes. What is unfinished when it is interrupted is given up.
        stacked: Whether it trains runs in stacks. Those that are not wanted then say what stands in a stack.
    """

    name: str
    note: str
    supports: Callable[[Run], bool]
    train: Callable[[Sequence[Run], int, Keep, Wanted], None]
    stacked: bool = False


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "batched",
            "many runs of a problem at once in each of several processes; no whole optimizers",
            batched.supports,
            batched.train_all,
            stacked=True,
        ),
        Engine("pool", "one run at a time in each of several processes", lambda run: True, pool.train_all),
        # After one that trains everything: only for those who ask for it by its name.
        Engine("ray", "one run at a time on each core of a Ray cluster", lambda run: True, cluster.train_all),
    )
}
"""Every engine by its name, the one to be preferred first."""


def assign(runs: Sequence[Run], name: str | None = None) -> dict[Engine, list[Run]]:
    """Assign each run to an engine.

    Args:
        runs: What is to be trained.
        name: The engine to use; None: for each run the first that supports it.

    Raises:
        ValueError: If no engine of this name supports a run.
    """
    able = list(ENGINES.values()) if name is None else [ENGINES[name]]
    assigned: dict[Engine, list[Run]] = {}
    for run in runs:
        engine = next((engine for engine in able if engine.supports(run)), None)
        if engine is None:
            raise ValueError(f"{run.scheduler} with {run.optimizer} on {run.problem} cannot be trained by: {name}")
        assigned.setdefault(engine, []).append(run)
    return assigned
