"""Optimizers that set their own steps."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from greedylr.lab.catalogue.schedulers.scheduler import Horizon, Scheduler, WholeOptimizer, constant

_MOMENTUM = 0.9  # Of SALSA, as that of the SGD whose place it takes.


def _schedule_free(name: str, **options: Any) -> WholeOptimizer:
    def make(parameters: Iterable[Tensor], lr: float, horizon: Horizon) -> Optimizer:
        import schedulefree  # type: ignore[import-untyped]

        made: Optimizer = getattr(schedulefree, name)(parameters, lr=lr, warmup_steps=horizon.warmup, **options)
        return made

    return make


def _prodigy(weight_decay: float) -> WholeOptimizer:
    def make(parameters: Iterable[Tensor], lr: float, horizon: Horizon) -> Optimizer:
        from prodigyopt import Prodigy  # type: ignore[import-untyped]

        with contextlib.redirect_stdout(io.StringIO()):  # It prints that it decays weights as it was told to.
            made: Optimizer = Prodigy(parameters, lr=1.0, weight_decay=weight_decay)
        return made

    return make


def _momo(name: str, **options: Any) -> WholeOptimizer:
    def make(parameters: Iterable[Tensor], lr: float, horizon: Horizon) -> Optimizer:
        import momo  # type: ignore[import-untyped]

        made: Optimizer = getattr(momo, name)(parameters, lr=lr, **options)
        return made

    return make


def _salsa(parameters: Iterable[Tensor], lr: float, horizon: Horizon) -> Optimizer:
    from statopt import SALSA  # type: ignore[import-untyped]

    # A step of its momentum, which is an average, is a tenth of a step of SGD's, which is a sum. Its tests look at the
    # last 1,000 losses by default, which is more than most runs here have, and at 100 at least.
    losses = max(100, min(1000, horizon.steps // 10))
    made: Any = SALSA(parameters, lr=lr / (1 - _MOMENTUM), momentum=_MOMENTUM, minN_stats=losses, testfreq=losses // 10)
    step = made.step

    def quiet(self: Optimizer, closure: Callable[[], Tensor]) -> None:
        # It prints when it stops searching, and adds in a way that torch has for old code.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            step(lambda evaluates: closure())

    made.step = MethodType(quiet, made)
    return cast(Optimizer, made)


ENTRIES = (
    Scheduler(
        "schedule-free",
        title="Schedule-Free",
        note="the optimizer's schedule-free version, with linear warmup over the first tenth of the steps",
        make=constant,
        kind="optimizer",
        package="schedulefree",
        stands_in={
            "sgd": _schedule_free("SGDScheduleFree"),
            "adam": _schedule_free("AdamWScheduleFree"),
            "adamw": _schedule_free("AdamWScheduleFree", weight_decay=0.01),
        },
    ),
    Scheduler(
        "prodigy",
        title="Prodigy",
        note="at learning rate 1 whatever the multiplier, as it finds its own, under cosine annealing to zero",
        make=lambda optimizer, horizon: CosineAnnealingLR(optimizer, horizon.steps),
        kind="optimizer",
        package="prodigyopt",
        stands_in={"adam": _prodigy(0.0), "adamw": _prodigy(0.01)},
    ),
    Scheduler(
        "momo",
        title="MoMo",
        note="the optimizer with MoMo's step sizes, which the initial learning rate is the cap of; lower bound 0",
        make=constant,
        kind="optimizer",
        package="momo-opt",
        stands_in={
            "sgd": _momo("Momo"),
            "adam": _momo("MomoAdam"),
            "adamw": _momo("MomoAdam", weight_decay=0.01, divide=False),
        },
    ),
    Scheduler(
        "salsa",
        title="SALSA",
        note="SGD with momentum 0.9 that searches along the gradient with more forward passes, until a test finds the "
        "loss at a standstill, and after that divides the learning rate by 10 at each test that does; tests of a tenth "
        "of the steps, of 100 at least, where its default is 1,000",
        make=constant,
        kind="optimizer",
        package="statopt",
        stands_in={"sgd": _salsa},
        searches=True,
    ),
)
