"""The two families of the rule, by the class of their settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Any, TypeVar

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


def hears_validation(config: Config) -> bool:
    """True if a validation loss is heard under these settings."""
    return isinstance(config, DefaultConfig) and config.await_validation


def check_hears_validation(config: Config) -> None:
    """Raise if no validation loss is heard under these settings.

    Raises:
        TypeError: If they are of the paper family, which has no ear for it.
        ValueError: If they are without ``await_validation``.
    """
    if not isinstance(config, DefaultConfig):
        raise TypeError("the published algorithm observes one series of losses: it has no validation loss beside it")
    if not hears_validation(config):
        raise ValueError("a validation loss is heard with await_validation=True only")


_C = TypeVar("_C", bound=Config)


def chosen(config: _C, settings: dict[str, Any]) -> _C:
    """A configuration with some of its settings replaced.

    Raises:
        TypeError: If it is no configuration, or a setting is unknown.
        ValueError: If a setting is outside its range.
    """
    if not isinstance(config, (DefaultConfig, PaperConfig)):
        raise TypeError(f"config must be a DefaultConfig or a PaperConfig, got {config!r}")
    known = [field.name for field in fields(config) if field.init]
    unknown = [name for name in settings if name not in known]
    if unknown:
        hint = "; those of the published algorithm belong to PaperConfig" if isinstance(config, DefaultConfig) else ""
        raise TypeError(
            f"no setting {unknown[0]!r}: the settings of {type(config).__name__} are {', '.join(known)}{hint}"
        )
    changed: _C = replace(config, **settings)
    return changed
