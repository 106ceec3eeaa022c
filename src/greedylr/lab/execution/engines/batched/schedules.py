"""The learning rates of many runs that are known before: tables, made by the scheduler objects themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.schedulers import SCHEDULERS

Mode = Literal["min", "max"]
Floats = NDArray[np.float64]
Options = tuple[tuple[str, Any], ...]
"""Options of an optimizer other than the learning rate, by name."""

_CYCLED = ("momentum", "betas")  # What a scheduler may move beside the learning rate.


@dataclass(frozen=True)
class Schedule:
    """A schedule that is known before the run.

    Attributes:
        shares: Of the initial learning rate, at each step, and after the last.
        options: Other options of the optimizer at each step, the same for all learning rates; empty if they
            stay as they are.
    """

    shares: Floats
    options: tuple[Options, ...]


@lru_cache(maxsize=4096)
def schedule(optimizer: str, scheduler: str, steps: int) -> Schedule:
    """Learning rates of a fixed scheduler in a run, found by stepping it."""
    stand_in, made = made_for(optimizer, 1.0, scheduler, steps, "min")
    group = stand_in.param_groups[0]
    shares: list[float] = []
    options: list[Options] = []
    stand_in.step()  # Does nothing, but schedulers want to see it done.
    for _ in range(steps):
        shares.append(float(group["lr"]))
        options.append(tuple((name, group[name]) for name in _CYCLED if name in group))
        made.step()
    shares.append(float(group["lr"]))
    return Schedule(np.array(shares), tuple(options) if len(set(options)) > 1 else ())


def made_for(optimizer: str, lr: float, scheduler: str, steps: int, mode: Mode) -> tuple[Optimizer, Any]:
    """A stand-in for the optimizer of a run, and its scheduler."""
    stand_in = OPTIMIZERS[optimizer].build([torch.zeros(1)], lr)
    return stand_in, SCHEDULERS[scheduler].build(stand_in, steps, mode)
