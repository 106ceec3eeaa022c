"""The same rule over arrays: one independent controller per element, no branch on data, no host read.

Everything is elementwise over the shape of ``initial_lrs``, written against the few functions that
``torch``, ``jax.numpy`` and ``numpy`` share; pass the one that the arrays belong to as ``xp``. The functions
are pure, so they can be compiled, scanned and mapped (a compiler that rearranges arithmetic may change the
last bit). Run as written, in float64 every learning rate and action equals that of the
scalar rule exactly, because each operation is done in the same order; ``default.py`` and ``paper.py`` say why.

Each element has one learning rate. For several parameter groups give each its element and the same loss; the paper
family's reset then looks at each group alone.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, NamedTuple

from greedylr.control.config import Config, DefaultConfig, PaperConfig
from greedylr.control.decision import Action
from greedylr.control.default import LEAST_NOISE, NOISE_SHARE

Array = Any
"""An array of ``xp``: ``torch.Tensor``, ``jax.Array``, ``numpy.ndarray``."""

ACTIONS: tuple[Action, ...] = tuple(Action)
"""The actions by the code that :func:`advance` returns."""

_CODE = {action: code for code, action in enumerate(ACTIONS)}


class DefaultArrays(NamedTuple):
    """Memory of the default family; the names are those of :class:`~greedylr.control.state.DefaultState`.

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


class PaperArrays(NamedTuple):
    """Memory of the published algorithm; the names are those of :class:`~greedylr.control.state.PaperState`.

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


Arrays = DefaultArrays | PaperArrays


def start(config: Config, initial_lrs: Array, xp: Any) -> Arrays:
    """The state before the first loss.

    Args:
        config: Settings that all controllers share; its bounds must be numbers.
        initial_lrs: Initial learning rate of each controller, any shape, floating.
        xp: The array namespace of ``initial_lrs``.

    Raises:
        ValueError: If a bound is given per parameter group, or a count is above the largest 32-bit integer.

    Example:
        >>> import torch
        >>> config = PaperConfig.core(0.5)
        >>> state = start(config, torch.tensor([0.1, 0.2], dtype=torch.float64), torch)
        >>> for losses in ([3.0, 3.0], [2.0, 4.0]):
        ...     state, actions = advance(config, state, torch.tensor(losses, dtype=torch.float64), torch)
        >>> state.lrs.tolist(), [ACTIONS[code].name for code in actions]
        ([0.2, 0.1], ['RAISED', 'CUT'])
    """
    check_config(config)
    config = _in_range(config, initial_lrs, xp)
    zero = xp.zeros_like(initial_lrs)
    none = xp.zeros_like(initial_lrs, dtype=xp.int32)
    if isinstance(config, DefaultConfig):
        scale = zero + 1.0
        if config.decade:
            scale = xp.clip(zero + config.start_scale, config.min_scale, config.max_scale)
        return DefaultArrays(
            initial_lrs=initial_lrs,
            lrs=_default_lrs(config, initial_lrs, scale, none, xp),
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
        )
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


def check_config(config: Config) -> None:
    """Raise if arrays cannot hold a setting.

    Raises:
        ValueError: If a bound is given per parameter group, or a count is above the largest 32-bit integer.
    """
    for name in ("min_scale", "max_scale", "min_lr", "max_lr"):
        if isinstance(getattr(config, name, 0.0), tuple):
            raise ValueError(f"{name} must be one number for the batched rule, got {getattr(config, name)!r}")
    for field in fields(config):
        value = getattr(config, field.name)
        if field.init and isinstance(value, int) and value > _LARGEST_COUNT:
            raise ValueError(f"{field.name} must be at most {_LARGEST_COUNT} for the batched rule, got {value!r}")


def advance(config: Config, state: Arrays, losses: Array, xp: Any) -> tuple[Arrays, Array]:
    """Take in one loss per controller.

    Args:
        config: The settings that ``state`` was started with.
        state: What has been seen so far; not changed.
        losses: One loss per controller, in the shape of ``initial_lrs``; NaN and infinities are observations too.
        xp: The array namespace of both.

    Returns:
        The new state, with the learning rates for the next optimizer step in ``lrs``, and what
        happened to each controller, as an index into :data:`ACTIONS`.
    """
    config = _in_range(config, losses, xp)
    losses = -losses if config.mode == "max" else losses
    if isinstance(config, DefaultConfig):
        assert isinstance(state, DefaultArrays)
        return _advance_default(config, state, losses, xp)
    assert isinstance(state, PaperArrays)
    return _advance_paper(config, state, losses, xp)


_LARGEST_COUNT = 2**31 - 1


def _in_range(config: Config, array: Array, xp: Any) -> Config:
    """The settings, with the nearest that the array's type can hold: in single precision 1e39 would be infinite."""
    range_ = xp.finfo(array.dtype)
    least, most = float(range_.tiny), float(range_.max) / 2  # of which the double is finite too
    changes: dict[str, Any] = {}
    for name in _REAL_SETTINGS[type(config)]:
        value = getattr(config, name)
        if most < value < math.inf or 0 < value < least:
            changes[name] = most if value > most else least
    return replace(config, **changes) if changes else config


_REAL_SETTINGS = {
    DefaultConfig: (
        *("start_scale", "objection", "back_off", "significance", "factor", "reflex_factor", "spike"),
        *("min_scale", "max_scale"),
    ),
    PaperConfig: ("factor", "threshold", "min_lr", "max_lr", "eps"),
}


class _Climb(NamedTuple):
    """What one loss makes of the climb; where there is none, of no meaning.

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


def _advance_default(
    config: DefaultConfig, state: DefaultArrays, losses: Array, xp: Any
) -> tuple[DefaultArrays, Array]:
    step = state.step + 1
    finite = xp.isfinite(losses)
    below = finite & (losses <= state.ceiling)
    over = finite & ~below
    ordinary = below & ~state.climbing
    phase = step >= config.anneal_start
    climb = _climb(config, state, losses, below & state.climbing, xp)
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
    significant = compared & ~phase & (abs(difference) > config.significance * standard_error)
    cut = significant & (difference > 0)
    raised = significant & ~cut

    # The reflexes.
    next_in_a_row = state.spike_step == step - 1
    exploded = over & next_in_a_row
    spike_step = xp.where(over | (~finite & (next_in_a_row | state.climbing)), step, state.spike_step)

    # Move.
    reflex = exploded | (~finite & (next_in_a_row | ~state.climbing))
    backs_off = climb.objects | (state.climbing & reflex)
    back = state.scale / config.back_off
    given = xp.clip(state.scale / (2 * config.back_off), 1.0, None)
    scale = xp.where(raised, state.scale / config.factor, state.scale)
    scale = xp.where(cut, state.scale * config.factor, scale)
    scale = xp.where(reflex, state.scale * config.reflex_factor, scale)
    grows = climbs & ~climb.silent
    scale = xp.where(grows, state.scale * config.growth, scale)
    scale = xp.where(backs_off, xp.where(given < back, given, back), scale)
    scale = xp.clip(scale, config.min_scale, config.max_scale)
    moved = scale != state.scale

    # The line above which losses are extraordinary.
    settled = climbs & (climb.fields["climbed"] >= config.settled)
    level = xp.where(settled | (climb.objects & (climb.mean > losses)), climb.mean, xp.where(full, mean, losses))
    from_window = full | (exploded & (state.variance >= 0))
    deviation = xp.sqrt(xp.clip(xp.where(from_window, variance, climb.noise), 0.0, None))
    least = LEAST_NOISE * abs(level)
    band = config.spike * xp.where(least > deviation, least, deviation)
    ceiling = xp.where(full | exploded | settled | climb.objects, level + band, state.ceiling)

    held = xp.where(compared, _CODE[Action.NOT_SIGNIFICANT], _CODE[Action.GATHERING])
    held = xp.where(climbs, xp.where(climb.silent, _CODE[Action.SILENT], _CODE[Action.CLIMBING]), held)
    action = xp.where(phase, _CODE[Action.ANNEALING], held)
    if config.total_steps is not None:
        action = xp.where(phase & (step > config.total_steps), _CODE[Action.OVER], action)
    action = xp.where(raised, xp.where(moved, _CODE[Action.RAISED], _CODE[Action.AT_MAX]), action)
    action = xp.where(cut, xp.where(moved, _CODE[Action.CUT], _CODE[Action.AT_MIN]), action)
    action = xp.where(over, xp.where(exploded, _CODE[Action.EXPLOSION], _CODE[Action.SPIKE]), action)
    action = xp.where(climb.objects, _CODE[Action.BACKED_OFF], action)
    action = xp.where(finite, action, _CODE[Action.NON_FINITE])

    restart = full | exploded
    state = DefaultArrays(
        initial_lrs=state.initial_lrs,
        lrs=_default_lrs(config, state.initial_lrs, scale, step, xp),
        scale=scale,
        climbing=state.climbing & ~backs_off & ~(grows & ~moved) & ~phase,
        **climb.fields,
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
    )
    return state, action


def _default_lrs(config: DefaultConfig, initial_lrs: Array, scale: Array, step: Array, xp: Any) -> Array:
    # Floating before the division, which would give a narrower type for integers.
    done = xp.zeros_like(initial_lrs) + step
    envelope = 1.0
    if config.total_steps is not None and config.anneal_start < math.inf:
        left = xp.clip(config.total_steps - done, 0.0, None) / (config.total_steps - config.anneal_start)
        envelope = xp.where(step >= config.anneal_start, left, 1.0)
    lrs = initial_lrs * xp.clip(scale * envelope, config.min_scale, config.max_scale)
    return xp.clip(lrs, None, xp.finfo(lrs.dtype).max)


def _advance_paper(config: PaperConfig, state: PaperArrays, losses: Array, xp: Any) -> tuple[PaperArrays, Array]:
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
