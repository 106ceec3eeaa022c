"""A saved scheduler: the rule's settings and memory, losses on their way, and what a load replaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from greedylr.control import checkpoint, plain
from greedylr.control.default.config import DefaultConfig
from greedylr.control.families import Config, State
from greedylr.control.levels import Levels
from greedylr.torch.device_reader import Observed


class Saved(NamedTuple):
    """A scheduler as it was saved.

    Attributes:
        config: Its settings.
        state: The rule's memory.
        pending: A loss on its way from a device, with its slope; None if there was none.
        measured: A slope and a norm of the gradient that no loss has been given for yet; None if there were none.
        levels: Levels of the domains; None without ``level_by``.
        batches: Composition that belongs to the pending loss.
    """

    config: Config
    state: State
    pending: Observed | None
    measured: tuple[float, float] | None
    levels: Levels | None
    batches: list[Mapping[str, Any] | None]


def parse(state_dict: Any, family: str, groups: int) -> Saved:
    """Read the outcome of :meth:`greedylr.GreedyLR.state_dict`.

    Args:
        state_dict: The state.
        family: Name of the family that it is to be of.
        groups: Number of parameter groups that it is to be of.

    Raises:
        ValueError: If it is something else.
    """
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"not a state dict of GreedyLR: it is {state_dict!r}")
    entries = dict(state_dict)
    loss = pending("pending_loss", entries.pop("pending_loss", None))
    slope = pending("pending_slope", entries.pop("pending_slope", None))
    norms = measured(entries.pop("measured", None))
    domain = entries.pop("pending_domain", None)
    if domain is not None and not isinstance(domain, str):
        raise ValueError(f"pending_domain in the saved state must be a string or None, got {domain!r}")
    known = entries.pop("levels", None)
    config, state = checkpoint.load(entries, family)
    if len(state.lrs) != groups:
        raise ValueError(f"the saved state has {len(state.lrs)} parameter groups, the optimizer has {groups}")
    levels = None if known is None else Levels.of(known)
    if levels is not None and loss is not None and domain is None:
        raise ValueError("pending_domain in the saved state must be the domain of pending_loss, got None")
    batch = None if levels is None or domain is None else {levels.by: domain}
    return Saved(
        config,
        state,
        None if loss is None else Observed(loss, math.nan if slope is None else slope),
        norms,
        levels,
        [] if loss is None else [batch],
    )


def strict(value: float | None) -> float | str | None:
    """Number for strict JSON, which has no NaN and no infinities."""
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
