"""One run at a time in each of several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from greedylr.lab.execution.engines.processes import each
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.results import Result
from greedylr.lab.runs import Run


def train_all(
    runs: Sequence[Run],
    workers: int,
    keep: Callable[[Result], None],
    wanted: Callable[[Run], bool] = lambda run: True,
) -> None:
    """Train every run; the results are the same, bit for bit, for any number of workers.

    Args:
        runs: What to train, started in this order.
        workers: Number of processes.
        keep: Called in this process with each result as it comes, in no particular order.
        wanted: Asked when a run is about to be started.

    Raises:
        KeyboardInterrupt: On Ctrl-C, once the workers are gone; runs under way are given up.
        concurrent.futures.process.BrokenProcessPool: If a worker was killed.
    """
    each((run for run in runs if wanted(run)), _train, workers, keep)


def _train(run: Run, stopped: Callable[[], bool]) -> Result:
    return train(run, stopped=stopped)
