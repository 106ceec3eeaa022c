"""This package's own rules."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from greedylr import GreedyLR
from greedylr.lab.catalogue.schedulers.scheduler import BOUNDS, Horizon, Scheduler, bounds


def _greedylr(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    return GreedyLR(optimizer, total_steps=horizon.steps, mode=horizon.mode)


def _paper(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    # Smoothing, off by default, is on as in the published pre-training run: without it the rule hardly ever
    # raises here, and ends no better in any row.
    low, high = bounds(optimizer)
    return GreedyLR.paper(optimizer, mode=horizon.mode, smooth=True, min_lr=low, max_lr=high)


ENTRIES = (
    Scheduler(
        "greedylr",
        title="GreedyLR",
        note="this package's default, told the number of steps",
        make=_greedylr,
        kind="feedback",
    ),
    Scheduler(
        "greedylr-open",
        title="GreedyLR, open-ended",
        note="this package's default, with nothing but the mode told",
        make=lambda optimizer, horizon: GreedyLR(optimizer, mode=horizon.mode),
        kind="feedback",
    ),
    Scheduler(
        "paper",
        title="GreedyLR.paper",
        note=f"the published algorithm, with smoothing, {BOUNDS}",
        make=_paper,
        kind="feedback",
    ),
    Scheduler(
        "core",
        title="GreedyLR.core",
        note="the published core rule: every loss compared with the one before, no bounds",
        make=lambda optimizer, horizon: GreedyLR.core(optimizer, mode=horizon.mode),
        kind="feedback",
    ),
)
