"""Checkpoints of ``transformers.optimization.GreedyLR``, read into the paper family."""

from __future__ import annotations

import math
from typing import Any

from greedylr.control.config import Bound, PaperConfig
from greedylr.control.state import PaperState


def is_peer_state(data: dict[str, Any]) -> bool:
    """Whether ``data`` is a state dict of ``transformers.optimization.GreedyLR``."""
    return {"num_good_epochs", "num_bad_epochs", "reset_start_original", "_init_lrs"} <= data.keys()


def from_peer(data: dict[str, Any]) -> tuple[PaperConfig, PaperState]:
    """Settings and state from a state dict of ``transformers.optimization.GreedyLR``.

    A running average that a NaN has poisoned is healed: the losses that are not finite are left
    out and the sum is taken anew.

    Raises:
        ValueError: If the saved settings are invalid (that implementation accepts any).
    """
    config = PaperConfig(
        mode=data["mode"],
        factor=data["factor"],
        patience=data["patience"],
        threshold=data["threshold"],
        threshold_mode=data["threshold_mode"],
        cooldown=data["cooldown"],
        warmup=data["warmup"],
        min_lr=_one_or_each(data["min_lrs"]),
        max_lr=_one_or_each(data["max_lrs"]),
        eps=data["eps"],
        smooth=data["smooth"],
        window_size=data["window_size"],
        # 0 and 1 both mean: reset at the first attempt.
        reset_start=max(data["reset_start_original"], 1),
    )
    sign = -1.0 if config.mode == "max" else 1.0
    average = data.get("_streaming_avg", {"values": [], "sum": 0.0})
    losses = [sign * float(value) for value in average["values"] if math.isfinite(value)]
    total = sign * float(average["sum"]) if math.isfinite(average["sum"]) else math.fsum(losses)
    state = PaperState(
        initial_lrs=tuple(map(float, data["_init_lrs"])),
        lrs=tuple(map(float, data["_last_lr"])),
        step=data["last_epoch"],
        # A best that is not finite (its first loss was NaN, or one was infinite) would make everything worse for ever.
        reference=sign * float(data["best"]) if math.isfinite(data["best"]) else math.inf,
        better=data["num_good_epochs"],
        worse=data["num_bad_epochs"],
        cooldown_left=data["cooldown_counter"],
        warmup_left=data["warmup_counter"],
        reset_left=data["reset_start"],
        losses=losses,
        total=total,
    )
    return config, state


def _one_or_each(bounds: list[float]) -> Bound:
    """One bound where all groups share it, so that groups can still be added."""
    return bounds[0] if len(set(bounds)) == 1 else bounds
