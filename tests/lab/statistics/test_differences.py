"""Paired differences: by hand, corrected together, mirrored when swapped, and fast enough."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from greedylr.lab.analysis import statistics as lab

from .made import by_share, paired_runs, run


def test_a_difference_by_hand():
    runs = [one for i, share in enumerate((0.1, 0.2, 0.3, 0.4, -0.05)) for one in by_share(share, problem=f"p{i}")]
    made = lab.difference(lab.pair(runs, "a", "b"))
    assert (made.units, made.pairs, made.ahead, made.behind, made.missing) == (5, 5, 4, 1, 0)
    assert made.mean == pytest.approx(0.95 / 5)
    assert made.median == pytest.approx(0.2)
    assert made.median_interval == (-0.05, 0.4)  # five values: from the lowest to the highest
    # The one deficit has rank 1 of 1 + … + 5 = 15. Of 32 patterns of signs two have a rank sum of 0 or 1; twice that.
    assert made.p_value == made.p_holm == pytest.approx(4 / 32)
    assert made.rank_biserial == pytest.approx((14 - 1) / 15)
    assert made.d_z == pytest.approx(0.19 / np.std([0.1, 0.2, 0.3, 0.4, -0.05], ddof=1))


def test_a_unit_averages_its_pairs():
    pairing = lab.pair(by_share(0.1, 0.3) + by_share(-0.2, problem="q"), "a", "b")
    assert lab.difference(pairing).mean == pytest.approx((0.2 - 0.2) / 2)
    assert lab.difference(pairing, unit=("optimizer",)).mean == pytest.approx((0.1 + 0.3 - 0.2) / 3)
    assert lab.difference(pairing, unit=("problem", "seed")).units == 3
    with pytest.raises(ValueError, match=r"unit must be made of problem, .* got \('scheduler',\)"):
        lab.difference(pairing, unit=("scheduler",))


def test_many_comparisons_are_corrected_together_and_at_each_stage():
    rng = np.random.default_rng(0)
    runs = [
        run(name, None, problem=f"p{i}", stages={s: rng.uniform(0.4, mean) for s in (0.1, 0.5, 1.0)})
        for i in range(12)
        for name, mean in (("a", 1.0), ("b", 1.5), ("c", 1.9))
    ]
    made = lab.differences(runs, "a")
    assert [(one.second, one.stage) for one in made] == [(name, s) for name in "bc" for s in (0.1, 0.5, 1.0)]
    assert [one.p_holm for one in made] == lab.holm([one.p_value for one in made])
    shares = [pair.share(0.5) for pair in lab.pair(runs, "a", "c").pairs]
    assert made[4].p_value == stats.wilcoxon(shares).pvalue
    assert made[4].mean == pytest.approx(np.mean(shares))
    assert made[4].mean_interval == lab.mean_interval(shares)
    assert [one.second for one in lab.differences(runs, "a", rivals=["c"], stages=(1.0,))] == ["c"]


def test_ties_and_nothing_are_no_difference():
    ties = lab.difference(lab.pair([run(name, 1.0, problem=p) for name in "ab" for p in "pqr"], "a", "b"))
    assert (ties.mean, ties.p_value, ties.rank_biserial, ties.d_z, ties.mean_interval) == (0, 1, 0, 0, (0, 0))
    nothing = lab.difference(lab.pair([], "a", "b"))
    assert (nothing.units, nothing.p_value, nothing.mean_interval, nothing.d_z) == (0, 1, None, None)
    assert math.isnan(nothing.mean)


@given(paired_runs(min_size=4))
@settings(max_examples=20)
def test_swapping_the_schedulers_turns_every_sign(runs):
    made, swapped = (lab.difference(lab.pair(runs, *names), unit=("seed",)) for names in ("ab", "ba"))
    assert (made.ahead, made.failed_first) == (swapped.behind, swapped.failed_second)
    for name in ("mean", "median", "rank_biserial"):
        assert getattr(made, name) == pytest.approx(-getattr(swapped, name), abs=1e-12)
    assert made.p_value == pytest.approx(swapped.p_value)
    if made.units > 1:
        assert made.mean_interval.low == pytest.approx(-swapped.mean_interval.high, abs=1e-9)
        assert made.median_interval.low == -swapped.median_interval.high


@pytest.mark.slow
def test_a_hundred_and_fifty_thousand_runs_take_seconds():
    rng = np.random.default_rng(0)
    runs = [
        run(f"s{s}", None, seed, problem=f"p{p}", stages={0.1: 1.5, 0.5: 1.2, 1.0: rng.uniform(0.1, 1.9)})
        for p in range(1000)
        for seed in range(10)
        for s in range(15)
    ]
    began = time.perf_counter()
    assert len(lab.differences(runs, "s0")) == 42
    assert lab.tally(one for pairing in lab.pair_all(runs, "s0") for one in lab.verdicts(pairing)).pairs == 140_000
    assert len(lab.regrets(runs, ["s1", "s2"]).values) == 15_000
    assert time.perf_counter() - began < 30
