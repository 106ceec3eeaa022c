"""The default family over arrays: the arithmetic of ``step.py``, operation by operation, for each element.

:mod:`greedylr.control.batched` is the entrance.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from greedylr.control.decision import Action
from greedylr.control.default.config import GRANT, LEAST_KEPT, RISEN, DefaultConfig
from greedylr.control.default.step import LEAST_NOISE, NOISE_SHARE

Array = Any
"""An array of ``xp``: ``torch.Tensor``, ``jax.Array``, ``numpy.ndarray``."""

REAL_SETTINGS = (
    *("start_scale", "objection", "back_off", "significance", "factor", "reflex_factor", "spike"),
    *("min_scale", "max_scale", "polyak", "headroom"),
)
"""Entries of which an array must be able to hold the value."""

_CODE = {action: code for code, action in enumerate(Action)}


class DefaultArrays(NamedTuple):
    """Memory of the default family; the names are those of :class:`~greedylr.control.default.state.DefaultState`.

    In place of the losses of the unfinished window stand their ``count``, the first of them
    (``anchor``), and the sums of the deviations from it and of their squares.
    """

    initial_lrs: Array
    lrs: Array
    scale: Array
    climbing: Array
    climbed: Array
    total: Array
    weight: Array
    noise: Array
    last: Array
    unchanged: Array
    first: Array
    lowest: Array
    fell: Array
    level: Array
    slope: Array
    least_polyak: Array
    step: Array
    count: Array
    anchor: Array
    deviations: Array
    squares: Array
    mean: Array
    variance: Array
    previous_mean: Array
    previous_variance: Array
    ceiling: Array
    spike_step: Array
    first_validation: Array
    lowest_validation: Array
    validation_rose: Array
    granted: Array
    promised: Array
    kept: Array


def start(config: DefaultConfig, initial_lrs: Array, xp: Any) -> DefaultArrays:
    """The state before the first loss."""
    zero = xp.zeros_like(initial_lrs)
    none = xp.zeros_like(initial_lrs, dtype=xp.int32)
    scale = zero + 1.0
    if config.decade:
        scale = xp.clip(zero + config.start_scale, config.min_scale, config.max_scale)
    return DefaultArrays(
        initial_lrs=initial_lrs,
        lrs=_lrs(config, initial_lrs, scale * _envelope(config, initial_lrs, none, xp), zero + math.nan, xp),
        scale=scale,
        climbing=none == (0 if config.decade and config.anneal_start > 0 else 1),
        climbed=none,
        total=zero,
        weight=zero,
        noise=zero,
        last=zero,
        unchanged=none,
        first=zero,
        lowest=zero,
        fell=none != 0,
        level=zero,
        slope=zero,
        least_polyak=zero - 1.0,
        step=none,
        count=none,
        anchor=zero,
        deviations=zero,
        squares=zero,
        mean=zero,
        variance=zero - 1.0,
        previous_mean=zero,
        previous_variance=zero - 1.0,
        ceiling=zero + math.inf,
        spike_step=none - 1,
        first_validation=zero + xp.finfo(initial_lrs.dtype).max,
        lowest_validation=zero + xp.finfo(initial_lrs.dtype).max,
        validation_rose=none != 0,
        granted=zero + 1.0,
        promised=zero,
        kept=zero,
    )


_OF_CLIMB = ("climbed", "total", "weight", "noise", "last", "unchanged", "first", "lowest", "fell")


class _Climb(NamedTuple):
    """Climb after one more loss; meaningless in rows without a climb.

    Attributes:
        fields: New values of the state's fields.
        objects: Whether the loss objects.
        silent: Whether the loss has said nothing.
        mean: The smoothed loss.
        noise: Its variance.
    """

    fields: dict[str, Array]
    objects: Array
    silent: Array
    mean: Array
    noise: Array


def _no_climb(state: DefaultArrays, losses: Array, on: Array) -> _Climb:
    """The same for a rule that never climbs: nothing changes, and nothing objects."""
    return _Climb({name: getattr(state, name) for name in _OF_CLIMB}, on, on, losses, state.noise)


def _climb(config: DefaultConfig, state: DefaultArrays, losses: Array, on: Array, xp: Any) -> _Climb:
    beta = config.smoothing
    climbed = state.climbed + 1
    settled = climbed > config.settled
    just_settled = climbed == config.settled
    total = beta * state.total + (1 - beta) * losses
    weight = beta * state.weight + (1 - beta)
    largest = xp.finfo(losses.dtype).max
    mean = xp.clip(total / weight, -largest, largest)
    deviation = xp.sqrt(state.noise)
    least = LEAST_NOISE * abs(mean)
    deviation = xp.where(least > deviation, least, deviation)
    error = config.objection * (math.sqrt((1 - beta) / (1 + beta)) * deviation)
    fell = state.fell | (settled & (mean < state.first - math.sqrt(2.0) * error))
    objects = on & settled & (mean > state.lowest + xp.where(fell, error, 2 * error))
    lowest = xp.where(just_settled | (settled & (mean < state.lowest)), mean, state.lowest)
    difference = xp.clip((losses - state.last) * (losses - state.last) / 2, None, largest)
    # Floating before the division, which would give a narrower type for integers.
    count = xp.clip(xp.zeros_like(mean) + state.climbed, 1.0, None)
    share = xp.clip(1 / count, NOISE_SHARE * (1 - beta), None)
    noise = xp.where(climbed > 1, state.noise + share * (difference - state.noise), state.noise)
    go_on = on & ~objects
    noise = xp.where(go_on, noise, state.noise)
    unchanged = xp.where((climbed > 1) & (losses == state.last), state.unchanged + 1, 0)
    silent = go_on & (unchanged >= config.settled)
    fields = {
        "climbed": xp.where(on, climbed, state.climbed),
        "total": xp.where(on, total, state.total),
        "weight": xp.where(on, weight, state.weight),
        "noise": noise,
        "last": xp.where(go_on, losses, state.last),
        "unchanged": xp.where(go_on, unchanged, state.unchanged),
        "first": xp.where(on & just_settled, mean, state.first),
        "lowest": xp.where(go_on, lowest, state.lowest),
        "fell": xp.where(on, fell, state.fell),
    }
    return _Climb(fields, objects, silent, mean, noise)


def _polyak(level: Array, slope: Array, xp: Any) -> Array:
    says = (level > 0) & (slope > 0)
    return xp.where(says, level / xp.where(says, slope, 1.0), math.nan)


def advance(
    config: DefaultConfig, state: DefaultArrays, losses: Array, slopes: Array | None, xp: Any
) -> tuple[DefaultArrays, Array]:
    """Take in one loss, lower is better, and its slope, if known, for each element."""
    step = state.step + 1
    told = None if slopes is None else slopes == slopes
    grew, level, slope, least_polyak = None, state.level, state.slope, state.least_polyak
    if slopes is not None and config.mode == "min":
        heard = xp.isfinite(losses) & xp.isfinite(slopes) & (slopes >= 0)
        if config.await_validation:
            made = xp.where(
                state.initial_lrs > 0, state.lrs / xp.where(state.initial_lrs > 0, state.initial_lrs, 1.0), 0.0
            )
            promised = xp.clip(state.promised + xp.where(heard, slopes, 0.0) * made, None, xp.finfo(losses.dtype).max)
            state = state._replace(promised=xp.where(heard, promised, state.promised))
        gamma = config.memory
        level = xp.where(heard, gamma * state.level + (1 - gamma) * losses, state.level)
        slope = xp.where(heard, gamma * state.slope + (1 - gamma) * slopes, state.slope)
        now = _polyak(level, slope, xp)
        lower = (now < least_polyak) | ((least_polyak < 0) & (now <= xp.finfo(losses.dtype).max))
        least_polyak = xp.where(heard & lower, now, least_polyak)
        catches_up = (config.warmup <= 2 * step) & (step < config.catch_up_end)
        small = heard & catches_up & (state.scale < least_polyak / config.headroom)
        grown = _bounded(config, state, xp.where(small, state.scale * config.catch_up, state.scale), xp)
        grew = grown != state.scale
        state = state._replace(scale=grown)
    rose = None
    if config.await_validation:
        cut = xp.where(state.climbing, _backed_off(config, state.scale, xp), state.scale * config.reflex_factor)
        cut = _bounded(config, state, xp.where(state.validation_rose, cut, state.scale), xp)
        rose = state.validation_rose & (cut != state.scale)
        state = state._replace(
            scale=cut,
            climbing=state.climbing & ~state.validation_rose,
            granted=xp.where(state.validation_rose, cut, state.granted),
        )
    limit = config.polyak * _polyak(level, slope, xp)
    envelope = _envelope(config, state.initial_lrs, step, xp)
    finite = xp.isfinite(losses)
    below = finite & (losses <= state.ceiling)
    over = finite & ~below
    ordinary = below & ~state.climbing
    phase = step >= config.anneal_start
    on = below & state.climbing
    climb = _climb(config, state, losses, on, xp) if config.decade else _no_climb(state, losses, on)
    climbs = below & state.climbing & ~climb.objects

    # Into the window, and close it where it is full.
    anchor = xp.where(ordinary & (state.count == 0), losses, state.anchor)
    deviation = xp.where(ordinary, losses - anchor, 0.0)
    deviations = state.deviations + deviation
    squares = state.squares + deviation * deviation
    count = xp.where(ordinary, state.count + 1, state.count)
    full = ordinary & (count >= config.window_length)
    spread = squares - deviations * deviations / config.window_length
    known = xp.isfinite(spread)
    spread = xp.where(known, xp.clip(spread, 0.0, None), math.inf)
    mean = xp.where(full, xp.where(known, anchor + deviations / config.window_length, anchor), state.mean)
    variance = xp.where(full, spread / (config.window_length - 1), state.variance)
    previous_mean = xp.where(full, state.mean, state.previous_mean)
    previous_variance = xp.where(full, state.variance, state.previous_variance)

    # Compare it with the one before.
    compared = full & (previous_variance >= 0)
    standard_error = xp.sqrt(xp.clip(previous_variance + variance, 0.0, None) / config.window_length)
    difference = mean - previous_mean
    moved_by_schedule = phase | (step - config.window_length < config.warmup)
    significant = compared & ~moved_by_schedule & (abs(difference) > config.significance * standard_error)
    cut = significant & (difference > 0)
    improved = significant & ~cut
    raised = improved & ~(state.scale * envelope > limit)

    # The reflexes.
    next_in_a_row = state.spike_step == step - 1
    exploded = over & next_in_a_row
    spike_step = xp.where(over | (~finite & (next_in_a_row | state.climbing)), step, state.spike_step)

    # Move.
    reflex = exploded | (~finite & (next_in_a_row | ~state.climbing))
    backs_off = climb.objects | (state.climbing & reflex)
    scale = xp.where(raised, state.scale / config.factor, state.scale)
    scale = xp.where(cut, state.scale * config.factor, scale)
    scale = xp.where(reflex, state.scale * config.reflex_factor, scale)
    grows = climbs & ~climb.silent
    scale = xp.where(grows, state.scale * config.growth, scale)
    scale = xp.where(backs_off, _backed_off(config, state.scale, xp), scale)
    scale = _bounded(config, state, scale, xp)
    moved = scale != state.scale

    # The line above which losses are extraordinary.
    settled = climbs & (climb.fields["climbed"] >= config.settled)
    usual = xp.where(settled | (climb.objects & (climb.mean > losses)), climb.mean, xp.where(full, mean, losses))
    from_window = full | (exploded & (state.variance >= 0))
    deviation = xp.sqrt(xp.clip(xp.where(from_window, variance, climb.noise), 0.0, None))
    least = LEAST_NOISE * abs(usual)
    band = config.spike * xp.where(least > deviation, least, deviation)
    ceiling = xp.where(full | exploded | settled | climb.objects, usual + band, state.ceiling)

    held = xp.where(compared, _CODE[Action.NOT_SIGNIFICANT], _CODE[Action.GATHERING])
    held = xp.where(climbs, xp.where(climb.silent, _CODE[Action.SILENT], _CODE[Action.CLIMBING]), held)
    held = xp.where(improved & ~(raised & moved), _CODE[Action.AT_MAX], held)
    held = xp.where(cut & ~moved, _CODE[Action.AT_MIN], held)
    action = xp.where(phase, _CODE[Action.ANNEALING], held)
    action = xp.where(step < config.warmup, _CODE[Action.WARMING_UP], action)
    lrs = _lrs(config, state.initial_lrs, scale * envelope, limit, xp)
    if told is not None:
        holds_down = scale * envelope > limit
        lets_go = (step >= config.warmup) & ~phase & ~climbs & (lrs != state.lrs)
        action = xp.where(told & (holds_down | lets_go), _CODE[Action.LIMITED], action)
    if grew is not None:
        action = xp.where(grew, _CODE[Action.CATCHING_UP], action)
    if config.total_steps is not None:
        action = xp.where(phase & (step > config.total_steps), _CODE[Action.OVER], action)
    action = xp.where(raised & moved, _CODE[Action.RAISED], action)
    if rose is not None:
        action = xp.where(rose, _CODE[Action.VALIDATION_ROSE], action)
    action = xp.where(cut & moved, _CODE[Action.CUT], action)
    action = xp.where(over, xp.where(exploded, _CODE[Action.EXPLOSION], _CODE[Action.SPIKE]), action)
    action = xp.where(climb.objects, _CODE[Action.BACKED_OFF], action)
    action = xp.where(finite, action, _CODE[Action.NON_FINITE])

    restart = full | exploded
    state = DefaultArrays(
        initial_lrs=state.initial_lrs,
        lrs=lrs,
        scale=scale,
        climbing=state.climbing & ~backs_off & ~(grows & ~moved) & ~phase,
        **climb.fields,
        level=level,
        slope=slope,
        least_polyak=least_polyak,
        step=step,
        count=xp.where(restart, 0, count),
        anchor=anchor,
        deviations=xp.where(restart, 0.0, deviations),
        squares=xp.where(restart, 0.0, squares),
        mean=mean,
        variance=variance,
        previous_mean=previous_mean,
        previous_variance=previous_variance,
        ceiling=ceiling,
        spike_step=spike_step,
        first_validation=state.first_validation,
        lowest_validation=state.lowest_validation,
        validation_rose=state.validation_rose & False,  # It has been heard.
        granted=state.granted,
        promised=state.promised,
        kept=state.kept,
    )
    return state, action


def validate(config: DefaultConfig, state: DefaultArrays, losses: Array, xp: Any) -> DefaultArrays:
    """Take in one validation loss, lower is better, for each element."""
    none = xp.finfo(losses.dtype).max
    losses = xp.where(xp.isfinite(losses), losses, none)
    first = xp.where(state.lowest_validation < none, state.first_validation, losses)
    lower = losses < state.lowest_validation
    risen = losses - state.lowest_validation > RISEN * (first - state.lowest_validation)
    wider = GRANT * state.scale
    compared = lower & (state.lowest_validation < none)
    known = state.promised > 0
    kept = (state.lowest_validation - losses) / xp.where(known, state.promised, 1.0)
    kept = xp.clip(kept, None, none)
    most = xp.where(compared & known & (kept > state.kept), kept, state.kept)
    falls_slowly = (kept >= LEAST_KEPT) & (kept >= most / 2)
    if config.total_steps is not None:
        left = config.total_steps - (xp.zeros_like(losses) + state.step)
        falls_slowly = falls_slowly & (~(losses > 0) | (kept * (state.slope * state.scale * left) < 2 * losses))
    grants = compared & (~known | falls_slowly) & (wider > state.granted)
    return state._replace(
        first_validation=first,
        lowest_validation=xp.where(lower, losses, state.lowest_validation),
        validation_rose=state.validation_rose | (~lower & risen),
        granted=xp.where(grants, wider, state.granted),
        promised=xp.where(lower, 0.0, state.promised),
        kept=most,
    )


def _bounded(config: DefaultConfig, state: DefaultArrays, scale: Array, xp: Any) -> Array:
    """Within the bounds, and what the validation loss grants."""
    if config.await_validation:
        scale = xp.where(scale > state.granted, state.granted, scale)
    return xp.clip(scale, config.min_scale, config.max_scale)


def _backed_off(config: DefaultConfig, scale: Array, xp: Any) -> Array:
    """Go back to a part of it, and where that leaves a choice to the learning rate that was given."""
    back = scale / config.back_off
    given = xp.clip(scale / (2 * config.back_off), 1.0, None)
    return xp.where(given < back, given, back)


def _envelope(config: DefaultConfig, like: Array, step: Array, xp: Any) -> Array:
    """The share of the scale that warmup and annealing leave."""
    # Floating before the division, which would give a narrower type for integers.
    done = xp.zeros_like(like) + step
    share = xp.zeros_like(like) + 1.0
    if config.total_steps is not None and config.anneal_start < math.inf:
        left = xp.clip(config.total_steps - done, 0.0, None) / (config.total_steps - config.anneal_start)
        share = xp.where(step >= config.anneal_start, left, share)
    if config.warmup:
        share = xp.where(step + 1 < config.warmup, xp.sqrt((done + 1) / config.warmup), share)
    return share


def _lrs(config: DefaultConfig, initial_lrs: Array, multiple: Array, limit: Array, xp: Any) -> Array:
    multiple = xp.where(multiple > limit, limit, multiple)
    lrs = initial_lrs * xp.clip(multiple, config.min_scale, config.max_scale)
    return xp.clip(lrs, None, xp.finfo(lrs.dtype).max)
