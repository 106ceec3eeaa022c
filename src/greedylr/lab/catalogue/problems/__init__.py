"""Catalogue of problems: one file a family, which is named here."""

from greedylr.lab.catalogue.problems import (
    bandit,
    continual,
    convex,
    digits,
    domains,
    fine_tuning,
    images,
    landscapes,
    minilm,
    stdlib_text,
    transformers,
)
from greedylr.lab.catalogue.problems.problem import Data, DataError, Problem
from greedylr.lab.catalogue.problems.task import Examples, Task

_FAMILIES = (
    landscapes,
    convex,
    digits,
    images,
    stdlib_text,
    domains,
    bandit,
    continual,
    fine_tuning,
    minilm,
    transformers,
)

PROBLEMS: dict[str, Problem] = {entry.name: entry for family in _FAMILIES for entry in family.ENTRIES}
"""Every problem by its name."""

MODULES: dict[str, tuple[str, ...]] = {
    **{entry.name: (family.__name__,) for family in _FAMILIES for entry in family.ENTRIES},
    **minilm.MODULES,
    **transformers.MODULES,
}
"""The modules that each is in: what it depends on."""

__all__ = ["MODULES", "PROBLEMS", "Data", "DataError", "Examples", "Problem", "Task"]
