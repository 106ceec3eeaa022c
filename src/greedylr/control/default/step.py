"""The default family: a schedule that the gradient limits and windows of losses correct, with two reflexes.

The rule in maths is in :class:`~greedylr.control.default.config.DefaultConfig`. ``arrays.py`` holds the same
arithmetic over arrays; an operation moved here must be moved there, or a last bit will differ.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from greedylr.control.decision import Action, Decision
from greedylr.control.default.config import GRANT, LEAST_KEPT, RISEN, DefaultConfig
from greedylr.control.default.state import NO_CEILING, DefaultState
from greedylr.control.settings import bounds_of

# Looked up at every step: a global name takes a third of the time of an attribute of an enumeration or a module.
_GATHERING = Action.GATHERING
_CLIMBING = Action.CLIMBING
_NOT_SIGNIFICANT = Action.NOT_SIGNIFICANT
_LIMITED = Action.LIMITED
_WARMING_UP = Action.WARMING_UP
_ANNEALING = Action.ANNEALING
_INFINITY = math.inf
_MINUS_INFINITY = -math.inf
_new = tuple.__new__
_LARGEST = sys.float_info.max  # of a learning rate that was set by hand, times the scale


def start(config: DefaultConfig, initial_lrs: tuple[float, ...]) -> DefaultState:
    """The state before the first loss."""
    state = DefaultState(initial_lrs, initial_lrs)
    if config.decade:
        state.climbing = True
        _rescale(config, state, config.start_scale)
    write_lrs(config, state, state.step)
    _follow_horizon(config, state, _GATHERING)
    return state


def advance(config: DefaultConfig, state: DefaultState, loss: float, slope: float = math.nan) -> Action:
    """Take in one loss; the state, with the learning rates in it, is the answer."""
    known = slope == slope
    grew = False
    if config.mode == "max":
        loss = -loss
    elif known:
        grew = _compare_with_slope(config, state, loss, slope)
    if _MINUS_INFINITY < loss <= state.ceiling:
        losses = state.losses
        losses.append(loss)
        if len(losses) < state.stop and not known:
            # The way of nearly every step: nothing may be added before this line without measuring it.
            return _GATHERING
        rose = state.validation_rose and _hear_validation(config, state)
        if state.climbing:
            action = _climb(config, state)
        else:
            action = _weigh(config, state) if len(losses) >= config.window_length else _GATHERING
    else:
        rose = state.validation_rose and _hear_validation(config, state)
        action = _extraordinary(config, state, loss) if math.isfinite(loss) else _non_finite(config, state)
    if rose and (action in _HOLDS or action is Action.RAISED):
        action = Action.VALIDATION_ROSE
    return _follow_horizon(config, state, action, known, grew)


def observe(config: DefaultConfig, state: DefaultState, loss: float, slope: float = math.nan) -> Decision:
    """Take in one loss and say what was decided, and why."""
    before, ceiling = state.lrs, state.ceiling
    action = advance(config, state, loss, slope)
    silent = action is _GATHERING or action is _CLIMBING
    numbers = {} if silent else evidence(config, state, ceiling, action)
    # As Decision(...) does, in half the time.
    return _new(Decision, (state.step, loss, action, before, state.lrs, numbers))


def evidence(config: DefaultConfig, state: DefaultState, ceiling: float, action: Action) -> dict[str, float]:
    """The numbers behind ``action``, just returned by :func:`advance`, in the unit of the loss."""
    sign = -1.0 if config.mode == "max" else 1.0
    if action not in _WITH_NUMBERS_OF_ITS_OWN:
        if state.losses or state.previous_variance < 0:
            return {}
        return {
            "mean": sign * state.mean,
            "previous_mean": sign * state.previous_mean,
            "standard_error": _standard_error(config, state),
        }
    if action is _LIMITED or action is Action.CATCHING_UP:
        polyak = _polyak(state)
        return {"polyak": polyak} if polyak == polyak else {}  # It may have let go because it is not known any more.
    if action is Action.SPIKE or action is Action.EXPLOSION:
        return {"ceiling": sign * ceiling}
    if action is Action.VALIDATION_ROSE:
        return {"validation": sign * state.validation, "lowest_validation": sign * state.lowest_validation}
    if action is Action.BACKED_OFF:
        mean = state.total / state.weight
        return {
            "mean": sign * mean,
            "lowest": sign * state.lowest,
            "standard_error": _smoothed_error(config, state, mean),
        }
    if action is Action.HORIZON:
        return {"total_steps": float(config.total_steps or math.inf), "previous_total_steps": state.moved_from}
    return {}


_WITH_NUMBERS_OF_ITS_OWN = frozenset(
    {
        *(Action.CATCHING_UP, Action.LIMITED, Action.SPIKE, Action.EXPLOSION, Action.NON_FINITE),
        *(Action.VALIDATION_ROSE, Action.BACKED_OFF, Action.HORIZON),
    }
)


def validate(config: DefaultConfig, state: DefaultState, loss: float) -> None:
    """Compare a validation loss with the lowest: what is lower lets the scale rise, what is above may cut it."""
    if config.mode == "max":
        loss = -loss
    if not math.isfinite(loss):
        loss = NO_CEILING
    lowest = state.lowest_validation
    if lowest == NO_CEILING:
        state.first_validation = loss
    if loss < lowest:
        fell = lowest - loss
        if lowest < NO_CEILING and _falls_too_slowly(config, state, loss, fell):
            state.granted = min(max(state.granted, GRANT * state.scale), NO_CEILING)
        state.lowest_validation, state.promised = loss, 0.0
    elif loss - lowest > RISEN * (state.first_validation - lowest):
        state.validation, state.validation_rose = loss, True
        state.stop = 0  # The next loss does not go the fast way.


def _falls_too_slowly(config: DefaultConfig, state: DefaultState, loss: float, fell: float) -> bool:
    """True if what the steps promised was kept, and the rest of the run is too short at that pace."""
    if not state.promised > 0:
        return True  # Nothing is known of it.
    kept = min(fell / state.promised, NO_CEILING)
    state.kept = max(state.kept, kept)
    if kept < max(LEAST_KEPT, state.kept / 2):
        return False
    if config.total_steps is None or not loss > 0:
        return True
    # Half of what is left, for the annealing.
    return kept * (state.slope * state.scale * (config.total_steps - state.step)) < 2 * loss


def _hear_validation(config: DefaultConfig, state: DefaultState) -> bool:
    """Cut, and let nothing rise again before the validation loss is the lowest again; whether the scale changed."""
    before = state.scale
    state.validation_rose = False
    _cut_at_once(config, state)
    state.granted = state.scale
    return state.scale != before


def add_group(config: DefaultConfig, state: DefaultState, initial_lr: float) -> None:
    """A parameter group that joins late, as if it had been there from the start."""
    state.initial_lrs = (*state.initial_lrs, initial_lr)
    write_lrs(config, state, state.step)


def set_horizon(config: DefaultConfig, state: DefaultState, total_steps: int | None) -> DefaultConfig:
    """Move the end of the run, and with it annealing and catching up, but not warmup, climb and windows."""
    moved = replace(
        config,
        total_steps=total_steps,
        decade_steps=config.decade,
        window=config.window_length,
        warmup_steps=config.warmup,
    )
    state.moved_from = float(config.total_steps or math.inf)
    state.horizon_moved = True
    if state.step >= config.anneal_start:
        # What annealing made of the losses is no measure for those of the learning rate that comes back.
        state.seen += len(state.losses)
        state.losses.clear()
        state.variance = state.previous_variance = -1.0
        state.ceiling = NO_CEILING
    state.stop = 0  # The next loss does not go the fast way.
    write_lrs(moved, state, state.step)
    return moved


def resume(config: DefaultConfig, then: DefaultState, step: int, factor: float) -> DefaultState:
    """The memory of an earlier step at a later one, with a smaller scale."""
    later = step - then.step
    # What the gradient allowed then, where that was less than the scale.
    multiple, limited = _multiple_of_initial(config, then, then.step)
    held = multiple / _envelope(config, then.step) if limited else then.scale
    state = replace(then, losses=list(then.losses), seen=then.seen + later)
    if then.spike_step >= 0:
        state.spike_step += later  # A spike right before is one right before.
    _rescale(config, state, held * factor)
    _follow_horizon(config, state, _GATHERING)
    write_lrs(config, state, step)
    if then.horizon_moved:  # Nobody was told.
        state.horizon_moved, state.stop = True, 0
    return state


def take_over(state: DefaultState, lrs: tuple[float, ...], written: Iterable[float]) -> None:
    """Let learning rates count that somebody else has set: the multiples of the initial ones stay what they were."""
    if state.step == 0:
        state.initial_lrs = lrs
    else:
        groups = zip(state.initial_lrs, lrs, written)
        state.initial_lrs = tuple([_rebased(initial, lr, before) for initial, lr, before in groups])
    state.lrs = lrs
    # The slopes before were those at other learning rates.
    state.level, state.slope, state.least_polyak = 0.0, 0.0, -1.0


def rebase(config: DefaultConfig, state: DefaultState, lrs: tuple[float, ...], written: Iterable[float]) -> None:
    """The same where the rule has moved since: the move is made on top of what was set."""
    take_over(state, lrs, written)
    write_lrs(config, state, state.step)


def _rebased(initial: float, lr: float, before: float) -> float:
    if lr == before:
        return initial
    # A learning rate that was zero has no multiple: the new one is then the initial one.
    rebased = initial * (lr / before) if before > 0 else lr
    return rebased if math.isfinite(rebased) else lr


def check_lrs(config: DefaultConfig, initial_lrs: Sequence[float]) -> None:
    """Raise if these cannot be initial learning rates under these settings.

    Raises:
        ValueError: If one times ``max_scale`` is not finite.
    """
    for lr, most in zip(initial_lrs, bounds_of(config.max_scale, len(initial_lrs))):
        if not math.isfinite(lr * most):
            raise ValueError(
                f"an initial learning rate times max_scale must be finite, got {lr!r} times max_scale={most!r}"
            )


_CLIMBS = frozenset({Action.CLIMBING, Action.SILENT})
_HOLDS = frozenset(
    {Action.GATHERING, Action.NOT_SIGNIFICANT, Action.CLIMBING, Action.SILENT, Action.AT_MAX, Action.AT_MIN}
)


def _compare_with_slope(config: DefaultConfig, state: DefaultState, loss: float, slope: float) -> bool:
    """Smooth both, and grow where a step is far smaller than it could be; whether it did."""
    if not (_MINUS_INFINITY < loss <= NO_CEILING and 0 <= slope <= NO_CEILING):
        return False
    if config.await_validation and state.initial_lrs[0] > 0:
        # Of the step that was made: at the learning rates before this loss is heard.
        state.promised = min(state.promised + slope * (state.lrs[0] / state.initial_lrs[0]), NO_CEILING)
    gamma = config.memory
    state.level = gamma * state.level + (1 - gamma) * loss
    state.slope = gamma * state.slope + (1 - gamma) * slope
    polyak = _polyak(state)
    if polyak < state.least_polyak or (state.least_polyak < 0 and polyak <= NO_CEILING):
        state.least_polyak = polyak
    catches_up = config.warmup <= 2 * (state.step + 1) and state.step + 1 < config.catch_up_end
    if catches_up and state.scale < state.least_polyak / config.headroom:
        return _rescale(config, state, state.scale * config.catch_up)
    return False


def _polyak(state: DefaultState) -> float:
    """Polyak's step, as a multiple of the initial learning rates; NaN, which nothing is above or below, if unknown."""
    return state.level / state.slope if state.level > 0 and state.slope > 0 else math.nan


def _multiple_of_initial(config: DefaultConfig, state: DefaultState, step: int) -> tuple[float, bool]:
    """Multiple of the initial learning rates at optimizer step ``step``, and whether the gradient limits it."""
    multiple = state.scale * _envelope(config, step)
    if state.slope > 0:
        limit = config.polyak * _polyak(state)
        if multiple > limit:
            return limit, True
    return multiple, False


LEAST_NOISE = 0.01
"""Share of the loss that its noise is taken to be at least: rounded to half precision it may not seem to have any."""


def _climb(config: DefaultConfig, state: DefaultState) -> Action:
    """Go on, unless the smoothed loss is significantly above its lowest."""
    loss = state.losses.pop()
    state.seen += 1
    state.climbed += 1
    beta = config.smoothing
    state.total = beta * state.total + (1 - beta) * loss
    state.weight = beta * state.weight + (1 - beta)
    # The quotient of two that are rounded may be above the largest number.
    mean = min(max(state.total / state.weight, -NO_CEILING), NO_CEILING)
    if state.climbed == config.settled:
        state.first = state.lowest = mean
    elif state.climbed > config.settled:
        error = config.objection * _smoothed_error(config, state, mean)
        if mean < state.first - _SQRT2 * error:
            state.fell = True
        if mean > state.lowest + (error if state.fell else 2 * error):
            _back_off(config, state)
            state.ceiling = _ceiling(config, max(loss, mean), state.noise)
            return Action.BACKED_OFF
        state.lowest = min(state.lowest, mean)
    if state.climbed > 1:
        # Only now: what is judged must not raise the noise that it is judged by. Finite, so that it can come down.
        difference = min((loss - state.last) * (loss - state.last) / 2, NO_CEILING)
        share = max(NOISE_SHARE * (1 - beta), 1 / (state.climbed - 1))
        state.noise += share * (difference - state.noise)
        state.unchanged = state.unchanged + 1 if loss == state.last else 0
    state.last = loss
    if state.climbed >= config.settled:
        state.ceiling = _ceiling(config, mean, state.noise)
    if state.unchanged >= config.settled:
        return Action.SILENT  # A signal that says nothing has not consented: a reward that is always zero, say.
    if not _rescale(config, state, state.scale * config.growth):
        state.climbing = False
    return Action.CLIMBING


_SQRT2 = math.sqrt(2.0)
NOISE_SHARE = 0.5
"""Weight of the last difference in the noise, over that of the last loss in the smoothed loss."""


def _smoothed_error(config: DefaultConfig, state: DefaultState, mean: float) -> float:
    """Standard error of the smoothed loss."""
    beta = config.smoothing
    return math.sqrt((1 - beta) / (1 + beta)) * max(math.sqrt(state.noise), LEAST_NOISE * abs(mean))


def _back_off(config: DefaultConfig, state: DefaultState) -> None:
    """Go back to a part of where it went wrong, and where that leaves a choice to the learning rate that was given."""
    least, most = state.scale / (2 * config.back_off), state.scale / config.back_off
    _rescale(config, state, min(max(1.0, least), most))
    state.climbing = False


def _weigh(config: DefaultConfig, state: DefaultState) -> Action:
    """Close the full window, and compare it with the one before."""
    losses = state.losses
    state.previous_mean, state.previous_variance = state.mean, state.variance
    state.mean, state.variance = _mean_and_variance(losses)
    state.ceiling = _ceiling(config, state.mean, state.variance)
    state.seen += len(losses)
    losses.clear()
    if state.previous_variance < 0:
        return _GATHERING
    difference = state.mean - state.previous_mean
    if not abs(difference) > config.significance * _standard_error(config, state):
        return _NOT_SIGNIFICANT
    if state.seen - config.window_length < config.warmup or not state.seen < config.anneal_start:
        return _NOT_SIGNIFICANT  # The schedule moves the loss as well: nothing to be learnt. It answers instead.
    if difference > 0:
        return Action.CUT if _rescale(config, state, state.scale * config.factor) else Action.AT_MIN
    _, limited = _multiple_of_initial(config, state, state.step)
    if limited:
        return Action.AT_MAX
    return Action.RAISED if _rescale(config, state, state.scale / config.factor) else Action.AT_MAX


def _extraordinary(config: DefaultConfig, state: DefaultState, loss: float) -> Action:
    """One loss over the ceiling may be a bad batch; the next one as well is an explosion."""
    state.seen += 1
    in_a_row = state.spike_step == state.step - 1
    state.spike_step = state.step
    if not in_a_row:
        return Action.SPIKE
    # Cut once for each level that is reached, not once for each loss on that level: it may stay there.
    # Before the first window there is the noise of the climb.
    state.ceiling = _ceiling(config, loss, state.variance if state.variance >= 0 else state.noise)
    state.seen += len(state.losses)
    state.losses.clear()
    _cut_at_once(config, state)
    return Action.EXPLOSION


def _non_finite(config: DefaultConfig, state: DefaultState) -> Action:
    """Cut at once, but that the climb, far below as a rule, waits for a second one as it does after a bad batch."""
    state.seen += 1
    in_a_row = state.spike_step == state.step - 1
    if in_a_row or state.climbing:
        state.spike_step = state.step
    if in_a_row or not state.climbing:
        _cut_at_once(config, state)
    return Action.NON_FINITE


def _cut_at_once(config: DefaultConfig, state: DefaultState) -> None:
    if state.climbing:
        _back_off(config, state)
    else:
        _rescale(config, state, state.scale * config.reflex_factor)


def _rescale(config: DefaultConfig, state: DefaultState, scale: float) -> bool:
    """Set the scale, within the widest bounds of any group so that it does not wind up; whether it changed."""
    low, high, before = config.least_scale, config.most_scale, state.scale
    if config.await_validation and state.granted < high:
        high = state.granted
    state.scale = min(max(scale, low), high)
    return state.scale != before


def _follow_horizon(
    config: DefaultConfig, state: DefaultState, action: Action, known: bool = False, grew: bool = False
) -> Action:
    """Set the learning rates where the action, the horizon or the gradient changes them; they name a hold.

    Args:
        config: The settings.
        state: After ``action``.
        action: What the loss has done.
        known: Whether the slope is known.
        grew: Whether the scale has grown because of it.
    """
    step, before = state.seen + len(state.losses), state.lrs  # state.step, without the call
    limited = False
    if config.warmup <= step < config.anneal_start:
        state.stop = 1 if state.climbing else config.window_length
        if not state.climbing and step + config.window_length > config.anneal_start:
            state.stop = min(config.window_length, len(state.losses) + int(config.anneal_start) - step)
        if known or (action is not _NOT_SIGNIFICANT and action is not _GATHERING):
            limited = write_lrs(config, state, step)
    else:
        state.stop = 0  # The learning rate changes at every step.
        state.climbing = False
        limited = write_lrs(config, state, step)
    if action not in _HOLDS:
        return action
    if state.horizon_moved:  # It is told by the first decision that has nothing else to tell.
        state.horizon_moved = False
        return Action.HORIZON
    if config.total_steps is not None and config.total_steps < step and config.anneal_start < _INFINITY:
        return Action.OVER
    if grew:
        return Action.CATCHING_UP
    if known and limited:
        return _LIMITED
    if step < config.warmup:
        return _WARMING_UP
    if step >= config.anneal_start:
        return _ANNEALING
    if known and action not in _CLIMBS and state.lrs != before:
        return _LIMITED  # No longer: it was what held them down.
    return action


def _envelope(config: DefaultConfig, step: int) -> float:
    """The share of the scale that warmup and annealing leave to optimizer step ``step`` (from 0)."""
    if step + 1 < config.warmup:
        return math.sqrt((step + 1) / config.warmup)
    total = config.total_steps
    if total is not None and step >= config.anneal_start:
        return (total - step) / (total - config.anneal_start) if step < total else 0.0
    return 1.0


def write_lrs(config: DefaultConfig, state: DefaultState, step: int) -> bool:
    """Set the learning rates of optimizer step ``step`` (from 0); True if the gradient holds them down."""
    multiple, limited = _multiple_of_initial(config, state, step)
    # While it anneals, at every step: calls of min and max, and of a comprehension, would cost more than all the rest.
    if config.bounds_differ:
        groups = len(state.initial_lrs)
        bounds = zip(state.initial_lrs, bounds_of(config.min_scale, groups), bounds_of(config.max_scale, groups))
        state.lrs = tuple([min(initial * min(max(multiple, low), high), _LARGEST) for initial, low, high in bounds])
    else:
        if multiple < config.least_scale:
            multiple = config.least_scale
        elif multiple > config.most_scale:
            multiple = config.most_scale
        lrs = []
        for initial in state.initial_lrs:
            lr = initial * multiple
            lrs.append(lr if lr < _LARGEST else _LARGEST)
        state.lrs = tuple(lrs)
    return limited


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


def _ceiling(config: DefaultConfig, level: float, variance: float) -> float:
    """Above it, losses are extraordinary; finite, so that an infinite loss is above it."""
    deviation = max(math.sqrt(variance), LEAST_NOISE * abs(level))
    return min(level + config.spike * deviation, NO_CEILING)


def _standard_error(config: DefaultConfig, state: DefaultState) -> float:
    """Standard error of the difference between the means of the last two windows."""
    return math.sqrt((state.previous_variance + state.variance) / config.window_length)
