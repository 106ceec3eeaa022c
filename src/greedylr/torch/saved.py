"""Entries of a saved scheduler that are not the rule's: losses on their way, and what a load replaces."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from greedylr.control import plain
from greedylr.control.default.config import DefaultConfig
from greedylr.control.families import Config


def strict(value: float | None) -> float | str | None:
    """For strict JSON, which has no NaN and no infinities."""
    return str(value) if value is not None and not math.isfinite(value) else value


def pending(name: str, value: Any) -> float | None:
    """A number that may be NaN, or None.

    Raises:
        ValueError: If it is something else; ``name`` is in the message.
    """
    try:
        return None if value is None else math.nan if isinstance(value, str) and value == "nan" else plain.real(value)
    except ValueError as error:
        raise ValueError(f"{name} in the saved state must be {error} or None, got {value!r}") from None


def measured(values: Any) -> tuple[float, float] | None:
    """A slope and a norm, or None.

    Raises:
        ValueError: If it is something else.
    """
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != 2:
        raise ValueError(f"measured in the saved state must be two numbers or None, got {values!r}")
    slope, norm = [pending("measured", value) for value in values]
    if slope is None or norm is None:
        raise ValueError(f"measured in the saved state must be two numbers or None, got {values!r}")
    return slope, norm


def differences(given: Config, saved: Config) -> list[str]:
    """Settings that a load replaces, but for ``total_steps`` and what follows from it."""
    said = []
    for name in (field.name for field in fields(given) if field.init and field.name != "total_steps"):
        mine, other = getattr(given, name), getattr(saved, name)
        if name in ("warmup_steps", "window") and isinstance(saved, DefaultConfig):
            if mine is None:
                continue
            other = saved.warmup if name == "warmup_steps" else saved.window_length
        if mine != other:
            said.append(f"{name}={other!r} in place of {mine!r}")
    return said
