"""Settings and state of either family to plain data and back, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from greedylr.control import peer, plain
from greedylr.control.config import Config, DefaultConfig, PaperConfig, bounds_of, check_groups
from greedylr.control.rule import check_lr
from greedylr.control.state import DefaultState, PaperState, State

_KINDS: dict[str, tuple[type[Config], type[State]]] = {
    "default": (DefaultConfig, DefaultState),
    "paper": (PaperConfig, PaperState),
}


def family_of(config: Config) -> str:
    """The family's name in checkpoints."""
    return "default" if isinstance(config, DefaultConfig) else "paper"


def save(config: Config, state: State) -> dict[str, Any]:
    """Plain data: numbers, strings, lists, ``None``, valid in strict JSON."""
    return {"family": family_of(config), "config": plain.to_dict(config), "state": plain.to_dict(state)}


def load(saved: dict[str, Any], family: str) -> tuple[Config, State]:
    """What :func:`save` was given.

    Args:
        saved: From :func:`save`, or, for the paper family, a state dict of ``transformers.optimization.GreedyLR``.
        family: The family that it must be of.

    Raises:
        ValueError: If it is something else, is damaged, or is of another family.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"not a state dict of GreedyLR: it is {saved!r}")
    try:
        config, state = _restored(dict(saved), family)
        for lr in state.initial_lrs + state.lrs:
            check_lr(lr)
        _check(config, state)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the saved state is damaged ({type(error).__name__}: {error})") from error
    return config, state


def _restored(saved: dict[str, Any], family: str) -> tuple[Config, State]:
    config: Config
    state: State
    if peer.is_peer_state(saved):
        if family != "paper":
            raise ValueError(
                "this is a state of transformers.optimization.GreedyLR, which is the published algorithm: "
                "load it into GreedyLR.paper(optimizer, ...)"
            )
        config, state = peer.from_peer(saved)
    else:
        if set(saved) != {"family", "config", "state"}:
            raise ValueError(f"not a state dict of GreedyLR: it has the entries {sorted(saved)}")
        if saved["family"] != family:
            raise ValueError(f"a state of the {saved['family']} family cannot be loaded into the {family} one")
        config_kind, state_kind = _KINDS[family]
        config = plain.from_dict(config_kind, saved["config"])
        state = plain.from_dict(state_kind, saved["state"])
    if not 1 <= len(state.initial_lrs) == len(state.lrs):
        raise ValueError(f"the saved state has {len(state.initial_lrs)} and {len(state.lrs)} parameter groups")
    check_groups(config, len(state.lrs))
    return config, state


_COUNTS = ("climbed", "unchanged", "seen", "stop")
_FINITE = ("scale", "total", "weight", "noise", "last", "first", "lowest", "mean", "previous_mean", "ceiling")


def _check(config: Config, state: State) -> None:
    """Raise ValueError unless the rule can go on from a state for ever."""
    if isinstance(state, PaperState):
        assert isinstance(config, PaperConfig)
        _check_paper(config, state)
        return
    assert isinstance(config, DefaultConfig)
    for name in _FINITE:
        _finite(name, getattr(state, name))
    least = {**dict.fromkeys((*_COUNTS, "scale", "weight", "noise"), 0.0)}
    least |= dict.fromkeys(("spike_step", "variance", "previous_variance", "moved_from"), -1.0)
    for name, lowest in least.items():
        _at_least(name, getattr(state, name), lowest)
    highest = max(bounds_of(config.max_scale, len(state.lrs)))
    if not state.scale <= highest:
        raise ValueError(f"scale in the saved state must be at most {highest:g} (max_scale), got {state.scale!r}")
    if not math.isfinite(max(state.initial_lrs) * highest):
        raise ValueError(f"initial_lrs in the saved state must be finite times max_scale, got {state.initial_lrs!r}")
    if state.climbed and not state.weight > 0:
        raise ValueError(f"weight in the saved state must be above 0 after {state.climbed} losses of the climb")
    _check_losses(state.losses, config.window_length - 1)


def _check_paper(config: PaperConfig, state: PaperState) -> None:
    for name in ("step", "better", "worse", "cooldown_left", "warmup_left"):
        _at_least(name, getattr(state, name), 0)
    _at_least("reset_left", state.reset_left, 1)
    _finite("total", state.total)
    _check_losses(state.losses, config.window_size)
    if -math.inf in (state.reference, state.value):
        raise ValueError("reference and value in the saved state must not be -inf")


def _check_losses(losses: list[float], most: int) -> None:
    if len(losses) > most or not all(map(math.isfinite, losses)):
        raise ValueError(f"losses in the saved state must be at most {most}, and finite, got {len(losses)}")


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name} in the saved state must be finite, got {value!r}")


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} in the saved state must be at least {least:g}, got {value!r}")
