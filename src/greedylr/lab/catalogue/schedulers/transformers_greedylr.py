"""GreedyLR as Transformers has it."""

from __future__ import annotations

import math
from functools import wraps
from typing import Any, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from greedylr.lab.catalogue.schedulers.scheduler import BOUNDS, Horizon, Maker, Scheduler, bounds

CLEARED_EVERY = 500
"""Observations after which the variant forgets that the authors trained with (their fork of Transformers, 2025)."""


def _transformers(smooth: bool, forgets: bool = False) -> Maker:
    def make(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
        from transformers.optimization import GreedyLR as Published

        low, high = bounds(optimizer)
        usual = {"mode": horizon.mode, "smooth": smooth, "min_lr": low, "max_lr": high}
        made = Published(optimizer, **usual | settings)
        if forgets:
            _forget_regularly(made)
        return cast(LRScheduler, made)  # It is none, but is stepped as one.

    return make


def _forget_regularly(scheduler: Any) -> None:
    """Clear the best and the counts at every 500th observation, and leave the learning rate as it is."""
    step = scheduler.step

    @wraps(step)
    def step_and_forget(*args: Any, **kwargs: Any) -> None:
        step(*args, **kwargs)
        if scheduler.last_epoch % CLEARED_EVERY == 0:
            scheduler.best = math.inf if scheduler.mode == "min" else -math.inf
            scheduler.num_good_epochs = scheduler.num_bad_epochs = 0

    scheduler.step = step_and_forget


ENTRIES = (
    Scheduler(
        "transformers-greedylr",
        title="transformers' GreedyLR",
        note=f"as published, its defaults but for the bounds: {BOUNDS}",
        make=_transformers(smooth=False),
        kind="feedback",
        package="transformers",
        takes_settings=True,
    ),
    Scheduler(
        "transformers-greedylr-smooth",
        title="transformers' GreedyLR, smoothing",
        note=f"as published, with smoothing, {BOUNDS}",
        make=_transformers(smooth=True),
        kind="feedback",
        package="transformers",
        takes_settings=True,
    ),
    Scheduler(
        "transformers-greedylr-forgetful",
        title="transformers' GreedyLR, forgetful",
        note="as its authors trained with it: smoothing, the best and the counts cleared at every 500th observation, "
        f"{BOUNDS}",
        make=_transformers(smooth=True, forgets=True),
        kind="feedback",
        package="transformers",
        takes_settings=True,
    ),
)
