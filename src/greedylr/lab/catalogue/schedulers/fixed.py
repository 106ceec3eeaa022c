"""Schedules that are known before the run.

Those that are to start gently share one linear warmup, over the first tenth of the steps: like is compared with like.
"""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

from greedylr.lab.catalogue.schedulers.scheduler import WARMUP, Horizon, Maker, Scheduler, constant


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


ENTRIES = (
    Scheduler("constant", title="constant", note="the initial learning rate throughout", make=constant),
    Scheduler(
        "constant-warmup",
        title="constant with warmup",
        note=WARMUP + "constant",
        make=_warmed_up(constant),
    ),
    Scheduler(
        "linear",
        title="linear with warmup",
        note=WARMUP + "linear to zero",
        make=_warmed_up(lambda optimizer, horizon: LinearLR(optimizer, 1.0, 0.0, horizon.rest)),
    ),
    Scheduler(
        "cosine",
        title="cosine with warmup",
        note=WARMUP + "cosine annealing to zero",
        make=_warmed_up(lambda optimizer, horizon: CosineAnnealingLR(optimizer, horizon.rest)),
    ),
    Scheduler(
        "cosine-restarts",
        title="cosine with restarts",
        note=WARMUP + "three cosine cycles to zero, each twice as long as the one before",
        make=_warmed_up(_restarts),
    ),
    Scheduler(
        "polynomial",
        title="polynomial",
        note=WARMUP + "quadratic decay to zero",
        make=_warmed_up(lambda optimizer, horizon: PolynomialLR(optimizer, horizon.rest, power=2.0)),
    ),
    Scheduler(
        "exponential",
        title="exponential",
        note=WARMUP + "exponential decay to a hundredth",
        make=_warmed_up(lambda optimizer, horizon: ExponentialLR(optimizer, 0.01 ** (1 / horizon.rest))),
    ),
    Scheduler(
        "inverse-sqrt",
        title="inverse square root",
        note=WARMUP + "as the inverse square root of the step",
        make=_warmed_up(_inverse_sqrt),
        package="transformers",
    ),
    Scheduler(
        "wsd",
        title="warmup, stable, decay",
        note=WARMUP + "constant, and linear to zero over the last fifth",
        make=_warmed_up(_wsd),
        package="transformers",
    ),
    Scheduler(
        "one-cycle",
        title="one cycle",
        note="torch's defaults, the momentum cycled too where there is one; its peak is the initial learning rate",
        make=_one_cycle,
    ),
)
