"""Problems of the catalogue, trained as the lab trains them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from greedylr import GreedyLR
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS, Horizon, Scheduler
from greedylr.lab.comparison.chosen import Chosen, is_fixed, told
from greedylr.lab.execution.complete import complete
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result
from greedylr.lab.runs import Run


class Planned(NamedTuple):
    """A run to be trained.

    Attributes:
        run: As the lab names it.
        shown: As the user names it: perhaps by another name of the scheduler.
    """

    run: Run
    shown: Run


def plan(
    problems: Sequence[str], chosen: Sequence[Chosen], lrs: Sequence[float] | None, seeds: Sequence[int], optimizer: str
) -> list[Planned]:
    """Runs to be trained.

    Args:
        problems: Names of problems.
        chosen: The schedulers.
        lrs: Learning rates; None: the problem's good one.
        seeds: The seeds.
        optimizer: Name of an optimizer.

    Raises:
        ValueError: If there is no such problem or optimizer, or a scheduler cannot be used with it.
    """
    for name in problems:
        if name not in PROBLEMS:
            raise ValueError(f"there is no problem {name!r}; there are {', '.join(PROBLEMS)}, or pass a function")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"there is no optimizer {optimizer!r}; there are {', '.join(OPTIMIZERS)}")
    for one in chosen:
        if one.registered is not None and not SCHEDULERS[one.registered].suits(optimizer):
            raise ValueError(f"schedulers: {one.registered} cannot be used with {optimizer}")
    made = []
    for name in problems:
        problem = PROBLEMS[name]
        for rate in lrs or [1.0]:
            for seed in seeds:
                for one in chosen:
                    known = one.registered or one.name
                    run = Run(name, rate, known, seed, problem.steps, optimizer, absolute=lrs is not None)
                    made.append(Planned(run, run._replace(scheduler=one.name)))
    return made


def train_planned(planned: Sequence[Planned], chosen: Sequence[Chosen], jobs: int) -> list[Result]:
    """The results of all runs: those of the lab's schedulers from its engines, the others trained here, one by one.

    Args:
        planned: What to train.
        chosen: The schedulers.
        jobs: Number of cores for the engines.

    Raises:
        greedylr.lab.catalogue.problems.DataError: If the data of a problem cannot be read.
    """
    own = [one for one in chosen if one.registered is None]
    entries = {one.name: _entry(one) for one in own}
    the_labs = [one.run for one in planned if one.run.scheduler not in entries]
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite") as store:
        complete(the_labs, store, jobs)
        made = {result.run: result for result in store.load(the_labs)}
    for one in planned:
        if one.run.scheduler in entries:
            made[one.run] = train(one.run, scheduler=entries[one.run.scheduler])
    return [replace(made[one.run], run=one.shown) for one in planned]


def _entry(own: Chosen) -> Scheduler:
    def make(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
        made: LRScheduler = own.make(optimizer, horizon.steps)
        return made if isinstance(made, GreedyLR) else cast("LRScheduler", _Told(made))  # whose decisions are kept

    return Scheduler(own.name, own.name, "", make, kind="fixed" if is_fixed(own) else "feedback")


class _Told:
    """A scheduler of the user's own whose ``step`` is given the loss, or nothing, as it is to be."""

    def __init__(self, scheduler: Any) -> None:
        self.step = told(scheduler) or scheduler.step
