"""Numbers with their intervals: what SciPy gives, with its degenerate cases settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

RESAMPLES = 9_999
"""Number of resamples of a bootstrap: SciPy's default."""

MANY = 1_000
"""Above so many values the mean's interval is Student's: the bootstrap costs seconds, and says the same."""


_ROUNDING = 1e-12
"""Values that differ by less, relative to the largest, are equal."""


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Proportion:
    """So many of so many.

    Attributes:
        count: How many.
        of: Of how many.
        value: The one over the other; NaN if there are none.
        interval: Wilson's interval; all of [0, 1] if there are none.
    """

    count: int
    of: int
    value: float
    interval: Interval


def mean(values: Sequence[float]) -> float:
    """The mean, the same in any order; NaN if there are no values."""
    return math.fsum(values) / len(values) if len(values) else math.nan


def median(values: Sequence[float]) -> float:
    """The median, where values may be infinite; NaN if there are none.

    Between minus and plus infinity lies 0, so that a median of logarithms keeps its size if their signs are turned.
    """
    if not len(values):
        return math.nan
    ordered = sorted(values)
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else 0.0 if low == -high else (low + high) / 2


def mean_interval(values: Sequence[float], level: float = 0.95, seed: int = 0) -> Interval | None:
    """Bootstrap interval for the mean of finite values: bias-corrected and accelerated (BCa).

    Args:
        values: At least two; with fewer than about ten the interval is too narrow.
        level: Confidence level in (0, 1).
        seed: Of the resampling; the same values and seed give the same interval.

    Returns:
        The interval, widened where need be to hold the mean; Student's above :data:`MANY` values; from the
        lowest to the highest if all are equal but for rounding. None for fewer than two values: they say
        nothing of their own spread.

    References:
        Efron, Better Bootstrap Confidence Intervals, JASA 82 (1987).
    """
    if len(values) < 2:
        return None
    estimate, array = mean(values), np.asarray(values, float)
    largest = float(np.abs(array).max())
    if np.ptp(array) <= _ROUNDING * largest:
        low, high = array.min(), array.max()
    elif len(values) > MANY:
        low, high = stats.t.interval(level, len(values) - 1, estimate, stats.sem(array))
    else:
        unit = math.ldexp(1.0, math.frexp(largest)[1])  # BCa takes third powers, and those of tiny numbers are zero
        low, high = stats.bootstrap(
            (array / unit,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=level,
            method="BCa",
            batch=1_000,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = low * unit, high * unit
    return Interval(min(float(low), estimate), max(float(high), estimate))


def median_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    r"""Interval for the median between two order statistics: exact for any distribution, infinite values included.

    It lies between the k-th lowest and the k-th highest of n values, with k the ``(1 - level) / 2``
    quantile of the binomial distribution (n, 1/2). BCa does not hold for a median.

    Args:
        values: With fewer than six even the whole range covers the median in only
            :math:`1 - 2^{1-n}` of cases, less than 95 %; it is returned all the same.
        level: Confidence level in (0, 1).

    Returns:
        The interval; None for a single value or none.
    """
    if len(values) < 2:
        return None
    ordered, k = sorted(values), _order(len(values), level)
    return Interval(float(ordered[k - 1]), float(ordered[-k]))


@cache
def _order(count: int, level: float) -> int:
    """The k of :func:`median_interval`, which tables ask for again and again."""
    return max(int(stats.binom.ppf((1 - level) / 2, count, 0.5)), 1)


@cache
def proportion(count: int, of: int, level: float = 0.95) -> Proportion:
    """A share with Wilson's interval."""
    if of == 0:
        return Proportion(count, of, math.nan, Interval(0.0, 1.0))
    low, high = stats.binomtest(count, of).proportion_ci(level, method="wilson")
    return Proportion(count, of, count / of, Interval(float(low), float(high)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction for many tests.

    The j-th smallest of m p-values is multiplied by m - j + 1, and none falls below a smaller one.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    References:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6 (1979).
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def wilcoxon(values: Sequence[float]) -> float:
    """Two-sided p-value of the signed-rank test that ``values`` lie symmetrically about zero; 1 if all are zero.

    Zeros are ranked with the others (Pratt): ties between schedulers weaken the evidence instead of leaving it.
    """
    if not any(values):
        return 1.0
    return float(stats.wilcoxon(np.asarray(values, float), zero_method="pratt").pvalue)


def sign_test(ahead: int, behind: int) -> float:
    """Two-sided p-value of the exact test that a pair is as likely ahead as behind; 1 if there is neither."""
    return float(stats.binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0


def rank_biserial(values: Sequence[float]) -> float:
    """Matched-pairs rank-biserial correlation, in [-1, 1].

    The rank sum of the positive less that of the negative, over both. Zeros are left out; 0 if nothing else is there.

    References:
        Kerby, The Simple Difference Formula, Comprehensive Psychology 3 (2014).
    """
    nonzero = np.asarray([value for value in values if value != 0], float)
    if not len(nonzero):
        return 0.0
    ranks = stats.rankdata(np.abs(nonzero))
    return float((ranks * np.sign(nonzero)).sum() / ranks.sum())


def cohens_d_z(values: Sequence[float]) -> float | None:
    """Mean over sample standard deviation; 0 if all are zero, infinite if all are equal, None for a single one."""
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return math.copysign(math.inf, values[0]) if values[0] else 0.0
    return mean(values) / float(np.std(np.asarray(values, float), ddof=1))
