"""Intervals, tests and effect sizes: by hand, against SciPy, and in how many of many samples they hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from greedylr.lab.analysis import statistics as lab
from greedylr.lab.analysis.statistics import estimate


def test_holm_by_hand():
    # In order: 0.005 × 4, 0.01 × 3, 0.03 × 2, 0.04 × 1; the last must not fall below the 0.06 before it.
    assert lab.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert lab.holm([0.9, 0.6]) == [1.0, 1.0]
    assert lab.holm([]) == []


def test_effect_sizes_by_hand():
    # Sizes 1, 2, 2, 3 have ranks 1, 2.5, 2.5, 4; the zero has none: (1 + 2.5 + 4 - 2.5) / 10.
    assert estimate.rank_biserial([1, 2, -2, 3, 0]) == pytest.approx(0.5)
    # Mean 2, squared deviations 1 + 1 over 2 degrees of freedom: standard deviation 1.
    assert estimate.cohens_d_z([1, 2, 3]) == pytest.approx(2.0)


def test_zeros_weaken_a_signed_rank_test():
    # Ranks of 0, 0, 0.1, 0.2, 0.3 are 1.5, 1.5, 3, 4, 5. Of 8 patterns of signs of the last three, 2 are all alike.
    assert estimate.wilcoxon([0.0, 0.1, 0.2, 0.0, 0.3]) == pytest.approx(2 / 8)
    values = [*np.round(np.random.default_rng(1).normal(0.5, size=40), 1)]
    assert 0 in values
    assert estimate.wilcoxon(values) == stats.wilcoxon(values, zero_method="pratt").pvalue
    assert estimate.wilcoxon(values) != stats.wilcoxon(values).pvalue
    assert estimate.sign_test(9, 1) == pytest.approx(2 * 11 / 1024)


def test_wilson_by_hand():
    # 8 of 10, z = 1.96: centre (0.8 + z²/20) / (1 + z²/10), half width z √(0.8·0.2/10 + z²/400) / (1 + z²/10).
    z = 1.959963984540054
    centre, half = 0.8 + z**2 / 20, z * math.sqrt(0.8 * 0.2 / 10 + z**2 / 400)
    made = lab.proportion(8, 10)
    assert made.interval == pytest.approx([(centre - half) / (1 + z**2 / 10), (centre + half) / (1 + z**2 / 10)])
    assert math.isnan(lab.proportion(0, 0).value)
    assert lab.proportion(0, 0).interval == (0, 1)


@pytest.mark.parametrize("n", [2, 7, 30])
def test_the_mean_has_scipys_bca_interval(n):
    values = np.random.default_rng(n).gamma(1.0, size=n)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, method="BCa", batch=1_000, rng=np.random.default_rng(3)
    ).confidence_interval
    assert lab.mean_interval(values, level=0.9, seed=3) == tuple(theirs)


def test_above_many_values_student_and_bootstrap_agree():
    values = np.random.default_rng(0).uniform(-0.5, 1, size=estimate.MANY + 1)
    student, bootstrap = lab.mean_interval(values), lab.mean_interval(values[:-1])
    assert student == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval())
    assert student == pytest.approx(bootstrap, abs=0.002)


@pytest.mark.parametrize("n", [6, 9, 25, 100])
def test_the_median_has_scipys_exact_interval(n):
    values = list(np.random.default_rng(n).normal(size=n))
    assert lab.median_interval(values) == pytest.approx(stats.quantile_test(values).confidence_interval())


def test_too_few_or_equal_values_have_no_spread():
    assert lab.mean_interval([1.0]) is lab.median_interval([1.0]) is estimate.cohens_d_z([1.0]) is None
    assert lab.mean_interval([0.3] * 3) == lab.median_interval([0.3] * 3) == (0.3, 0.3)
    assert lab.mean_interval([0.95] * 3).low == estimate.mean([0.95] * 3) < 0.95  # the mean is rounded
    assert lab.median_interval([1.0, 2.0]) == (1.0, 2.0)
    assert estimate.cohens_d_z([0.0, 0.0]) == 0
    assert estimate.cohens_d_z([-1.0, -1.0]) == -math.inf
    assert estimate.wilcoxon([0.0, 0.0]) == estimate.sign_test(0, 0) == 1.0
    assert estimate.median([-math.inf, math.inf]) == 0


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=20), st.integers(0, 9))
@settings(max_examples=60)
def test_intervals_hold_their_estimate_and_are_reproducible(values, seed):
    interval = lab.mean_interval(values, seed=seed)
    assert interval.low <= estimate.mean(values) <= interval.high
    assert interval == lab.mean_interval(np.array(values), seed=seed)
    low, high = lab.median_interval(values)
    assert low <= estimate.median(values) <= high


@pytest.mark.parametrize(
    ("interval", "centre", "n", "at_least"),
    [(lab.mean_interval, 1.0, 30, 0.89), (lab.median_interval, math.log(2), 15, 0.93)],
)
def test_intervals_cover_what_they_should(interval, centre, n, at_least):
    rng = np.random.default_rng(5)
    covers = [low <= centre <= high for low, high in (interval(rng.exponential(size=n)) for _ in range(400))]
    assert at_least < np.mean(covers) < 0.995
