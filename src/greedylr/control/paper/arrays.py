"""The published algorithm over arrays: the arithmetic of ``step.py``, operation by operation, for each element.

:mod:`greedylr.control.batched` is the entrance.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from greedylr.control.decision import Action
from greedylr.control.paper.config import PaperConfig

Array = Any
"""An array of ``xp``: ``torch.Tensor``, ``jax.Array``, ``numpy.ndarray``."""

REAL_SETTINGS = ("factor", "threshold", "min_lr", "max_lr", "eps")
"""Entries of which an array must be able to hold the value."""

_CODE = {action: code for code, action in enumerate(Action)}


class PaperArrays(NamedTuple):
    """Memory of the published algorithm; the names are those of :class:`~greedylr.control.paper.state.PaperState`.

    ``losses`` holds the last ``window_size`` along a last axis, the newest last (of length 0 without
    smoothing), and ``count`` says how many of them have been seen.
    """

    initial_lrs: Array
    lrs: Array
    step: Array
    reference: Array
    better: Array
    worse: Array
    cooldown_left: Array
    warmup_left: Array
    reset_left: Array
    losses: Array
    count: Array
    total: Array


def start(config: PaperConfig, initial_lrs: Array, xp: Any) -> PaperArrays:
    """The state before the first loss."""
    zero = xp.zeros_like(initial_lrs)
    none = xp.zeros_like(initial_lrs, dtype=xp.int32)
    window = config.window_size if config.smooth else 0
    return PaperArrays(
        initial_lrs=initial_lrs,
        lrs=initial_lrs,
        step=none,
        reference=zero + math.inf,
        better=none,
        worse=none,
        cooldown_left=none,
        warmup_left=none,
        reset_left=none + config.reset_start,
        losses=xp.broadcast_to(zero[..., None], (*zero.shape, window)),
        count=none,
        total=zero,
    )


def advance(
    config: PaperConfig, state: PaperArrays, losses: Array, _slopes: Array | None, xp: Any
) -> tuple[PaperArrays, Array]:
    """Take in one loss, lower is better, for each element."""
    finite = xp.isfinite(losses)
    value, history, count, total = losses, state.losses, state.count, state.total
    if config.smooth:
        leaving = xp.where(count >= config.window_size, history[..., 0], 0.0)
        shifted = xp.concatenate([history[..., 1:], losses[..., None]], -1)
        history = xp.where(finite[..., None], shifted, history)
        total = xp.where(finite, total + losses - leaving, total)
        overflow = ~xp.isfinite(total)
        total = xp.where(overflow, losses, total)
        count = xp.clip(xp.where(finite, count + 1, count), None, config.window_size)
        count = xp.where(overflow, 1, count)
        value = total / (xp.zeros_like(total) + xp.clip(count, 1, None))

    # Ignored, or compared and counted.
    cooling = finite & (state.cooldown_left > 0)
    warming = finite & ~cooling & (state.warmup_left > 0)
    active = finite & ~cooling & ~warming
    line = state.reference - config.threshold
    if config.threshold_mode == "rel":
        above, below = state.reference * (1.0 + config.threshold), state.reference * (1.0 - config.threshold)
        line = xp.where(state.reference < 0, above, below)
    first = active & (state.reference == math.inf) & (config.compare == "previous")
    is_better = active & ~first & (value < line)
    is_worse = active & ~first & ~is_better
    reference = xp.where(is_better | (active & (config.compare == "previous")), value, state.reference)
    ignored = cooling | warming
    better = xp.where(is_better, state.better + 1, xp.where(is_worse | ignored, 0, state.better))
    worse = xp.where(is_worse, state.worse + 1, xp.where(is_better | ignored, 0, state.worse))
    raising = is_better & (better > config.patience)
    cutting = is_worse & (worse > config.patience)

    # Move.
    target = xp.where(
        raising,
        xp.clip(state.lrs / config.factor, None, min(config.max_lr, xp.finfo(state.lrs.dtype).max)),
        xp.clip(state.lrs * config.factor, config.min_lr, None),
    )
    change = xp.where(raising, target - state.lrs, state.lrs - target)
    moved = (raising | cutting | ~finite) & (change > config.eps)
    lrs = xp.where(moved, target, state.lrs)
    at_floor = cutting & (lrs <= config.min_lr)
    reset_left = xp.where(raising, config.reset_start, xp.where(at_floor, state.reset_left - 1, state.reset_left))
    reset = at_floor & (reset_left <= 0)

    bound = xp.where(raising, _CODE[Action.AT_MAX], _CODE[Action.AT_MIN])
    stuck = xp.where(change > 0, _CODE[Action.BELOW_EPS], bound)
    done = xp.where(raising, _CODE[Action.RAISED], _CODE[Action.CUT])
    action = xp.where(raising | cutting, xp.where(moved, done, stuck), _CODE[Action.PATIENCE])
    action = xp.where(reset, _CODE[Action.RESET], action)
    action = xp.where(first, _CODE[Action.GATHERING], action)
    action = xp.where(cooling, _CODE[Action.COOLDOWN], action)
    action = xp.where(warming, _CODE[Action.WARMUP], action)
    action = xp.where(finite, action, _CODE[Action.NON_FINITE])

    cooldown_left = xp.where(cooling, state.cooldown_left - 1, state.cooldown_left)
    warmup_left = xp.where(warming, state.warmup_left - 1, state.warmup_left)
    state = PaperArrays(
        initial_lrs=state.initial_lrs,
        lrs=xp.where(reset, state.initial_lrs, lrs),
        step=state.step + 1,
        reference=xp.where(reset, math.inf, reference),
        better=xp.where(raising | reset, 0, better),
        worse=xp.where(cutting, 0, worse),
        cooldown_left=xp.where(cutting, config.cooldown, cooldown_left),
        warmup_left=xp.where(reset, 0, xp.where(raising, config.warmup, warmup_left)),
        reset_left=xp.where(reset, config.reset_start, reset_left),
        losses=history,
        count=xp.where(reset, 0, count),
        total=xp.where(reset, 0.0, total),
    )
    return state, action
