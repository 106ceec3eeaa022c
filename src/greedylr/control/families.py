"""The two families of the rule, by the class of their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from types import ModuleType
from typing import Any

from greedylr.control.default import state as default_state
from greedylr.control.default import step as default_step
from greedylr.control.default.config import DefaultConfig
from greedylr.control.default.state import DefaultState
from greedylr.control.paper import state as paper_state
from greedylr.control.paper import step as paper_step
from greedylr.control.paper.config import PaperConfig
from greedylr.control.paper.state import PaperState

Config = DefaultConfig | PaperConfig
State = DefaultState | PaperState


@dataclass(frozen=True)
class Family:
    """A family of the rule: a folder with its settings, its state, its step, and the same step over arrays.

    Attributes:
        name: In checkpoints.
        config: Class of the settings.
        state: Class of the memory.
        step: The module with ``start``, ``advance``, ``observe``, ``add_group``, ``resume``, ``take_over``, ``rebase``
            and ``check_lrs``.
        conditions: What every state fulfils that it has made.
    """

    name: str
    config: type[Config]
    state: type[State]
    step: ModuleType
    conditions: Callable[[Any, Any], Any]


DEFAULT = Family("default", DefaultConfig, DefaultState, default_step, default_state.conditions)
PAPER = Family("paper", PaperConfig, PaperState, paper_step, paper_state.conditions)
FAMILIES: dict[str, Family] = {family.name: family for family in (DEFAULT, PAPER)}
"""Every family by its name."""

_BY_CONFIG: dict[type, Family] = {family.config: family for family in FAMILIES.values()}


def family_of(config: Config) -> Family:
    """The family that settings belong to."""
    return _BY_CONFIG[type(config)]


def chosen(family: Callable[..., Config], settings: dict[str, Any]) -> Config:
    """The settings of a family that was given by its class.

    Raises:
        TypeError: If it is no family, or a setting is unknown.
        ValueError: If a setting is outside its range.
    """
    if not callable(family):
        raise TypeError(f"family must be DefaultConfig or PaperConfig, got {family!r}")
    try:
        return family(**settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error) or not is_dataclass(family):
            raise
        known = ", ".join(field.name for field in fields(family) if field.init)
        hint = "; those of the published algorithm belong to PaperConfig" if family is DefaultConfig else ""
        raise TypeError(f"{error}: the settings of {family.__name__} are {known}{hint}") from None
