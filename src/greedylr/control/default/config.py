"""Settings of the default family: one frozen, validated record."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import ClassVar, Literal

from greedylr.control.settings import Bound, take_bound, take_choice, take_flag, take_int, take_real

CATCH_UP = 0.06
"""The part of a run in which the scale grows tenfold while it catches up."""
GRANT = 2.0
"""Factor by which a validation loss that is the lowest lets the scale rise."""
RISEN = 0.01
"""The share of what it has fallen so far by which a validation loss must be above the lowest to cut."""
LEAST_KEPT = 0.05
"""The share of what the steps promised by which the validation loss must fall for that, at least."""


@dataclass(frozen=True, slots=True)
class DefaultConfig:
    r"""Settings of the default family, made for the minibatch loss at every step.

    The learning rate of a parameter group is ``initial × min(scale × envelope, limit)``, clamped to
    ``[min_scale, max_scale] × initial``; the scale starts at 1.

    **Warm up and anneal.** Over the first :math:`w` = ``warmup_steps`` losses the envelope rises to 1 like a square
    root, :math:`\sqrt{t / w}` at optimizer step :math:`t`: it is at a half after a quarter of them. If ``total_steps``
    is known, it falls linearly to 0 over the last part of them.

    **Hear the gradient.** Where the slope :math:`g_t` is known, which is what the loss would fall by in one step at
    the initial learning rates if it fell as steeply as it begins to, both are smoothed alike, with
    :math:`\tau = \max(4, T/100)` and :math:`\gamma = 1 - 1/\tau` (:math:`T` = ``total_steps``; 20 in place of
    :math:`\tau` if those are not known), and their quotient is Polyak's step, the multiple of the initial learning
    rate with which one step would promise the whole loss:

    .. math::
        \bar\ell_t &= \gamma \bar\ell_{t-1} + (1 - \gamma) \ell_t, \qquad
        \bar g_t = \gamma \bar g_{t-1} + (1 - \gamma) g_t, \qquad
        p_t = \bar\ell_t / \bar g_t, \\
        \text{limit} &= \text{polyak} \cdot p_t.

    While :math:`\text{scale} < \min_{s \le t} p_s / \text{headroom}`, a step is far smaller than it could be: the scale
    then grows tenfold in every ``catch_up_steps`` losses, from half of the warmup to two fifths of the run. (The least
    of all, for where a loss cannot fall to zero its gradient still does. Not before, for many a new model has a small
    gradient whatever its learning rate.) A loss below zero shows that it could fall further than to zero,
    and a reward is not what the gradient is of: there is no limit then, and no catching up.

    **Climb**, with ``decade_steps`` only, in place of warmup and catching up. The scale starts at ``start_scale`` and
    grows tenfold in every :math:`D` = ``decade_steps`` losses, until the loss objects. With
    :math:`\tau = \max(4, D/8)` and :math:`\beta = 1 - 1/\tau`, the losses are smoothed, and their noise is taken from
    their successive differences:

    .. math::
        m_t &= \sum_i \beta^{t-i} \ell_i \;/\; \sum_i \beta^{t-i}, \\
        \sigma_t^2 &= \sigma_{t-1}^2 + \max\left(\tfrac{1}{2\tau}, \tfrac{1}{t-1}\right)
            \left(\tfrac12 (\ell_t - \ell_{t-1})^2 - \sigma_{t-1}^2\right), \\
        e_t &= \sqrt{(1-\beta)/(1+\beta)} \; \max(\sigma_{t-1}, |m_t| / 100).

    After :math:`n = \lceil 2\tau \rceil` losses, the loss objects when :math:`m_t > \min_{n \le i < t} m_i + k e_t`,
    with :math:`k` = ``objection``; twice that as long as it has not fallen by :math:`\sqrt2 k e_t` since then, for a
    loss that has not moved yet has nothing to say. Then, at a scale of :math:`s`, with :math:`b` = ``back_off``,

    .. math:: \text{scale} \leftarrow \min(\max(1, s / 2b), s / b):

    a part of what went wrong, and where that leaves a choice, the learning rate that was given. The climb is over.

    **Hear the losses.** Outside a climb the losses are cut into consecutive windows of ``window`` observations that do
    not overlap. With :math:`m_k, s_k^2` the mean and the variance of window :math:`k`, of :math:`n` losses, which lies
    between warmup and annealing (both move the loss as well), and :math:`e_k = \sqrt{(s_{k-1}^2 + s_k^2) / n}` the
    standard error of the difference of two means,

    .. math::
        \text{scale} \leftarrow \begin{cases}
            \text{scale} / F & m_k < m_{k-1} - z \, e_k \\
            \text{scale} \cdot F & m_k > m_{k-1} + z \, e_k \\
            \text{scale} & \text{otherwise.}
        \end{cases}

    **Hear the validation**, with ``await_validation`` only. A validation loss :math:`v`, told after :math:`t` losses at
    a scale of :math:`s`, is compared with the lowest before it, :math:`v^*` after :math:`t^*` losses, and with the
    first:

    .. math::
        \text{scale} \leftarrow \text{reflex\_factor} \cdot s, \quad \text{granted} \leftarrow \text{scale} \quad
        \text{if } v - v^* > \tfrac{1}{100} (v_{\text{first}} - v^*),

    with the next loss, which ends a climb as an objection does. If it is the lowest, the scale may rise to twice what
    it is, :math:`\text{granted} \leftarrow \max(\text{granted}, 2 s)`, but, where the slope is known, only on three
    conditions on the share :math:`r` that was kept of what the steps since :math:`t^*` promised together, with
    :math:`\eta_i` the learning rate that step :math:`i` was made at. It is a twentieth at least; at least half of the
    largest so far, :math:`r_{\max}`; and as large a share of what the rest of the run promises, half of it for the
    annealing, is less than the whole loss:

    .. math::
        r = (v^* - v) \Big/ \sum_{t^* < i \le t} g_i \, \eta_i / \eta_{\text{initial}}, \qquad
        r \ge \max\left(\tfrac{1}{20}, \tfrac12 r_{\max}\right), \qquad
        r \, \bar g_t \, s \, \frac{T - t}{2} < v.

    (Without ``total_steps``, and for a loss that is not above zero, the last does not count.) Nothing raises the scale
    above what is granted, which is 1 at the start: the learning rate that was given is left behind only as long as the
    validation loss falls as the gradient promised and yet too slowly, and by a factor of two from one validation to the
    next at most. A validation loss that is not finite is above all others.

    **Reflexes.** Two things do not wait for the window. A loss that is NaN or infinite is left out of all averages and
    cuts by ``reflex_factor``. So is a loss above :math:`m + \text{spike} \cdot \max(s, |m|/100)`, with the mean and
    deviation of the last window or, after a climb and until there is one, its :math:`m_{t-1}` and
    :math:`\sigma_{t-1}`; the first one moves nothing, the second in a row is an explosion and cuts, and again only if
    the losses rise further still. After an objection the line is drawn above the smoothed loss or the loss that
    objected, whichever is higher. During the climb either of the two counts as one: it waits at the first, and ends at
    the second in a row as at an objection.

    Args:
        mode: ``"min"`` for a loss, ``"max"`` for a reward.
        warmup_steps: Observations over which the learning rate rises to the initial one. None: a tenth of
            ``total_steps``, or 20 if those are not known; always 0 if there is a climb.
        polyak: How much of the loss a step may promise, more than 0. Infinite: there is no limit.
        headroom: How many times smaller than Polyak's step the scale must be to grow, at least 1.
        catch_up_steps: Observations in which it then grows tenfold; 0: it never does. None: 0.06 ``total_steps``, at
            least 10, or 50 if those are not known.
        start_scale: Where the climb starts, as a multiple of the initial learning rate, in (0, 1].
        decade_steps: Observations in which the climb grows tenfold; 0: no climb, start at the initial learning rate.
        objection: :math:`k`, how many standard errors the smoothed loss must rise above its lowest to end the climb.
        back_off: :math:`b` > 1, what the scale is divided by then, at least; at most twice that.
        window: Observations per window, at least 2. None: a twentieth of ``total_steps``, from 20 to 200, or 50 if
            those are not known.
        significance: :math:`z`, how many standard errors the means must differ by.
        factor: :math:`F` in (0, 1).
        reflex_factor: What the two reflexes multiply by, in (0, 1).
        spike: Standard deviations above the usual loss from which a loss is extraordinary.
        min_scale: Lower bound as a multiple of each group's initial learning rate, in [0, 1];
            a number, or one per group.
        max_scale: Upper bound as a multiple of each group's initial learning rate, at least 1;
            a number, or one per group. 1: never above the learning rate that was given.
        await_validation: Whether the validation loss is heard, and nothing rises above the learning rate that was given
            but while it falls: without one nothing ever does.
        total_steps: Observations in the whole run, if known. None: open-ended.
        anneal: The part of ``total_steps`` over which the learning rate decays, in [0, 1].

    Raises:
        ValueError: If an argument is outside what is stated above.
        TypeError: If an argument is not of the kind stated above.

    Example:
        >>> DefaultConfig(window=50).window
        50
        >>> DefaultConfig(total_steps=1000).warmup
        100
        >>> DefaultConfig(factor=1.5)
        Traceback (most recent call last):
        ValueError: factor must be a number with 0 < factor < 1, got 1.5
    """

    bounds: ClassVar[tuple[str, str]] = ("min_scale", "max_scale")

    mode: Literal["min", "max"] = "min"
    warmup_steps: int | None = None
    polyak: float = 2.0
    headroom: float = 5.0
    catch_up_steps: int | None = None
    start_scale: float = 0.05
    decade_steps: int = 0
    objection: float = 3.0
    back_off: float = 4.0
    window: int | None = None
    significance: float = 2.0
    factor: float = 0.9
    reflex_factor: float = 0.5
    spike: float = 6.0
    min_scale: Bound = 1e-5
    max_scale: Bound = 1e3
    await_validation: bool = False
    total_steps: int | None = None
    anneal: float = 0.9
    warmup: int = field(init=False, repr=False, compare=False)
    """Observations over which the learning rate rises. Derived."""
    memory: float = field(init=False, repr=False, compare=False)
    """The weight of the past in the smoothed loss and slope, γ. Derived."""
    catch_up: float = field(init=False, repr=False, compare=False)
    """Factor of the scale after each loss while it catches up. Derived."""
    hears_slope: bool = field(init=False, repr=False, compare=False)
    """True if the slope has any effect. Derived."""
    catch_up_end: float = field(init=False, repr=False, compare=False)
    """Observations after which it no longer does. Derived."""
    anneal_start: float = field(init=False, repr=False, compare=False)
    """Observations after which the annealing starts; infinite if there is none. Derived."""
    decade: int = field(init=False, repr=False, compare=False)
    """Observations in which the climb grows tenfold; 0: there is none. Derived."""
    window_length: int = field(init=False, repr=False, compare=False)
    """Observations per window. Derived."""
    growth: float = field(init=False, repr=False, compare=False)
    """Factor of the scale after each loss of the climb. Derived."""
    smoothing: float = field(init=False, repr=False, compare=False)
    """The weight of the past in the climb's smoothed loss, β. Derived."""
    settled: int = field(init=False, repr=False, compare=False)
    """Losses of the climb after which it can end. Derived."""
    least_scale: float = field(init=False, repr=False, compare=False)
    """The lowest of the lower bounds. Derived."""
    most_scale: float = field(init=False, repr=False, compare=False)
    """The highest of the upper bounds. Derived."""
    bounds_differ: bool = field(init=False, repr=False, compare=False)
    """True if a bound was given per group. Derived."""

    def __post_init__(self) -> None:
        """Validate, and turn numbers of other libraries into Python's, bounds per group into tuples."""
        take_choice(self, "mode", ("min", "max"))
        if self.warmup_steps is not None:
            take_int(self, "warmup_steps", 0)
        take_real(self, "polyak", "0 < polyak", lambda x: x > 0, infinite=True)
        take_real(self, "headroom", "1 <= headroom < inf", lambda x: x >= 1)
        if self.catch_up_steps is not None:
            take_int(self, "catch_up_steps", 0)
        take_real(self, "start_scale", "0 < start_scale <= 1", lambda x: 0 < x <= 1)
        take_int(self, "decade_steps", 0)
        take_real(self, "objection", "0 <= objection < inf", lambda x: x >= 0)
        take_real(self, "back_off", "1 < back_off < inf", lambda x: x > 1)
        if self.window is not None:
            take_int(self, "window", 2)
        take_real(self, "significance", "0 <= significance < inf", lambda x: x >= 0)
        take_real(self, "factor", "0 < factor < 1", lambda x: 0 < x < 1)
        take_real(self, "reflex_factor", "0 < reflex_factor < 1", lambda x: 0 < x < 1)
        take_real(self, "spike", "0 < spike < inf", lambda x: x > 0)
        take_bound(self, "min_scale", "0 <= min_scale <= 1", lambda x: 0 <= x <= 1)
        take_bound(self, "max_scale", "1 <= max_scale", lambda x: x >= 1)
        take_flag(self, "await_validation")
        if self.total_steps is not None:
            take_int(self, "total_steps", 1)
        take_real(self, "anneal", "0 <= anneal <= 1", lambda x: 0 <= x <= 1)
        self._derive()

    def _derive(self) -> None:
        total = self.total_steps
        length = 0 if total is None else round(self.anneal * total)
        decade, window = self.decade_steps, self.window
        if length == total:
            decade = 0  # It anneals from the start: there is no room for a climb.
        if window is None:
            window = 50 if total is None else min(max(20, total // 20), 200)
        warmup, catch_up = self.warmup_steps, self.catch_up_steps
        if warmup is None:
            warmup = 20 if total is None else total // 10
        if catch_up is None:
            catch_up = 50 if total is None else max(10, round(CATCH_UP * total))
        smoothing_time = min(max(4.0, decade / 8), 1e9)  # Its inverse must show beside 1.
        derived = {
            "warmup": 0 if decade else warmup,
            "memory": 1 - 1 / (20.0 if total is None else max(4.0, total / 100)),
            "catch_up": 10.0 ** (1 / catch_up) if catch_up and not decade else 1.0,
            "hears_slope": self.mode == "min" and (self.polyak < math.inf or bool(catch_up and not decade)),
            "catch_up_end": 500.0 if total is None else 0.4 * total,
            "anneal_start": total - length if total is not None and length else math.inf,
            "decade": decade,
            "window_length": window,
            "growth": 10.0 ** (1 / max(decade, 1)),
            "smoothing": 1 - 1 / smoothing_time,
            "settled": math.ceil(2 * smoothing_time),
            "least_scale": min(self.min_scale) if isinstance(self.min_scale, Sequence) else self.min_scale,
            "most_scale": max(self.max_scale) if isinstance(self.max_scale, Sequence) else self.max_scale,
            "bounds_differ": isinstance(self.min_scale, Sequence) or isinstance(self.max_scale, Sequence),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)


def cautions(config: DefaultConfig) -> list[str]:
    """Sentences about valid settings that may be mistaken, or leave no room for a part of the rule."""
    if config.total_steps is None or config.anneal == 1:
        return []
    if config.decade:
        least = _shortest(lambda total: replace(config, total_steps=total))
        if config.anneal_start <= config.settled:
            return [
                f"total_steps={config.total_steps} leaves no room for the climb, which ends after {config.settled} "
                f"losses at the earliest: the annealing begins after {config.anneal_start:g}. From {least} steps on "
                "there is; total_steps counts optimizer steps, not epochs. Without decade_steps there is no climb"
            ]
    elif config.total_steps < 2 * config.window_length:
        return [
            f"total_steps={config.total_steps} is a very short run, of fewer than two windows of "
            f"{config.window_length} losses; total_steps counts optimizer steps, not epochs"
        ]
    return []


def _shortest(of_length: Callable[[int], DefaultConfig]) -> int:
    """The least number of steps in which the climb can end; never fewer than the eight losses that it takes."""
    return next(total for total in count(8) if of_length(total).anneal_start > of_length(total).settled)
