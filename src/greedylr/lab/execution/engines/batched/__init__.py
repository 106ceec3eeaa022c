"""Many runs of one problem at once, in one process or several: far faster where models are small."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from greedylr.lab.execution.engines.batched.train import cost, parts, supports, train_batched
from greedylr.lab.execution.engines.processes import each
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

__all__ = ["parts", "supports", "train_all", "train_batched"]


def train_all(
    runs: Sequence[Run],
    workers: int,
    keep: Callable[[Result], None],
    wanted: Callable[[Run], bool] = lambda run: True,
) -> None:
    """Train every run that is wanted; the results are those of one run at a time but for the rounding of sums.

    How a sum is rounded may depend on the stack that a run is in. The stacks are made of all ``runs``, and one of which
    any run is wanted is trained as a whole: so the results are the same, bit for bit, whatever is wanted, and for any
    number of workers.

    Args:
        runs: All runs of a suite: any mix of problems, optimizers, schedulers and all else.
        workers: Number of processes.
        keep: Called in this process with each result as it comes, in no particular order.
        wanted: Asked once for each run, when it is about to be started.

    Raises:
        KeyboardInterrupt: On Ctrl-C, once the workers are gone; runs under way are given up.
        concurrent.futures.process.BrokenProcessPool: If a worker was killed.
        ValueError: If a run is not supported.
    """
    stacks = list(parts(runs))
    random.SystemRandom().shuffle(stacks)  # Processes that share the work seldom begin the same.
    # But each worker begins with one that takes little time: there is something to see within seconds.
    soon = sorted(range(len(stacks)), key=lambda number: cost(stacks[number]))[:workers]
    stacks = [stacks[number] for number in soon] + [one for number, one in enumerate(stacks) if number not in soon]
    asked = ((stack, [run for run in stack if wanted(run)]) for stack in stacks)
    each((one for one in asked if one[1]), _train, workers, lambda results: _keep_all(results, keep))


def _train(stack_and_wanted: tuple[Sequence[Run], Sequence[Run]], stopped: Callable[[], bool]) -> list[Result]:
    stack, wanted = stack_and_wanted
    results = {result.run: result for result in train_batched(stack, stopped=stopped)}
    return [results[run] for run in wanted]


def _keep_all(results: Sequence[Result], keep: Callable[[Result], None]) -> None:
    for result in results:
        keep(result)
