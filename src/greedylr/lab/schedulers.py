"""What is compared: every way to set the learning rate, one entry each.

All are imported from where they are kept; AdaLRS, of which no code is published, is written here. Fixed
schedules that are to start gently share one linear warmup, over the first tenth of the steps, and so does AdaLRS:
like is compared with like. GreedyLR has its own way to start.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from greedylr import GreedyLR
from greedylr.lab.adalrs import AdaLRS


class Horizon(NamedTuple):
    """What a schedule may know of the run ahead.

    Attributes:
        steps: Optimizer steps.
        mode: Whether the observed value is to go down, a loss, or up, a reward.
    """

    steps: int
    mode: Literal["min", "max"] = "min"

    @property
    def warmup(self) -> int:
        """The first tenth of the steps."""
        return max(1, self.steps // 10)

    @property
    def rest(self) -> int:
        """The steps after the warmup."""
        return max(1, self.steps - self.warmup)


Maker = Callable[[Optimizer, Horizon], LRScheduler]
"""Makes a scheduler."""

WholeOptimizer = Callable[[Iterable[Tensor], float, Horizon], Optimizer]
"""Makes an optimizer that sets its own steps, given the parameters and the learning rate."""


@dataclass(frozen=True)
class Scheduler:
    """A way to set the learning rate.

    Attributes:
        name: Identifier, on the command line and in stored results.
        title: Name to show to a person.
        note: How it is set up here, to be stated beside results.
        make: Makes it, given the optimizer.
        kind: ``"fixed"``: a schedule that is known before the run, in proportion to the initial learning rate.
            ``"feedback"``: one that is told the observed value
            after every step. ``"optimizer"``: a whole optimizer.
        package: Name of the package that it comes from.
        stands_in: Of a whole optimizer: what takes the place of which optimizer; empty for all others.
    """

    name: str
    title: str
    note: str
    make: Maker
    kind: Literal["fixed", "feedback", "optimizer"] = "fixed"
    package: str = "torch"
    stands_in: Mapping[str, WholeOptimizer] = field(default_factory=dict)

    def build(self, optimizer: Optimizer, steps: int, mode: Literal["min", "max"] = "min") -> LRScheduler:
        """Make it for an optimizer and a run.

        Args:
            optimizer: Its learning rates are the initial ones.
            steps: Optimizer steps of the run.
            mode: Whether the observed value is to go down, a loss, or up, a reward.
        """
        return self.make(optimizer, Horizon(steps, mode))

    def suits(self, optimizer: str) -> bool:
        """Whether it can be used with an optimizer, or in its place."""
        return not self.stands_in or optimizer in self.stands_in


def _constant(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    return ConstantLR(optimizer, factor=1.0)


def _warmed_up(make: Maker) -> Maker:
    """The schedule after a linear warmup, made for the steps that are left."""

    def made(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
        warmup = horizon.warmup
        ramp = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
        return SequentialLR(optimizer, [ramp, make(optimizer, horizon)], milestones=[warmup])

    return made


def _restarts(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    # Cycles of one, two and four parts; rounded up, for a fourth cycle would begin at the full learning rate.
    return CosineAnnealingWarmRestarts(optimizer, T_0=-(-horizon.rest // 7), T_mult=2)


def _inverse_sqrt(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    from transformers import get_inverse_sqrt_schedule

    made: LRScheduler = get_inverse_sqrt_schedule(optimizer, num_warmup_steps=0, timescale=horizon.warmup)
    return made


def _wsd(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    from transformers import get_wsd_schedule

    decay = round(0.2 * horizon.steps)
    made: LRScheduler = get_wsd_schedule(optimizer, 0, decay, num_training_steps=horizon.rest, decay_type="linear")
    return made


def _one_cycle(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    momentum = "momentum" in optimizer.defaults or "betas" in optimizer.defaults
    # The phases of fewer steps than four are of no length, and would be divided by.
    steps = max(4, horizon.steps)
    return OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=steps, cycle_momentum=momentum)


def _plateau(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    return ReduceLROnPlateau(optimizer, horizon.mode, patience=horizon.steps // 10)


def _adalrs(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    made = AdaLRS(optimizer, horizon.steps, horizon.warmup, horizon.mode)
    return cast(LRScheduler, made)  # It is none, but is stepped as one.


def _greedylr(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    return GreedyLR(optimizer, total_steps=horizon.steps, mode=horizon.mode)


def _bounds(optimizer: Optimizer) -> tuple[float, float]:
    # The published bounds, 1e-3 and 1, are absolute and forbid most learning rates here, so these are
    # multiples of the initial one, as wide as never to bind.
    lr = optimizer.param_groups[0]["lr"]
    return lr / 1000, lr * 1000


def _paper(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    # Smoothing, off by default, is on as in the published pre-training run: without it the rule hardly ever
    # raises here, and ends no better in any row.
    low, high = _bounds(optimizer)
    return GreedyLR.paper(optimizer, mode=horizon.mode, smooth=True, min_lr=low, max_lr=high)


def _transformers(smooth: bool) -> Maker:
    def make(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
        from transformers.optimization import GreedyLR as Published

        low, high = _bounds(optimizer)
        made = Published(optimizer, mode=horizon.mode, smooth=smooth, min_lr=low, max_lr=high)
        return cast(LRScheduler, made)  # It is none, but is stepped as one.

    return make


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


_WARMUP = "linear warmup over the first tenth of the steps, then "
_BOUNDS = "bounded by 1/1000 and 1000 times the initial learning rate"

SCHEDULERS: dict[str, Scheduler] = {
    scheduler.name: scheduler
    for scheduler in (
        Scheduler(
            "greedylr",
            "GreedyLR",
            "this package's default, told the number of steps",
            _greedylr,
            kind="feedback",
        ),
        Scheduler(
            "greedylr-open",
            "GreedyLR, open-ended",
            "this package's default, with nothing but the mode told",
            lambda optimizer, horizon: GreedyLR(optimizer, mode=horizon.mode),
            kind="feedback",
        ),
        Scheduler(
            "paper",
            "GreedyLR.paper",
            f"the published algorithm, with smoothing, {_BOUNDS}",
            _paper,
            kind="feedback",
        ),
        Scheduler(
            "core",
            "GreedyLR.core",
            "the published core rule: every loss compared with the one before, no bounds",
            lambda optimizer, horizon: GreedyLR.core(optimizer, mode=horizon.mode),
            kind="feedback",
        ),
        Scheduler(
            "transformers-greedylr",
            "transformers' GreedyLR",
            f"as published, its defaults but for the bounds: {_BOUNDS}",
            _transformers(smooth=False),
            kind="feedback",
            package="transformers",
        ),
        Scheduler(
            "transformers-greedylr-smooth",
            "transformers' GreedyLR, smoothing",
            f"as published, with smoothing, {_BOUNDS}",
            _transformers(smooth=True),
            kind="feedback",
            package="transformers",
        ),
        Scheduler(
            "plateau",
            "ReduceLROnPlateau",
            "torch's defaults, told the minibatch loss at every step, with a patience of a tenth of the steps",
            _plateau,
            kind="feedback",
        ),
        Scheduler(
            "adalrs",
            "AdaLRS",
            _WARMUP + "cosine annealing to zero; up to four tenths of the steps, a multiple of it is searched for, "
            "by factors 3 and 1/2, in windows of 2 % of the steps; a failed trial's weights are not put back",
            _adalrs,
            kind="feedback",
        ),
        Scheduler("constant", "constant", "the initial learning rate throughout", _constant),
        Scheduler(
            "constant-warmup",
            "constant with warmup",
            _WARMUP + "constant",
            _warmed_up(_constant),
        ),
        Scheduler(
            "linear",
            "linear with warmup",
            _WARMUP + "linear to zero",
            _warmed_up(lambda optimizer, horizon: LinearLR(optimizer, 1.0, 0.0, horizon.rest)),
        ),
        Scheduler(
            "cosine",
            "cosine with warmup",
            _WARMUP + "cosine annealing to zero",
            _warmed_up(lambda optimizer, horizon: CosineAnnealingLR(optimizer, horizon.rest)),
        ),
        Scheduler(
            "cosine-restarts",
            "cosine with restarts",
            _WARMUP + "three cosine cycles to zero, each twice as long as the one before",
            _warmed_up(_restarts),
        ),
        Scheduler(
            "polynomial",
            "polynomial",
            _WARMUP + "quadratic decay to zero",
            _warmed_up(lambda optimizer, horizon: PolynomialLR(optimizer, horizon.rest, power=2.0)),
        ),
        Scheduler(
            "exponential",
            "exponential",
            _WARMUP + "exponential decay to a hundredth",
            _warmed_up(lambda optimizer, horizon: ExponentialLR(optimizer, 0.01 ** (1 / horizon.rest))),
        ),
        Scheduler(
            "inverse-sqrt",
            "inverse square root",
            _WARMUP + "as the inverse square root of the step",
            _warmed_up(_inverse_sqrt),
            package="transformers",
        ),
        Scheduler(
            "wsd",
            "warmup, stable, decay",
            _WARMUP + "constant, and linear to zero over the last fifth",
            _warmed_up(_wsd),
            package="transformers",
        ),
        Scheduler(
            "one-cycle",
            "one cycle",
            "torch's defaults, the momentum cycled too where there is one; its peak is the initial learning rate",
            _one_cycle,
        ),
        Scheduler(
            "schedule-free",
            "Schedule-Free",
            "the optimizer's schedule-free version, with linear warmup over the first tenth of the steps",
            _constant,
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
            "Prodigy",
            "at learning rate 1 whatever the multiplier, as it finds its own, under cosine annealing to zero",
            lambda optimizer, horizon: CosineAnnealingLR(optimizer, horizon.steps),
            kind="optimizer",
            package="prodigyopt",
            stands_in={"adam": _prodigy(0.0), "adamw": _prodigy(0.01)},
        ),
        Scheduler(
            "momo",
            "MoMo",
            "the optimizer with MoMo's step sizes, which the initial learning rate is the cap of; lower bound 0",
            _constant,
            kind="optimizer",
            package="momo-opt",
            stands_in={
                "sgd": _momo("Momo"),
                "adam": _momo("MomoAdam"),
                "adamw": _momo("MomoAdam", weight_decay=0.01, divide=False),
            },
        ),
    )
}
"""Every scheduler by its name."""
