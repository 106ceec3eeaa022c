"""Catalogue of schedulers, one file a family.

All are imported from where they are kept; AdaLRS, of which no code is published, is written here.
"""

from greedylr.lab.catalogue.schedulers import (
    adalrs,
    fixed,
    greedylr,
    plateau,
    prodigy_schedule_free,
    transformers_greedylr,
    whole_optimizers,
)
from greedylr.lab.catalogue.schedulers.scheduler import Horizon, Scheduler, Schedulers

_FAMILIES = (greedylr, transformers_greedylr, plateau, adalrs, fixed, whole_optimizers, prodigy_schedule_free)

SCHEDULERS = Schedulers({entry.name: entry for family in _FAMILIES for entry in family.ENTRIES})
"""Every scheduler by its name. Some take settings: ``SCHEDULERS["paper:factor=0.5"]``."""

MODULES: dict[str, str] = {entry.name: family.__name__ for family in _FAMILIES for entry in family.ENTRIES}
"""The module that each is in: what it depends on."""

__all__ = ["MODULES", "SCHEDULERS", "Horizon", "Scheduler"]
