"""Prodigy with schedule-free averaging: neither a learning rate nor a schedule is asked for."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable

from torch import Tensor
from torch.optim import Optimizer

from greedylr.lab.catalogue.schedulers.scheduler import Horizon, Scheduler, WholeOptimizer, constant


def _made(weight_decay: float) -> WholeOptimizer:
    def make(parameters: Iterable[Tensor], lr: float, horizon: Horizon) -> Optimizer:
        from prodigyplus import ProdigyPlusScheduleFree  # type: ignore[import-untyped]

        with contextlib.redirect_stdout(io.StringIO()):  # It prints what one parameter group has to do without.
            made: Optimizer = ProdigyPlusScheduleFree(parameters, weight_decay=weight_decay)
        return made

    return make


ENTRIES = (
    Scheduler(
        "prodigy-schedule-free",
        title="Prodigy, schedule-free",
        note="as its package sets it up, at learning rate 1 whatever the multiplier, as it finds its own",
        make=constant,
        kind="optimizer",
        package="prodigy-plus-schedule-free",
        stands_in={"adam": _made(0.0), "adamw": _made(0.01)},
    ),
)
