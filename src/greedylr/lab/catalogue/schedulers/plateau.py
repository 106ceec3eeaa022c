"""torch's ``ReduceLROnPlateau``."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from greedylr.lab.catalogue.schedulers.scheduler import Horizon, Scheduler


def _plateau(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    return ReduceLROnPlateau(optimizer, horizon.mode, patience=horizon.steps // 10)


ENTRIES = (
    Scheduler(
        "plateau",
        title="ReduceLROnPlateau",
        note="torch's defaults, told the minibatch loss at every step, with a patience of a tenth of the steps",
        make=_plateau,
        kind="feedback",
    ),
)
