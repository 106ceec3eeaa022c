"""Settings and state of either family to plain data and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from greedylr.control import plain
from greedylr.control.families import FAMILIES, Config, State, family_of
from greedylr.control.invariants import check_state
from greedylr.control.paper import peer


def save(config: Config, state: State) -> dict[str, Any]:
    """Plain data: numbers, strings, lists, ``None``, valid in strict JSON."""
    return {"family": family_of(config).name, "config": plain.to_dict(config), "state": plain.to_dict(state)}


def load(saved: Any, family: str) -> tuple[Config, State]:
    """Inverse of :func:`save`.

    Args:
        saved: From :func:`save`, or, for the paper family, a state dict of ``transformers.optimization.GreedyLR``.
        family: The family that it must be of.

    Raises:
        ValueError: If it is something else, is damaged, is of another family, or is none that the rule has made.
    """
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
        if not isinstance(saved, Mapping):
            raise ValueError(f"not a state dict of GreedyLR: it is {short(saved)}")
        if set(saved) != {"family", "config", "state"}:
            raise ValueError(f"not a state dict of GreedyLR: it has the entries {sorted(map(str, saved))}")
        if not isinstance(saved["family"], str):
            raise ValueError(f"family in the saved state must be a string, got {short(saved['family'])}")
        if saved["family"] != family:
            raise ValueError(f"a state of the {saved['family']} family cannot be loaded into the {family} one")
        config = plain.from_dict(FAMILIES[family].config, saved["config"])
        state = plain.from_dict(FAMILIES[family].state, saved["state"])
    check_state(config, state)
    return config, state
