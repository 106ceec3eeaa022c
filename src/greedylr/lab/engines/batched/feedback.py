"""The learning rates of many runs: tables where they are known before, controllers where they depend on the loss.

All come from the scheduler objects themselves, or from the batched rule, which equals them bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from greedylr import GreedyLR
from greedylr.control import batched
from greedylr.control.config import Config
from greedylr.lab.engines.batched.job import Floats, Job
from greedylr.lab.optimizers import OPTIMIZERS
from greedylr.lab.schedulers import SCHEDULERS

Mode = Literal["min", "max"]
Rows = NDArray[np.intp]
Options = tuple[tuple[str, Any], ...]
"""Options of an optimizer other than the learning rate, by name."""

_CYCLED = ("momentum", "betas")  # What a scheduler may move beside the learning rate.


@dataclass(frozen=True)
class Schedule:
    """A schedule that is known before the run.

    Attributes:
        lrs: Learning rate of each step.
        options: Other options of the optimizer at each step, the same for all learning rates; empty if they
            stay as they are.
    """

    lrs: tuple[float, ...]
    options: tuple[Options, ...]


@lru_cache(maxsize=4096)
def schedule(optimizer: str, lr: float, scheduler: str, steps: int) -> Schedule:
    """What a fixed scheduler does in a run, found by letting it."""
    stand_in, made = _made(Job(optimizer, lr, scheduler, 0), steps, "min")
    group = stand_in.param_groups[0]
    lrs: list[float] = []
    options: list[Options] = []
    stand_in.step()  # Does nothing, but schedulers want to see it done.
    for _ in range(steps):
        lrs.append(float(group["lr"]))
        options.append(tuple((name, group[name]) for name in _CYCLED if name in group))
        made.step()
    return Schedule(tuple(lrs), tuple(options) if len(set(options)) > 1 else ())


class Controller(Protocol):
    """Sets the learning rates of some of the runs.

    Attributes:
        rows: Which runs.
        decides: Whether :meth:`observe` says what was decided, in codes of actions.
    """

    rows: Rows
    decides: bool

    @property
    def lrs(self) -> Floats:
        """Their learning rates now."""

    def observe(self, values: Floats) -> NDArray[np.int64] | None:
        """Take in one value for each of the runs."""


def controllers(jobs: Sequence[Job], steps: int, mode: Mode) -> Iterator[Controller]:
    """Controllers for those of the jobs whose learning rates depend on what is observed."""
    greedy: dict[Config, list[int]] = {}
    others: list[int] = []
    configs: dict[Job, Config | None] = {}
    for row, job in enumerate(jobs):
        if SCHEDULERS[job.scheduler].kind != "feedback":
            continue
        kind = job._replace(seed=0)
        if kind not in configs:
            made = _made(kind, steps, mode)[1]
            configs[kind] = made.config if isinstance(made, GreedyLR) else None
        config = configs[kind]
        (others if config is None else greedy.setdefault(config, [])).append(row)
    for config, rows in greedy.items():
        yield _Greedy(config, rows, np.array([jobs[row].lr for row in rows]))
    if others:
        yield _Objects(others, [_made(jobs[row], steps, mode) for row in others])


class _Greedy:
    """The batched rule."""

    decides = True

    def __init__(self, config: Config, rows: Sequence[int], initial_lrs: Floats) -> None:
        self.config, self.rows = config, np.array(rows)
        # NumPy, because on arrays this small a call costs a third of torch's.
        self.state = batched.start(config, initial_lrs, np)

    @property
    def lrs(self) -> Floats:
        lrs: Floats = self.state.lrs
        return lrs

    def observe(self, values: Floats) -> NDArray[np.int64]:
        with np.errstate(all="ignore"):
            self.state, codes = batched.advance(self.config, self.state, values, np)
        chosen: NDArray[np.int64] = codes
        return chosen


class _Objects:
    """Any schedulers, each the object itself on a stand-in for the run's optimizer."""

    decides = False

    def __init__(self, rows: Sequence[int], made: Sequence[tuple[Optimizer, Any]]) -> None:
        self.rows = np.array(rows)
        self.groups = [optimizer.param_groups[0] for optimizer, _ in made]
        self.schedulers = [scheduler for _, scheduler in made]

    @property
    def lrs(self) -> Floats:
        return np.array([float(group["lr"]) for group in self.groups])

    def observe(self, values: Floats) -> None:
        for scheduler, value in zip(self.schedulers, values.tolist()):
            scheduler.step(value)


def _made(job: Job, steps: int, mode: Mode) -> tuple[Optimizer, Any]:
    optimizer = OPTIMIZERS[job.optimizer].build([torch.zeros(1)], job.lr)
    return optimizer, SCHEDULERS[job.scheduler].build(optimizer, steps, mode)
