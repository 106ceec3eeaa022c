"""Many runs of one problem at once, in one process or several: far faster where models are small."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from greedylr.lab.engines.batched.train import parts, supports, train_batched
from greedylr.lab.engines.processes import each
from greedylr.lab.runs import Result, Run

__all__ = ["parts", "supports", "train_all", "train_batched"]


def train_all(
    runs: Sequence[Run],
    workers: int,
    keep: Callable[[Result], None],
    wanted: Callable[[Run], bool] = lambda run: True,
) -> None:
    """Train every run; the results are those of one run at a time but for the rounding of floating-point sums.

    Args:
        runs: What to train: any mix of problems, optimizers, schedulers and all else.
        workers: Number of processes.
        keep: Called in this process with each result as it comes, in no particular order.
        wanted: Asked when a run is about to be started.

    Raises:
        KeyboardInterrupt: On Ctrl-C, once the workers are gone; runs under way are given up.
        concurrent.futures.process.BrokenProcessPool: If a worker was killed.
        ValueError: If a run is not supported.
    """
    still_wanted = ([run for run in part if wanted(run)] for part in parts(runs, workers))
    each(filter(None, still_wanted), _train, workers, lambda results: _keep_all(results, keep))


def _train(runs: Sequence[Run], stopped: Callable[[], bool]) -> list[Result]:
    return train_batched(runs, stopped=stopped)


def _keep_all(results: Sequence[Result], keep: Callable[[Result], None]) -> None:
    for result in results:
        keep(result)
