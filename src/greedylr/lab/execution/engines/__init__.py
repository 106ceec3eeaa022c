"""Ways to get many runs done, which differ in what they can do, and how fast.

A run gives the same result, bit for bit, with every engine that trains one run at a time, on machines of one kind. An
engine that trains runs in stacks rounds sums of floating-point numbers differently: the same result but for last bits;
another device does so too, and a shorter type is less precise. :attr:`greedylr.lab.results.Result.arithmetic` says what
it was, and the key of a run in a store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greedylr.lab.execution.engines import batched, cluster, devices, pool
from greedylr.lab.results import Result
from greedylr.lab.runs import ON_CPU, STACKED, Run

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
        arithmetic: Of its results. If they are stacked, the runs that are not wanted say what stands in a stack.
    """

    name: str
    note: str
    supports: Callable[[Run], bool]
    train: Callable[[Sequence[Run], int, Keep, Wanted], None]
    arithmetic: str = ON_CPU


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "batched",
            "many runs of a problem at once in each of several processes; no whole optimizers",
            batched.supports,
            batched.train_all,
            arithmetic=STACKED,
        ),
        Engine("pool", "one run at a time in each of several processes", lambda run: True, pool.train_all),
        # After one that trains everything: only for those who ask for it by its name.
        Engine("ray", "one run at a time on each core of a Ray cluster", lambda run: True, cluster.train_all),
        Engine(
            "cuda",
            "several runs at a time on each CUDA device; nothing disturbed",
            devices.supports,
            devices.train_all,
            arithmetic="cuda",
        ),
        Engine(
            "cuda-bfloat16",
            "the same, with the forward pass in bfloat16",
            devices.supports,
            devices.train_all_in_bfloat16,
            arithmetic="cuda-bfloat16",
        ),
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
            disturbed = "" if run.perturbation == "none" else f", disturbed by {run.perturbation},"
            what = f"{run.scheduler} with {run.optimizer} on {run.problem}{disturbed}"
            raise ValueError(f"{what} cannot be trained by the engine {name}")
        assigned.setdefault(engine, []).append(run)
    return assigned
