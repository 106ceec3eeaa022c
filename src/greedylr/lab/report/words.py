"""Formatting of numbers, the same on pages and on the terminal."""

from __future__ import annotations

import math

from greedylr.lab.analysis.statistics import Interval, Proportion
from greedylr.lab.catalogue.schedulers import SCHEDULERS


def title(scheduler: str) -> str:
    """The name to show to a person; that of a scheduler of the user's own is what the user calls it."""
    return SCHEDULERS[scheduler].title if scheduler in SCHEDULERS else scheduler


def rate(multiplier: float, absolute: bool) -> str:
    """A learning rate, or a multiple of the good one."""
    return f"{multiplier:g}" if absolute else f"{multiplier:g}×"


def share(proportion: Proportion) -> str:
    """A proportion in percent.

    Example:
        >>> share(Proportion(2, 3, 2 / 3, Interval(0.2, 0.9)))
        '67%'
    """
    return "–" if math.isnan(proportion.value) else f"{100 * proportion.value:.0f}%"


def share_range(interval: Interval) -> str:
    """An interval of a proportion."""
    return f"{100 * interval.low:.0f}–{100 * interval.high:.0f}%"


def benefit(value: float) -> str:
    """A signed share of the decrease, in percent."""
    return "–" if math.isnan(value) else f"{100 * value:+.1f}%"


def benefit_range(interval: Interval | None) -> str:
    """An interval of signed shares; nothing for none."""
    return "" if interval is None else f"{100 * interval.low:+.1f} … {100 * interval.high:+.1f}%"


def number(value: float, form: str = ".3g") -> str:
    """A number that may be infinite, or not there."""
    return "–" if math.isnan(value) else "∞" if value == math.inf else f"{value:{form}}"


def number_range(interval: Interval | None, form: str = ".2f") -> str:
    """An interval of such numbers; nothing for none."""
    return "" if interval is None else f"{number(interval.low, form)} … {number(interval.high, form)}"


def p_value(value: float) -> str:
    """A p-value; what is below a ten-thousandth is only said to be.

    Example:
        >>> p_value(0.034), p_value(3e-9)
        ('0.034', '< 0.0001')
    """
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"
