"""What the user chose: one frozen, validated record per family of the rule."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import count
from typing import Any, Literal, NoReturn

from greedylr.control.numerals import LARGEST_INTEGER, number, numbers

Bound = float | Sequence[float]
"""One number for all parameter groups, or one per group."""


@dataclass(frozen=True, slots=True)
class DefaultConfig:
    r"""Settings of the default family, made for the minibatch loss at every step.

    The learning rate of a parameter group is ``initial × scale × anneal``, clamped to
    ``[min_scale, max_scale] × initial``.

    **Climb.** The scale starts at ``start_scale`` and grows tenfold in every :math:`D` = ``decade_steps`` losses, until
    the loss objects. With :math:`\tau = \max(4, D/8)` and :math:`\beta = 1 - 1/\tau`, the losses are smoothed, and
    their noise is taken from their successive differences:

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

    **Listen.** From there on the losses are cut into consecutive windows of ``window`` observations that do not
    overlap. With :math:`m_k, s_k^2` the mean and the variance of window :math:`k`, of :math:`n` losses, and
    :math:`e_k = \sqrt{(s_{k-1}^2 + s_k^2) / n}` the standard error of the difference of two means,

    .. math::
        \text{scale} \leftarrow \begin{cases}
            \text{scale} / F & m_k < m_{k-1} - z \, e_k \\
            \text{scale} \cdot F & m_k > m_{k-1} + z \, e_k \\
            \text{scale} & \text{otherwise.}
        \end{cases}

    **Reflexes.** Two things do not wait for the window. A loss that is NaN or infinite is left out of all averages and
    cuts by ``reflex_factor``. So is a loss above :math:`m + \text{spike} \cdot \max(s, |m|/100)`, with the mean and
    deviation of the last window or, until there is one, :math:`m_{t-1}` and :math:`\sigma_{t-1}` of the climb; the
    first one moves nothing, the second in a row is an explosion and cuts, and again only if the losses rise further
    still. After an objection the line is drawn above the smoothed loss or the loss that objected, whichever is higher.
    During the climb either of the two counts as one: it waits at the first, and ends at the second in a row as at
    an objection.

    **Anneal.** If ``total_steps`` is known, the learning rate decays linearly to its lower bound over the last part of
    them, and comparisons move nothing meanwhile.

    Args:
        mode: ``"min"`` for a loss, ``"max"`` for a reward.
        start_scale: Where the climb starts, as a multiple of the initial learning rate, in (0, 1].
        decade_steps: Observations in which the climb grows tenfold; 0: no climb, start at the initial learning rate.
            None: a fifth of ``total_steps``, at least 10, or 100 if those are not known; always 0 if the annealing
            leaves no room.
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
        total_steps: Observations in the whole run, if known. None: open-ended.
        anneal: The part of ``total_steps`` over which the learning rate decays, in [0, 1].

    Raises:
        ValueError: If an argument is outside what is stated above.
        TypeError: If an argument is not of the kind stated above.

    Example:
        >>> DefaultConfig(window=50).window
        50
        >>> DefaultConfig(total_steps=1000).decade
        200
        >>> DefaultConfig(factor=1.5)
        Traceback (most recent call last):
        ValueError: factor must be a number with 0 < factor < 1, got 1.5
    """

    mode: Literal["min", "max"] = "min"
    start_scale: float = 0.05
    decade_steps: int | None = None
    objection: float = 3.0
    back_off: float = 4.0
    window: int | None = None
    significance: float = 2.0
    factor: float = 0.9
    reflex_factor: float = 0.5
    spike: float = 6.0
    min_scale: Bound = 1e-5
    max_scale: Bound = 1e3
    total_steps: int | None = None
    anneal: float = 0.4
    anneal_start: float = field(init=False, repr=False, compare=False)
    """Observations after which the annealing starts; infinite if there is none. Derived."""
    decade: int = field(init=False, repr=False, compare=False)
    """Observations in which the climb grows tenfold; 0: there is none. Derived."""
    window_length: int = field(init=False, repr=False, compare=False)
    """Observations per window. Derived."""
    growth: float = field(init=False, repr=False, compare=False)
    """What the scale is multiplied by after each loss of the climb. Derived."""
    smoothing: float = field(init=False, repr=False, compare=False)
    """The weight of the past in the climb's smoothed loss, β. Derived."""
    settled: int = field(init=False, repr=False, compare=False)
    """Losses of the climb after which it can end. Derived."""

    def __post_init__(self) -> None:
        """Validate, and turn numbers of other libraries into Python's, bounds per group into tuples."""
        _take_choice(self, "mode", ("min", "max"))
        _take_real(self, "start_scale", "0 < start_scale <= 1", lambda x: 0 < x <= 1)
        if self.decade_steps is not None:
            _take_int(self, "decade_steps", 0)
        _take_real(self, "objection", "0 <= objection < inf", lambda x: x >= 0)
        _take_real(self, "back_off", "1 < back_off < inf", lambda x: x > 1)
        if self.window is not None:
            _take_int(self, "window", 2)
        _take_real(self, "significance", "0 <= significance < inf", lambda x: x >= 0)
        _take_real(self, "factor", "0 < factor < 1", lambda x: 0 < x < 1)
        _take_real(self, "reflex_factor", "0 < reflex_factor < 1", lambda x: 0 < x < 1)
        _take_real(self, "spike", "0 < spike < inf", lambda x: x > 0)
        _take_bound(self, "min_scale", "0 <= min_scale <= 1", lambda x: 0 <= x <= 1)
        _take_bound(self, "max_scale", "1 <= max_scale", lambda x: x >= 1)
        if self.total_steps is not None:
            _take_int(self, "total_steps", 1)
        _take_real(self, "anneal", "0 <= anneal <= 1", lambda x: 0 <= x <= 1)
        self._derive()

    def _derive(self) -> None:
        total = self.total_steps
        length = 0 if total is None else round(self.anneal * total)
        decade, window = self.decade_steps, self.window
        if decade is None:
            decade = 100 if total is None else max(10, total // 5)
        if length == total:
            decade = 0  # It anneals from the start: there is no room for a climb.
        if window is None:
            window = 50 if total is None else min(max(20, total // 20), 200)
        smoothing_time = min(max(4.0, decade / 8), 1e9)  # Its inverse must show beside 1.
        derived = {
            "anneal_start": total - length if total is not None and length else math.inf,
            "decade": decade,
            "window_length": window,
            "growth": 10.0 ** (1 / max(decade, 1)),
            "smoothing": 1 - 1 / smoothing_time,
            "settled": math.ceil(2 * smoothing_time),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class PaperConfig:
    r"""Settings of the published algorithm, with the names, defaults and order of its implementation.

    One observation: smooth → in cooldown? count it down and clear both counters → else in warmup?
    likewise → else compare with the reference and count → raise if better more than ``patience``
    times in a row, else cut if worse more than ``patience`` times in a row:

    .. math:: \gamma \leftarrow \min(\gamma / F, \gamma_{\max}) \quad\text{or}\quad
              \gamma \leftarrow \max(\gamma \cdot F, \gamma_{\min}).

    Args:
        mode: ``"min"`` for a loss, ``"max"`` for a reward.
        factor: :math:`F` in (0, 1). Small is aggressive.
        patience: Observations in a row that count for nothing: 10 acts on the 11th.
        threshold: Changes smaller than this do not count as better; at least 0, below 1 if relative.
        threshold_mode: ``"abs"``: in the unit of the loss. ``"rel"``: as a share of \|reference\|.
        cooldown: Observations ignored after a cut.
        warmup: Observations ignored after a raise. Not a learning-rate ramp.
        min_lr: Lower bound of the learning rate; a number, or one per parameter group.
        max_lr: Upper bound of the learning rate; a number, or one per parameter group.
        eps: Changes of the learning rate that are not larger than this are not applied.
        smooth: Whether to compare the average of the last losses instead of the last loss.
        window_size: How many losses that average is over.
        reset_start: After this many cut attempts in a row with every group at its lower bound, the
            learning rates return to their initial values and the state is cleared.
        compare: ``"best"``: better means better than the best so far. ``"previous"``: better than the
            previous observation, as in the core rule.

    Raises:
        ValueError: If an argument is outside what is stated above.
        TypeError: If an argument is not of the kind stated above.

    References:
        arXiv:2512.14527, algorithm with safeguards; defaults of ``transformers.optimization.GreedyLR``.
    """

    mode: Literal["min", "max"] = "min"
    factor: float = 0.95
    patience: int = 10
    threshold: float = 1e-6
    threshold_mode: Literal["abs", "rel"] = "abs"
    cooldown: int = 0
    warmup: int = 0
    min_lr: Bound = 1e-3
    max_lr: Bound = 1.0
    eps: float = 1e-8
    smooth: bool = False
    window_size: int = 50
    reset_start: int = 500
    compare: Literal["best", "previous"] = "best"

    def __post_init__(self) -> None:
        """Validate, and turn numbers of other libraries into Python's, bounds per group into tuples."""
        _take_choice(self, "mode", ("min", "max"))
        _take_real(self, "factor", "0 < factor < 1", lambda x: 0 < x < 1)
        _take_int(self, "patience", 0)
        _take_choice(self, "threshold_mode", ("abs", "rel"))
        if self.threshold_mode == "rel":
            _take_real(self, "threshold", "0 <= threshold < 1 (relative)", lambda x: 0 <= x < 1)
        else:
            _take_real(self, "threshold", "0 <= threshold < inf", lambda x: x >= 0)
        _take_int(self, "cooldown", 0)
        _take_int(self, "warmup", 0)
        _take_bound(self, "min_lr", "0 <= min_lr", lambda x: x >= 0)
        _take_bound(self, "max_lr", "0 < max_lr", lambda x: x > 0, infinite=True)
        for low, high in _pairs(self.min_lr, self.max_lr):
            if low > high:
                _reject("min_lr", self.min_lr, f"at most max_lr = {self.max_lr!r}, group by group")
        _take_real(self, "eps", "0 <= eps < inf", lambda x: x >= 0)
        _take_flag(self, "smooth")
        _take_int(self, "window_size", 1)
        _take_int(self, "reset_start", 1)
        _take_choice(self, "compare", ("best", "previous"))

    @classmethod
    def core(cls, factor: float = 0.95, mode: Literal["min", "max"] = "min") -> PaperConfig:
        """The core rule: compare with the previous loss at every step, no safeguards, no bounds.

        Without bounds it need not converge even on a quadratic; it is here to be studied.

        Example:
            >>> PaperConfig.core(0.5).patience
            0
        """
        return cls(
            mode=mode,
            factor=factor,
            patience=0,
            threshold=0.0,
            min_lr=0.0,
            max_lr=math.inf,
            eps=0.0,
            compare="previous",
        )


Config = DefaultConfig | PaperConfig


def chosen(family: Callable[..., Config], settings: dict[str, Any]) -> Config:
    """The settings of a family that was given by its class.

    Raises:
        TypeError: If it is no family, or a setting is unknown.
        ValueError: If a setting is outside its range.
    """
    if not callable(family):
        raise TypeError(f"family must be DefaultConfig or PaperConfig, got {family!r}")
    try:
        return family(**settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error) or not is_dataclass(family):
            raise
        known = ", ".join(field.name for field in fields(family) if field.init)
        hint = "; those of the published algorithm belong to PaperConfig" if family is DefaultConfig else ""
        raise TypeError(f"{error}: the settings of {family.__name__} are {known}{hint}") from None


def bounds_of(bound: Bound, groups: int) -> Sequence[float]:
    """The bound of each parameter group."""
    return [bound] * groups if isinstance(bound, (int, float)) else bound


def check_groups(config: Config, groups: int) -> None:
    """Raise if a bound was given per group, for another number of groups.

    Raises:
        ValueError: If the lengths differ.
    """
    names = ("min_scale", "max_scale") if isinstance(config, DefaultConfig) else ("min_lr", "max_lr")
    for name in names:
        bound = getattr(config, name)
        if isinstance(bound, tuple) and len(bound) != groups:
            raise ValueError(f"{name} has {len(bound)} values, but the optimizer has {groups} parameter groups")


def with_another_group(config: Config) -> Config:
    """The settings for one more parameter group: where bounds are given per group, it gets the widest of them."""
    names = ("min_scale", "max_scale") if isinstance(config, DefaultConfig) else ("min_lr", "max_lr")
    bounds = {name: getattr(config, name) for name in names}
    widest = {names[0]: min, names[1]: max}
    more = {name: (*bound, widest[name](bound)) for name, bound in bounds.items() if isinstance(bound, tuple)}
    changes: dict[str, Any] = more
    return replace(config, **changes) if changes else config


def cautions(config: DefaultConfig) -> list[str]:
    """What settings that are valid leave no room for, in a sentence each."""
    if config.total_steps is None or config.anneal == 1:
        return []
    if config.decade:
        least = _shortest(lambda total: replace(config, total_steps=total))
        if config.anneal_start <= config.settled:
            return [
                f"total_steps={config.total_steps} leaves no room for the climb, which ends after {config.settled} "
                f"losses at the earliest: the annealing begins after {config.anneal_start:g}. From {least} steps on "
                "there is; total_steps counts optimizer steps, not epochs. With decade_steps=0 there is no climb"
            ]
    elif config.anneal_start < 2 * config.window_length:
        return [
            f"total_steps={config.total_steps} leaves no room to compare two windows of {config.window_length} losses: "
            "nothing but the annealing will change the learning rate. total_steps counts optimizer steps, not epochs"
        ]
    return []


def _shortest(of_length: Callable[[int], DefaultConfig]) -> int:
    """The least number of steps in which the climb can end; never fewer than the eight losses that it takes."""
    return next(total for total in count(8) if of_length(total).anneal_start > of_length(total).settled)


def _pairs(low: Bound, high: Bound) -> list[tuple[float, float]]:
    lengths = {len(bound) for bound in (low, high) if not isinstance(bound, (int, float))}
    if len(lengths) == 2:
        raise ValueError(f"min_lr and max_lr must be given for as many groups, got {low!r} and {high!r}")
    groups = lengths.pop() if lengths else 1
    return list(zip(bounds_of(low, groups), bounds_of(high, groups)))


def _reject(name: str, value: object, valid: str) -> NoReturn:
    raise ValueError(f"{name} must be {valid}, got {value!r}")


def _take_choice(config: Config, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if not isinstance(value, str) or value not in choices:
        _reject(name, value, " or ".join(map(repr, choices)))
    object.__setattr__(config, name, str(value))


def _take_flag(config: Config, name: str) -> None:
    value = getattr(config, name)
    flag = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    if not isinstance(flag, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    object.__setattr__(config, name, flag)


def _take_int(config: Config, name: str, least: int) -> None:
    value = getattr(config, name)
    integer = number(value)
    if not isinstance(integer, int):
        raise TypeError(f"{name} must be an integer of at least {least}, got {value!r}")
    if integer < least:
        _reject(name, value, f"an integer of at least {least}")
    if integer > LARGEST_INTEGER:
        _reject(name, value, f"an integer of at most {LARGEST_INTEGER}")
    object.__setattr__(config, name, integer)


def _take_real(config: Config, name: str, valid: str, holds: Callable[[float], bool], infinite: bool = False) -> None:
    object.__setattr__(config, name, _real(name, getattr(config, name), valid, holds, infinite))


def _take_bound(config: Config, name: str, valid: str, holds: Callable[[float], bool], infinite: bool = False) -> None:
    given = getattr(config, name)
    each = numbers(given)
    if each is None:
        _take_real(config, name, valid, holds, infinite)
        return
    if not each:
        _reject(name, given, "a number or one per parameter group")
    object.__setattr__(config, name, tuple([_real(name, value, valid, holds, infinite) for value in each]))


def _real(name: str, value: object, valid: str, holds: Callable[[float], bool], infinite: bool) -> float:
    real = number(value)
    if real is None:
        raise TypeError(f"{name} must be a number with {valid}, got {value!r}")
    # An integer may be above the largest float.
    if not holds(real) or (abs(real) > sys.float_info.max and not (infinite and real == math.inf)):
        _reject(name, value, f"a number with {valid}")
    return real
