"""The default family: windows of minibatch losses, compared by their standard error, with two reflexes.

The rule in maths is in :class:`~greedylr.control.config.DefaultConfig`. ``batched.py`` holds the same
arithmetic over arrays; an operation moved here must be moved there, or a last bit will differ.
"""

from __future__ import annotations

import math

from greedylr.control.config import DefaultConfig, bounds_of
from greedylr.control.decision import Action
from greedylr.control.state import NO_CEILING, DefaultState

# Looked up at every step: a global name takes a third of the time of an attribute of an enumeration or a module.
_GATHERING = Action.GATHERING
_NOT_SIGNIFICANT = Action.NOT_SIGNIFICANT
_MINUS_INFINITY = -math.inf


def start(config: DefaultConfig, initial_lrs: tuple[float, ...]) -> DefaultState:
    """The state before the first loss."""
    state = DefaultState(initial_lrs, initial_lrs)
    _set_lrs(config, state)
    _follow_horizon(config, state, _GATHERING)
    return state


def advance(config: DefaultConfig, state: DefaultState, loss: float) -> Action:
    """Take in one loss; the state, with the learning rates in it, is the answer."""
    if config.mode == "max":
        loss = -loss
    if _MINUS_INFINITY < loss <= state.ceiling:
        losses = state.losses
        losses.append(loss)
        if len(losses) < state.stop:
            # The way of nearly every step: nothing may be added before this line without measuring it.
            return _GATHERING
        action = _weigh(config, state) if len(losses) >= config.window else _GATHERING
    elif math.isfinite(loss):
        action = _extraordinary(config, state, loss)
    else:
        action = _non_finite(config, state)
    return _follow_horizon(config, state, action)


def evidence(config: DefaultConfig, state: DefaultState, ceiling: float, action: Action) -> dict[str, float]:
    """The numbers behind ``action``, just returned by :func:`advance`, in the unit of the loss."""
    sign = -1.0 if config.mode == "max" else 1.0
    if action in (Action.SPIKE, Action.EXPLOSION):
        return {"ceiling": sign * ceiling}
    if not state.losses and state.previous_variance >= 0 and action is not Action.NON_FINITE:
        return {
            "mean": sign * state.mean,
            "previous_mean": sign * state.previous_mean,
            "standard_error": _standard_error(config, state),
        }
    return {}


def add_group(config: DefaultConfig, state: DefaultState, initial_lr: float) -> None:
    """A parameter group that joins late, as if it had been there from the start."""
    state.initial_lrs = (*state.initial_lrs, initial_lr)
    _set_lrs(config, state)


_HOLDS = frozenset({Action.GATHERING, Action.NOT_SIGNIFICANT, Action.SPIKE, Action.AT_MAX, Action.AT_MIN})


def _weigh(config: DefaultConfig, state: DefaultState) -> Action:
    """Close the full window, and compare it with the one before."""
    losses = state.losses
    state.previous_mean, state.previous_variance = state.mean, state.variance
    state.mean, state.variance = _mean_and_variance(losses)
    state.ceiling = _ceiling(config, state, state.mean)
    state.seen += len(losses)
    losses.clear()
    if state.previous_variance < 0:
        return _GATHERING
    difference = state.mean - state.previous_mean
    if not abs(difference) > config.significance * _standard_error(config, state):
        return _NOT_SIGNIFICANT
    if not config.warmup_steps <= state.seen < config.anneal_start:
        return _NOT_SIGNIFICANT  # The horizon moves the loss as well: nothing to be learnt. It answers instead.
    if difference > 0:
        factor = _turn(config, state, -1)
        return Action.CUT if _rescale(config, state, state.scale * factor) else Action.AT_MIN
    factor = _turn(config, state, 1)
    return Action.RAISED if _rescale(config, state, state.scale / factor) else Action.AT_MAX


def _extraordinary(config: DefaultConfig, state: DefaultState, loss: float) -> Action:
    """One loss over the ceiling may be a bad batch; the next one as well is an explosion."""
    state.seen += 1
    in_a_row = state.spike_step == state.step - 1
    state.spike_step = state.step
    if not in_a_row:
        return Action.SPIKE
    # Cut once for each level that is reached, not once for each loss on that level: it may stay there.
    state.ceiling = _ceiling(config, state, loss)
    state.seen += len(state.losses)
    state.losses.clear()
    _turn(config, state, -1)
    _rescale(config, state, state.scale * config.bold_factor)
    return Action.EXPLOSION


def _non_finite(config: DefaultConfig, state: DefaultState) -> Action:
    state.seen += 1
    if state.spike_step == state.step - 1:
        state.spike_step = state.step  # As if this loss had not come in between.
    _rescale(config, state, state.scale * config.bold_factor)
    return Action.NON_FINITE


def _turn(config: DefaultConfig, state: DefaultState, direction: int) -> float:
    """The factor for a move in this direction: bold until the direction flips for the first time."""
    if direction * state.direction < 0:
        state.cautious = True
    state.direction = direction
    return config.factor if state.cautious else config.bold_factor


def _rescale(config: DefaultConfig, state: DefaultState, scale: float) -> bool:
    """Set the scale, within the widest bounds of any group so that it does not wind up; whether it changed."""
    low = config.min_scale if isinstance(config.min_scale, (int, float)) else min(config.min_scale)
    high = config.max_scale if isinstance(config.max_scale, (int, float)) else max(config.max_scale)
    before = state.scale
    state.scale = min(max(scale, low), high)
    return state.scale != before


def _follow_horizon(config: DefaultConfig, state: DefaultState, action: Action) -> Action:
    """Set the learning rates where the action, the ramp or the annealing changes them; the last two name a hold."""
    step = state.step
    if config.warmup_steps <= step < config.anneal_start:
        state.stop = config.window
        if step + config.window > config.anneal_start:
            state.stop = min(config.window, len(state.losses) + int(config.anneal_start) - step)
        if action is not _NOT_SIGNIFICANT and action is not _GATHERING:
            _set_lrs(config, state)
        return action
    state.stop = 0  # The learning rate changes at every step.
    _set_lrs(config, state)
    if action not in _HOLDS or action is Action.SPIKE:
        return action
    return Action.WARMING_UP if step < config.warmup_steps else Action.ANNEALING


def _envelope(config: DefaultConfig, step: int) -> float:
    """The share of the scale that ramp or annealing leave to optimizer step ``step`` (from 0)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.total_steps is not None and step >= config.anneal_start:
        return max(config.total_steps - step, 0) / (config.total_steps - config.anneal_start)
    return 1.0


def _set_lrs(config: DefaultConfig, state: DefaultState) -> None:
    multiple = state.scale * _envelope(config, state.step)
    low, high = config.min_scale, config.max_scale
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        multiple = min(max(multiple, low), high)
        state.lrs = tuple([initial * multiple for initial in state.initial_lrs])
    else:
        groups = len(state.initial_lrs)
        bounds = zip(state.initial_lrs, bounds_of(low, groups), bounds_of(high, groups))
        state.lrs = tuple([initial * min(max(multiple, low), high) for initial, low, high in bounds])


def _mean_and_variance(losses: list[float]) -> tuple[float, float]:
    """Mean and unbiased variance, shifted by the first loss so that a large offset does not cancel."""
    anchor, total, squares = losses[0], 0.0, 0.0
    for loss in losses:
        deviation = loss - anchor
        total += deviation
        squares += deviation * deviation
    n = len(losses)
    spread = squares - total * total / n
    if not math.isfinite(spread):
        # Losses near the largest float overflow: no telling where they are or how far apart, but not NaN for good.
        return anchor, math.inf
    return anchor + total / n, max(spread, 0.0) / (n - 1)


def _ceiling(config: DefaultConfig, state: DefaultState, level: float) -> float:
    """Above it, losses are extraordinary; finite, so that an infinite loss is above it."""
    return min(level + config.spike * math.sqrt(state.variance), NO_CEILING)


def _standard_error(config: DefaultConfig, state: DefaultState) -> float:
    """Of the difference between the means of the last two windows."""
    return math.sqrt((state.previous_variance + state.variance) / config.window)
