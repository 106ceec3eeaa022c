"""This package's own rules."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from greedylr import DefaultConfig, GreedyLR
from greedylr.control.families import chosen
from greedylr.lab.catalogue.schedulers.scheduler import BOUNDS, Horizon, Scheduler, bounds


def _greedylr(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
    known = DefaultConfig(total_steps=horizon.steps, mode=horizon.mode)
    return GreedyLR(optimizer, config=chosen(known, settings))


def _validated(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
    return _greedylr(optimizer, horizon, **{"await_validation": True} | settings)


def _open(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
    return GreedyLR(optimizer, config=chosen(DefaultConfig(mode=horizon.mode), settings))


def _loss_only(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
    return _greedylr(optimizer, horizon, **{"polyak": math.inf, "catch_up_steps": 0} | settings)


def _climbing(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
    climb = {"decade_steps": max(10, horizon.steps // 5), "anneal": 0.4, "polyak": math.inf}
    return _greedylr(optimizer, horizon, **climb | settings)


def _paper(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
    # Smoothing, off by default, is on as in the published pre-training run: without it the rule hardly ever
    # raises here, and ends no better in any row.
    low, high = bounds(optimizer)
    usual = {"mode": horizon.mode, "smooth": True, "min_lr": low, "max_lr": high}
    return GreedyLR.paper(optimizer, **usual | settings)


def _core(optimizer: Optimizer, horizon: Horizon, **settings: Any) -> LRScheduler:
    return GreedyLR.core(optimizer, **{"mode": horizon.mode} | settings)


ENTRIES = (
    Scheduler(
        "greedylr",
        title="GreedyLR",
        note="this package's default, told the number of steps",
        make=_greedylr,
        kind="feedback",
        takes_settings=True,
    ),
    Scheduler(
        "greedylr-validated",
        title="GreedyLR, hearing the validation",
        note="the default as it is for pre-trained models, told the number of steps and every validation loss",
        make=_validated,
        kind="feedback",
        takes_settings=True,
    ),
    Scheduler(
        "greedylr-open",
        title="GreedyLR, open-ended",
        note="this package's default, with nothing but the mode told",
        make=_open,
        kind="feedback",
        takes_settings=True,
    ),
    Scheduler(
        "greedylr-loss",
        title="GreedyLR, loss only",
        note="this package's default where it cannot hear the gradient",
        make=_loss_only,
        kind="feedback",
        takes_settings=True,
    ),
    Scheduler(
        "greedylr-climb",
        title="GreedyLR, climbing",
        note="the losses alone, and a climb in place of the warmup: for a learning rate that is a guess",
        make=_climbing,
        kind="feedback",
        takes_settings=True,
    ),
    Scheduler(
        "paper",
        title="GreedyLR.paper",
        note=f"the published algorithm, with smoothing, {BOUNDS}",
        make=_paper,
        kind="feedback",
        takes_settings=True,
    ),
    Scheduler(
        "core",
        title="GreedyLR.core",
        note="the published core rule: every loss compared with the one before, no bounds",
        make=_core,
        kind="feedback",
        takes_settings=True,
    ),
)
