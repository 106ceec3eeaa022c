"""Checks that the settings of both families share, and conversion of values to Python's own types."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from greedylr.control.numerals import LARGEST_INTEGER, number, numbers

Bound = float | Sequence[float]
"""One number for all parameter groups, or one per group."""

_C = TypeVar("_C")


def bounds_of(bound: Bound, groups: int) -> Sequence[float]:
    """The bound of each parameter group."""
    return [bound] * groups if isinstance(bound, (int, float)) else bound


def check_groups(config: Any, groups: int) -> None:
    """Raise if a bound was given per group, for another number of groups.

    Raises:
        ValueError: If the lengths differ.
    """
    for name in config.bounds:
        bound = getattr(config, name)
        if isinstance(bound, tuple) and len(bound) != groups:
            raise ValueError(f"{name} has {len(bound)} values, but the optimizer has {groups} parameter groups")


def with_another_group(config: _C) -> _C:
    """The settings for one more parameter group: where bounds are given per group, it gets the widest of them."""
    settings: Any = config
    changes = {}
    for name, widest in zip(settings.bounds, (min, max)):
        bound = getattr(config, name)
        if isinstance(bound, tuple):
            changes[name] = (*bound, widest(bound))
    changed: _C = replace(settings, **changes) if changes else config
    return changed


def reject(name: str, value: object, valid: str) -> NoReturn:
    """Raise for a value that is of the right kind, and outside what is valid."""
    raise ValueError(f"{name} must be {valid}, got {value!r}")


def take_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """One of some words."""
    value = getattr(config, name)
    if not isinstance(value, str) or value not in choices:
        reject(name, value, " or ".join(map(repr, choices)))
    object.__setattr__(config, name, str(value))


def take_flag(config: Any, name: str) -> None:
    """True or False, of any library."""
    value = getattr(config, name)
    flag = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    if not isinstance(flag, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    object.__setattr__(config, name, flag)


def take_int(config: Any, name: str, least: int) -> None:
    """A whole number, of any library."""
    value = getattr(config, name)
    integer = number(value)
    if not isinstance(integer, int):
        raise TypeError(f"{name} must be an integer of at least {least}, got {value!r}")
    if integer < least:
        reject(name, value, f"an integer of at least {least}")
    if integer > LARGEST_INTEGER:
        reject(name, value, f"an integer of at most {LARGEST_INTEGER}")
    object.__setattr__(config, name, integer)


def take_real(config: Any, name: str, valid: str, holds: Callable[[float], bool], infinite: bool = False) -> None:
    """A number, of any library."""
    object.__setattr__(config, name, _real(name, getattr(config, name), valid, holds, infinite))


def take_bound(config: Any, name: str, valid: str, holds: Callable[[float], bool], infinite: bool = False) -> None:
    """A number, or one per parameter group."""
    given = getattr(config, name)
    each = numbers(given)
    if each is None:
        take_real(config, name, valid, holds, infinite)
        return
    if not each:
        reject(name, given, "a number or one per parameter group")
    object.__setattr__(config, name, tuple([_real(name, value, valid, holds, infinite) for value in each]))


def _real(name: str, value: object, valid: str, holds: Callable[[float], bool], infinite: bool) -> float:
    real = number(value)
    if real is None:
        raise TypeError(f"{name} must be a number with {valid}, got {value!r}")
    # An integer may be above the largest float.
    if not holds(real) or (abs(real) > sys.float_info.max and not (infinite and real == math.inf)):
        reject(name, value, f"a number with {valid}")
    return real
