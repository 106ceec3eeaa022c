"""GreedyLR as Transformers has it."""

from __future__ import annotations

from typing import Any, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from greedylr.lab.catalogue.schedulers.scheduler import BOUNDS, Horizon, Maker, Scheduler, bounds


def _transformers(smooth: bool) -> Maker:
    def make(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
        from transformers.optimization import GreedyLR as Published

        low, high = bounds(optimizer)
        usual = {"mode": horizon.mode, "smooth": smooth, "min_lr": low, "max_lr": high}
        made = Published(optimizer, **usual | settings)
        return cast(LRScheduler, made)  # It is none, but is stepped as one.

    return make


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
)
