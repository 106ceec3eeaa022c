"""Checkpoints of ``transformers.optimization.GreedyLR``, read into the paper family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from greedylr.control import plain
from greedylr.control.paper.config import PaperConfig
from greedylr.control.paper.state import PaperState


def is_peer_state(data: Any) -> bool:
    """True if ``data`` is a state dict of ``transformers.optimization.GreedyLR``, whole or damaged."""
    theirs = {"num_good_epochs", "num_bad_epochs", "reset_start_original", "_init_lrs"}
    # If one of them is missing, that is damage, to be told by its name.
    return isinstance(data, Mapping) and len(theirs & set(data)) >= len(theirs) - 1


def from_peer(data: Mapping[str, Any]) -> tuple[PaperConfig, PaperState]:
    """Settings and state from a state dict of ``transformers.optimization.GreedyLR``.

    A running average that a NaN has poisoned is healed: the losses that are not finite are left
    out and the sum is taken anew.

    Raises:
        ValueError: If the state is damaged, or the saved settings are invalid (that implementation accepts any).
    """
    smooth = _entry(data, "smooth", plain.flag)
    average = _entry(data, "_streaming_avg", _mapping) if smooth else {"values": [], "sum": 0.0}
    config = plain.from_dict(
        PaperConfig,
        {
            **{name: _entry(data, name, plain.setting) for name in _SETTINGS},
            "min_lr": _one_or_each(_entry(data, "min_lrs", plain.reals)),
            "max_lr": _one_or_each(_entry(data, "max_lrs", plain.reals)),
            "smooth": smooth,
            # 0 and 1 both mean: reset at the first attempt.
            "reset_start": max(_entry(data, "reset_start_original", plain.integer), 1),
            "compare": "best",
        },
    )
    sign = -1.0 if config.mode == "max" else 1.0
    losses = [sign * value for value in _entry(average, "values", _any_reals) if math.isfinite(value)]
    total, best = _entry(average, "sum", _any_real), _entry(data, "best", _any_real)
    state = PaperState(
        initial_lrs=tuple(_entry(data, "_init_lrs", plain.reals)),
        lrs=tuple(_entry(data, "_last_lr", plain.reals)),
        step=_entry(data, "last_epoch", plain.integer),
        # A best that is not finite (its first loss was NaN, or one was infinite) would make everything worse for ever.
        reference=sign * best if math.isfinite(best) else math.inf,
        better=_entry(data, "num_good_epochs", plain.integer),
        worse=_entry(data, "num_bad_epochs", plain.integer),
        cooldown_left=_entry(data, "cooldown_counter", plain.integer),
        warmup_left=_entry(data, "warmup_counter", plain.integer),
        reset_left=max(_entry(data, "reset_start", plain.integer), 1),
        losses=losses,
        total=sign * total if losses and math.isfinite(total) else sum(losses),
    )
    return config, state


_SETTINGS = (
    *("mode", "factor", "patience", "threshold", "threshold_mode"),
    *("cooldown", "warmup", "eps", "window_size"),
)
"""Settings that have the same name there."""


def _entry(data: Mapping[str, Any], name: str, kind: Any) -> Any:
    if name not in data:
        raise ValueError(f"the state of transformers.optimization.GreedyLR lacks the entry {name!r}")
    try:
        return kind(data[name])
    except ValueError as error:
        raise ValueError(
            f"{name} in the state of transformers.optimization.GreedyLR must be {error}, got {short(data[name])}"
        ) from None


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("a mapping of names to values")
    return value


def _any_real(value: Any) -> float:
    """A number, NaN included."""
    return math.nan if isinstance(value, float) and math.isnan(value) else plain.real(value)


def _any_reals(value: Any) -> list[float]:
    if not isinstance(value, (list, tuple)):
        raise ValueError("a list of numbers")
    return [_any_real(item) for item in value]


def _one_or_each(bounds: list[float]) -> float | list[float]:
    """One bound where all groups share it, so that groups can still be added."""
    return bounds[0] if len(set(bounds)) == 1 else bounds
