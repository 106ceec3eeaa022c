"""Conditions that every state fulfils that the rule has made: from one that does, it can go on for ever."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from reprlib import repr as short
from typing import Any

from greedylr.control.config import Config, DefaultConfig, PaperConfig, bounds_of
from greedylr.control.numerals import LARGEST_INTEGER
from greedylr.control.rule import check_lr, check_lrs
from greedylr.control.state import NO_CEILING, DefaultState, PaperState, State


def check_state(config: Config, state: State) -> None:
    """Raise if the rule has not made ``state`` under ``config``.

    Args:
        config: Settings of the family.
        state: Of the same family, its entries of the right kinds.

    Raises:
        ValueError: If it is none; entry, value, and what would be valid are named.
    """
    groups = len(state.initial_lrs), len(state.lrs)
    if not 1 <= groups[0] == groups[1]:
        raise ValueError(f"the saved state has {groups[0]} and {groups[1]} parameter groups")
    check_lrs(config, state.initial_lrs)
    for lr in state.lrs:
        check_lr(lr)
    check = _default if isinstance(config, DefaultConfig) else _paper
    for name, valid, holds in check(config, state):
        if not holds:
            raise ValueError(f"{name} in the saved state must be {valid}, got {short(getattr(state, name))}")


_Condition = tuple[str, str, bool]


def _default(config: Any, state: Any) -> Iterable[_Condition]:
    assert isinstance(config, DefaultConfig)
    assert isinstance(state, DefaultState)
    groups = len(state.lrs)
    low, high = min(bounds_of(config.min_scale, groups)), max(bounds_of(config.max_scale, groups))
    yield "scale", f"from {low!r} to {high!r}", low <= state.scale <= high
    yield "losses", f"fewer than window_length={config.window_length}", len(state.losses) < config.window_length
    yield "losses", "finite", _finite(state.losses)
    yield "losses", "empty while climbing", not (state.climbing and state.losses)
    yield "seen", f"from 0 to {LARGEST_INTEGER}", 0 <= state.seen <= LARGEST_INTEGER
    yield "climbed", f"from 0 to seen={state.seen}", 0 <= state.climbed <= state.seen
    yield "unchanged", f"from 0 to climbed={state.climbed}", 0 <= state.unchanged <= state.climbed
    # A hair more than 1, for rounding.
    yield "weight", "0 before the climb, above 0 and at most 1 then", (state.climbed > 0) == (0 < state.weight <= 1.001)
    yield "weight", "0 before the climb, above 0 and at most 1 then", state.climbed > 0 or state.weight == 0
    for name in ("total", "last", "first", "lowest", "mean", "previous_mean", "ceiling"):
        yield name, "finite", _finite([getattr(state, name)])
    yield "noise", "finite and at least 0", 0 <= state.noise <= NO_CEILING
    for name in ("variance", "previous_variance"):
        yield name, "at least 0, or -1.0", getattr(state, name) >= 0 or getattr(state, name) == -1.0
    yield "previous_variance", "-1.0 before there is a variance", state.previous_variance < 0 or state.variance >= 0
    yield "spike_step", f"from -1 to step={state.step}", -1 <= state.spike_step <= state.step
    yield "moved_from", "at least 1, or -1.0", state.moved_from >= 1 or state.moved_from == -1.0
    # Where the rule next decides. 0: at the next loss, whatever is derived from it then.
    stop = 1 if state.climbing else min(config.window_length, config.anneal_start - state.seen)
    yield "stop", f"from 0 to {max(stop, 0)}", 0 <= state.stop <= max(stop, 0)


def _paper(config: Any, state: Any) -> Iterable[_Condition]:
    assert isinstance(config, PaperConfig)
    assert isinstance(state, PaperState)
    yield "step", f"from 0 to {LARGEST_INTEGER}", 0 <= state.step <= LARGEST_INTEGER
    yield "value", "finite, or inf", state.value > -math.inf
    yield "reference", "finite, or inf", state.reference > -math.inf
    limits = {
        "better": (0, config.patience, f"from 0 to patience={config.patience}"),
        "worse": (0, config.patience, f"from 0 to patience={config.patience}"),
        "cooldown_left": (0, config.cooldown, f"from 0 to cooldown={config.cooldown}"),
        "warmup_left": (0, config.warmup, f"from 0 to warmup={config.warmup}"),
        "reset_left": (1, config.reset_start, f"from 1 to reset_start={config.reset_start}"),
    }
    for name, (least, most, valid) in limits.items():
        yield name, valid, least <= getattr(state, name) <= most
    most = config.window_size if config.smooth else 0
    yield "losses", f"{most} at most, the window_size of a running average", len(state.losses) <= most
    yield "losses", "finite", _finite(state.losses)
    yield "total", "finite", _finite([state.total])
    yield "total", "0 where there are no losses", bool(state.losses) or state.total == 0


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))
