"""The statistics against hand-computed cases, against SciPy, and against what must hold whatever the runs came to."""

import math
import time
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from greedylr.lab import statistics as lab
from greedylr.lab.statistics import Outcome, Thresholds, Verdict, estimate
from greedylr.lab.statistics.regret import Measure

SCHEDULER = ("a", "b")


def run(scheduler, final, seed=0, **changes):
    """A run that starts from a loss of 2 and has its final loss from the first stage on."""
    settings = {"problem": "p", "optimizer": "sgd", "multiplier": 1.0, "start": 2.0} | changes
    stages = settings.pop("stages", {0.1: final, 0.5: final, 1.0: final})
    return Outcome(scheduler=scheduler, seed=seed, stages=stages, **settings)


def by_share(*shares, problem="p"):
    """Runs of a and b, a seed each, in which the benefit of a is the given share of the decrease from 1 to 0."""
    finals = [(max(-share, 0.0), max(share, 0.0)) for share in shares]
    return [
        run(name, final, seed, start=1.0, problem=problem)
        for seed, both in enumerate(finals)
        for name, final in zip(SCHEDULER, both)
    ]


def judge(runs, first="a", second="b", **options):
    return lab.verdicts(lab.pair(runs, first, second), **options)


def verdict_of(*shares, **options):
    (judged,) = judge(by_share(*shares), **options)
    return judged.verdict


any_loss = st.integers(-10_000, 10_000).map(lambda loss: loss / 1000) | st.sampled_from(
    [math.nan, math.inf, -math.inf, 2.0]
)
two_losses = st.tuples(any_loss, any_loss)


@st.composite
def paired_runs(draw, min_size=1):
    """Runs of a and b, of up to three problems, with any losses, diverged ones too."""
    losses = draw(st.lists(st.tuples(st.sampled_from("pqr"), two_losses, two_losses), min_size=min_size, max_size=12))
    return [
        run(name, None, seed, problem=problem, stages={0.1: first[i], 0.5: first[i], 1.0: last[i]})
        for seed, (problem, first, last) in enumerate(losses)
        for i, name in enumerate(SCHEDULER)
    ]


# What a run is


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"multiplier": 0.0}, "multiplier must be a positive finite number, got 0.0"),
        ({"multiplier": math.nan}, "multiplier must be"),
        ({"start": math.nan}, "start must be a finite loss, got nan"),
        ({"stages": {0.5: 1.0}}, r"stages must hold the loss at 1.0, .* got shares \[0.5\]"),
        ({"stages": {1.0: 1.0, 0.0: 2.0}}, r"stages must be shares of training in \(0, 1\], got \[0.0, 1.0\]"),
        ({"steps_to": {0.9: -1}}, "steps_to must hold numbers of steps from 0, or None"),
    ],
)
def test_what_no_run_can_have_come_to_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        run("a", 1.0, **wrong)


@pytest.mark.parametrize(
    ("start", "final", "failed"),
    [
        (2.0, 1.97, False),  # 1.98 is the line: 2 - 1 % of 2
        (2.0, 1.98, True),
        (2.0, 5.0, True),
        (2.0, math.nan, True),
        (2.0, math.inf, True),
        (2.0, -math.inf, True),
        (-2.0, -2.01, True),  # -2.02 is the line: -2 - 1 % of 2
        (-2.0, -2.03, False),
        (0.0, 0.0, True),
        (0.0, -1e-9, False),
    ],
)
def test_a_run_failed_unless_it_ended_one_percent_below_the_start(start, final, failed):
    assert run("a", final, start=start).failed is failed
    assert run("a", final, start=start).counted_loss(1.0, start) == (start if failed else final)


def test_before_the_end_only_a_loss_that_is_not_finite_is_a_failure():
    slow = run("a", 1.0, stages={0.1: 1.999, 0.5: 7.0, 0.9: math.nan, 1.0: 1.0})
    assert [slow.failed_at(stage) for stage in slow.stages] == [False, False, True, False]
    assert [slow.counted_loss(stage, 2.0) for stage in slow.stages] == [1.999, 2.0, 2.0, 1.0]
    with pytest.raises(ValueError, match=r"stage must be one that every run has; a on p has .* got 0.3"):
        slow.counted_loss(0.3, 2.0)


# Pairs


def test_pairs_differ_in_the_scheduler_only_and_the_rest_is_reported():
    alone = run("a", 1.0, multiplier=3.0), run("b", 1.0, problem="q"), run("a", 1.0, perturbation="spikes")
    pairing = lab.pair([run("b", 0.8, 1), run("a", 0.5, 1), *alone, run("c", 0.1, 1)], "a", "b")
    assert [(pair.first.final, pair.second.final) for pair in pairing.pairs] == [(0.5, 0.8)]
    assert {(missing.outcome.scheduler, missing.outcome.case, missing.lacks) for missing in pairing.missing} == {
        ("a", ("p", "sgd", 3.0, "none"), "b"),
        ("b", ("q", "sgd", 1.0, "none"), "a"),
        ("a", ("p", "sgd", 1.0, "spikes"), "b"),
    }


def test_every_other_scheduler_is_a_rival_and_one_without_runs_has_all_of_them_missing():
    runs = [run(name, 1.0) for name in "cab"]
    assert [pairing.second for pairing in lab.pair_all(runs, "a")] == ["b", "c"]
    unrun = lab.pair(runs, "a", "d")
    assert (len(unrun.pairs), [missing.lacks for missing in unrun.missing]) == (0, ["d"])


def test_a_run_that_is_there_twice_and_runs_that_start_apart_are_refused():
    with pytest.raises(ValueError, match="outcomes must hold each run once, got two of a"):
        lab.pair([run("a", 1.0), run("a", 1.1), run("b", 1.0)], "a", "b")
    with pytest.raises(ValueError, match=r"p with seed 0 starts at 2.0 under a and at 2.1 under b"):
        lab.pair([run("a", 1.0), run("b", 1.0, start=2.1)], "a", "b")
    assert lab.pair([run("a", 1.0), run("b", 1.0, start=2.001)], "a", "b").pairs[0].start == 2.001  # rounding


@pytest.mark.parametrize(
    ("first", "second", "benefit", "share"),
    [
        (0.5, 0.8, 0.3, 0.2),  # 0.3 of the 2 - 0.5 = 1.5 that the better one went down
        (0.8, 0.5, -0.3, -0.2),
        (-2.0, -1.0, 1.0, 0.25),  # 1 of 2 - -2 = 4
        (math.nan, 0.5, -1.5, -1.0),  # a failed run counts with the start
        (math.nan, 99.0, 0.0, 0.0),  # so do two
        (1.0, 1.0, 0.0, 0.0),
        (0.1 + 0.2, 0.3, 0.0, 0.0),  # rounding errors are ties
    ],
)
def test_a_difference_is_measured_by_the_decrease(first, second, benefit, share):
    (pair,) = lab.pair([run("a", first), run("b", second)], "a", "b").pairs
    assert pair.benefit() == pytest.approx(benefit)
    assert pair.share() == pytest.approx(share)
    assert (pair.share() == 0) is (share == 0)


# Estimates, by hand and against SciPy


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


# Differences


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


# Verdicts


@pytest.mark.parametrize(
    ("shares", "verdict", "settled"),
    [
        ((0.06,), Verdict.CLEARLY_BETTER, True),  # one seed: the margins alone
        ((0.02,), Verdict.BETTER, True),
        ((0.01,), Verdict.AS_GOOD, True),  # the margin belongs to as good
        ((-0.02,), Verdict.WORSE, True),
        ((-0.06,), Verdict.CLEARLY_WORSE, True),
        ((0.06, 0.06, -0.001), Verdict.AS_GOOD, False),  # three seeds: all must agree
        ((0.06, 0.06, 0.001), Verdict.BETTER, True),  # ahead on all, but not by the margin
        ((0.06, 0.06, 0.02), Verdict.CLEARLY_BETTER, True),
        ((0.06, 0.06, 0.06, 0.06, -0.5), Verdict.CLEARLY_BETTER, True),  # four of five do
        ((0.06, 0.06, 0.06, -0.1, -0.5), Verdict.AS_GOOD, False),
        ((-0.02, -0.02, -0.02, -0.02, 0.5), Verdict.WORSE, True),
        ((0.005, -0.005, 0.01), Verdict.AS_GOOD, True),
        ((0.0, 0.0, -1.0), Verdict.WORSE, True),  # a failed on a seed where b did not
        ((0.1, 0.1, 0.1, 0.1, -1.0), Verdict.AS_GOOD, False),
        ((-0.1, -0.1, -0.1, -0.1, 1.0), Verdict.AS_GOOD, False),
        ((0.0, 1.0), Verdict.BETTER, True),
        ((1.0, -1.0), Verdict.AS_GOOD, False),  # each failed once
        ((0.1,) * 19 + (-1.0,), Verdict.AS_GOOD, False),  # one in 20 counts
        ((0.1,) * 24 + (-1.0,), Verdict.CLEARLY_BETTER, True),  # one in 25 is less than one in 20
    ],
)
def test_verdicts_by_hand(shares, verdict, settled):
    (judged,) = judge(by_share(*shares))
    assert (judged.verdict, judged.settled) == (verdict, settled)


@pytest.mark.parametrize(
    ("thresholds", "shares", "verdict"),
    [
        (Thresholds(better=0.0), (0.005,), Verdict.BETTER),
        (Thresholds(clearly=0.01), (0.02,), Verdict.CLEARLY_BETTER),
        (Thresholds(agreement=1.0), (0.06, 0.06, 0.06, 0.06, -0.5), Verdict.AS_GOOD),
        (Thresholds(failures=0.5), (0.0, 0.0, -1.0), Verdict.AS_GOOD),
    ],
)
def test_every_threshold_has_an_effect(thresholds, shares, verdict):
    assert verdict_of(*shares, thresholds=thresholds) is verdict is not verdict_of(*shares)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"better": 0.1}, "0 <= better <= clearly <= 1, got 0.1 and 0.05"),
        ({"clearly": 1.5}, "better <= clearly <= 1"),
        ({"agreement": 0.5}, "agreement must be a share with 0.5 < agreement <= 1, got 0.5"),
        ({"failures": -0.1}, "failures must be a share"),
        ({"better": math.nan}, "better"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Thresholds(**wrong)


LEVEL = {
    verdict: level
    for level, verdict in enumerate(
        (Verdict.CLEARLY_WORSE, Verdict.WORSE, Verdict.AS_GOOD, Verdict.BETTER, Verdict.CLEARLY_BETTER), start=-2
    )
}


@given(paired_runs(), st.sampled_from([0.1, 0.5, 1.0]))
def test_a_scheduler_is_as_good_as_itself(runs, stage):
    copies = [replace(one, scheduler="copy") for one in runs if one.scheduler == "a"]
    for rival in ("a", "copy"):
        judged = judge(runs + copies, "a", rival, stage=stage)
        assert all(one.verdict is Verdict.AS_GOOD and one.settled for one in judged)
        assert lab.difference(lab.pair(runs + copies, "a", rival), stage).p_value == 1
        counted = lab.tally(judged)
        assert counted.as_good_or_better.value == 1
        assert counted.better.count == counted.worse.count == counted.undecided.count == 0


@given(paired_runs())
def test_verdicts_are_mirrored_when_the_schedulers_are_swapped(runs):
    for one, other in zip(judge(runs), judge(runs, "b", "a")):
        assert LEVEL[one.verdict] == -LEVEL[other.verdict]
        assert one.settled is other.settled


@given(paired_runs(), st.sampled_from([2.0**-40, 0.25, 1024.0]))
@settings(max_examples=50)
def test_the_unit_of_the_loss_changes_nothing(runs, scale):
    scaled = [
        replace(one, start=one.start * scale, stages={stage: loss * scale for stage, loss in one.stages.items()})
        for one in runs
    ]
    assert [one.verdict for one in judge(runs)] == [one.verdict for one in judge(scaled)]
    assert lab.differences(runs, "a") == lab.differences(scaled, "a")
    plain, other = (lab.regret_by_multiplier(lab.regrets(which, ["b"]).values) for which in (runs, scaled))
    assert [astuple(row) for row in plain] == [astuple(row) for row in other]


@given(paired_runs(), st.integers(0, 11), st.sampled_from([math.nan, math.inf, 2.0, 50.0]))
@settings(max_examples=60)
def test_a_failed_run_never_improves_a_scheduler(runs, index, loss):
    index = index % (len(runs) // 2) * 2
    spoilt = [replace(one, stages={1.0: loss}) if i == index else one for i, one in enumerate(runs)]
    case = {"problem": runs[index].problem, "seed": 99}
    for worse in (spoilt, [*runs, run("a", loss, **case), run("b", 1.0, **case)]):
        for before, after in zip(judge(runs), judge(worse)):
            assert LEVEL[after.verdict] <= LEVEL[before.verdict]
        before, after = ([pair.share() for pair in lab.pair(which, "a", "b").pairs] for which in (runs, worse))
        assert estimate.mean(after) <= estimate.mean(before) + 1e-12
        assert estimate.rank_biserial(after) <= estimate.rank_biserial(before) + 1e-12
    before, after = (lab.regrets(which, ["b"]).values for which in (runs, spoilt))
    assert all(late.value >= early.value for early, late in zip(before, after))


@given(paired_runs(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_the_runs_does_not_matter(runs, random):
    shuffled = random.sample(runs, len(runs))
    assert lab.pair(runs, "a", "b") == lab.pair(shuffled, "a", "b")
    assert lab.tally(judge(runs)).verdicts == lab.tally(judge(shuffled)[::-1]).verdicts
    assert str(lab.differences(runs, "a")) == str(lab.differences(shuffled, "a"))
    assert lab.regrets(runs, ["b"]) == lab.regrets(shuffled, ["b"])


def test_a_tally_by_hand():
    runs = (
        by_share(0.2, 0.4, problem="clearly better")
        + by_share(0.02, problem="better")
        + by_share(0.0, problem="as good")
        + by_share(-0.1, 0.1, problem="undecided")
        + by_share(-1.0, problem="failed")
    )
    counted = lab.tally(judge(runs))
    counts = ("as_good_or_better", "better", "clearly_better", "worse", "clearly_worse", "undecided")
    assert [getattr(counted, name).count for name in counts] == [4, 2, 1, 1, 1, 1]
    assert counted.as_good_or_better == lab.proportion(4, 5)
    # (0.3 + 0.02 + 0 + 0 - 1) / 5; these runs go down from 1 to 0, so that shares are losses too.
    for extremes in (counted.share, counted.loss):
        assert astuple(extremes) == pytest.approx((-0.136, 0.3, -1.0, 5))
    assert (counted.pairs, counted.failed_first, counted.failed_second) == (7, 1, 0)
    assert [one.case.problem for one in counted.verdicts][::4] == ["failed", "clearly better"]
    assert [pair.second.seed for pair in counted.verdicts[-1].pairs] == [0, 1]


def test_no_case_is_no_share():
    nothing = lab.tally([])
    assert nothing.better.of == nothing.share.cases == nothing.loss.largest_deficit == 0
    assert math.isnan(nothing.share.average)


@pytest.mark.parametrize(
    ("own", "rival", "percent"),
    [
        (1.1, 1.0, -10.0),
        (0.9, 1.0, 10.0),
        (math.inf, 1.0, -100.0),  # counted with the start, 2
        (0.001, 0.01, None),  # 0.01 is less than 1 % of the decrease from 2
        (-2.0, -1.0, None),
    ],
)
def test_percent_are_of_the_rivals_loss(own, rival, percent):
    (judged,) = judge([run("a", own), run("b", rival)])
    assert judged.percent == (percent if percent is None else pytest.approx(percent))


# Regret


def grid(**losses):
    """Final losses by scheduler, a list over multipliers 0.1 and 1 of a tuple over seeds."""
    return [
        run(name, final, seed, multiplier=multiplier)
        for name, rates in losses.items()
        for multiplier, finals in zip((0.1, 1.0), rates)
        for seed, final in enumerate(finals)
    ]


def test_regret_by_hand():
    runs = grid(cosine=[(1.0, 1.2), (0.4, 0.6)], linear=[(0.3, 0.9), (math.inf, 0.1)], greedy=[(0.5, 0.7), (0.5, 2.5)])
    made = lab.regrets(runs, ["cosine", "linear"])
    assert not made.unfinished
    assert not made.without_baseline
    # Means: cosine 1.1, 0.5; linear 0.6, (2 + 0.1) / 2; greedy 0.6, (0.5 + 2) / 2. The best is cosine at 1, 0.5.
    assert {(one.best.scheduler, one.best.multiplier, one.best_loss) for one in made.values} == {("cosine", 1.0, 0.5)}
    assert {(one.entry.scheduler, one.entry.multiplier): one.value for one in made.values} == pytest.approx(
        {
            ("cosine", 0.1): 2.2,
            ("cosine", 1.0): 1.0,
            ("greedy", 0.1): 1.2,
            ("greedy", 1.0): 2.5,
            ("linear", 0.1): 1.2,
            ("linear", 1.0): 2.1,
        }
    )
    assert [one.failed for one in made.values] == [0, 0, 0, 1, 0, 1]
    assert {one.measure for one in made.values} == {Measure.RATIO}


@pytest.mark.parametrize(
    ("best", "own", "value"),
    [
        (0.01, 0.005, 1 - 0.005 / 1.995),  # near zero: 0.01 < 1 % of 1.99; a little better than the best
        (0.0, 0.5, 1.25),  # 0.5 of the decrease of 2 missed
        (-2.0, 0.0, 1.5),  # 2 of 4
        (-2.0, math.nan, 2.0),  # all of it
    ],
)
def test_near_zero_regret_is_the_missed_share_of_the_decrease(best, own, value):
    _, made = lab.regrets([run("cosine", best), run("greedy", own)], ["cosine"]).values
    assert made.value == pytest.approx(value)
    assert made.measure is Measure.SHARE


def test_where_no_fixed_schedule_got_anywhere_the_start_is_the_best():
    runs = [run("cosine", math.nan, start=0.0), run("greedy", -1.0, start=0.0), run("other", 3.0, start=0.0)]
    assert [one.value for one in lab.regrets(runs, ["cosine"]).values] == [1.0, 0.0, 1.0]


def test_regret_compares_the_same_seeds_and_reports_those_that_lack():
    runs = [*grid(cosine=[(0.5,), (1.0, 1.0)], greedy=[(0.5, 0.5), (0.5,)]), run("greedy", 1.0, problem="q")]
    made = lab.regrets(runs, ["cosine", "linear"])
    # On seed 0 cosine at 0.1 is best with 0.5; on both seeds only cosine at 1 has finished.
    assert {(one.entry[3:], one.value) for one in made.values if one.entry.scheduler == "greedy"} == {
        (("greedy", 0.1, (0, 1)), 0.5),
        (("greedy", 1.0, (0,)), 1.0),
    }
    assert [entry[0] for entry in made.without_baseline] == ["q"]
    assert ("p", "sgd", "none", "cosine", 0.1, (1,)) in made.unfinished
    assert ("p", "sgd", "none", "linear", 1.0, (0, 1)) in made.unfinished


def test_regret_by_multiplier_by_hand():
    runs = [
        run(name, final, problem=f"p{i}", multiplier=multiplier)
        for i, others in enumerate([(0.5, math.nan), (0.6, 1.0), (0.8, 0.9)])
        for name, multiplier, final in (("cosine", 1.0, 0.5), ("greedy", 1.0, others[0]), ("greedy", 3.0, others[1]))
    ]
    rows = lab.regret_by_multiplier(lab.regrets(runs, ["cosine"]).values)
    assert [(row.scheduler, row.multiplier) for row in rows] == [("cosine", 1.0), ("greedy", 1.0), ("greedy", 3.0)]
    # Ratios 4 (failed: 2 / 0.5), 2 and 1.8.
    assert (rows[2].median, rows[2].largest, rows[2].failed, rows[2].runs, rows[2].ratios) == (2.0, 4.0, 1, 3, 3)
    assert rows[2].interval == (1.8, 4.0)
    assert rows[0].median == rows[0].largest == 1.0


# Steps to a target


def reached(*steps):
    """Runs of a and b, a problem each, with their steps to the target 0.9."""
    return [
        run(name, 1.0, problem=f"p{i}", steps_to={0.9: taken})
        for i, both in enumerate(steps)
        for name, taken in zip(SCHEDULER, both)
    ]


def test_steps_to_a_target_by_hand():
    made = lab.steps_to_target(lab.pair(reached((10, 20), (10, 40), (30, 10), (5, None), (None, None)), "a", "b"), 0.9)
    # Speedups 2, 4, 1/3, infinite, and a tie; three of four decided ones are sooner: p = 2 (4 + 1) / 16.
    assert (made.sooner, made.later, made.units, made.never_first, made.never_second) == (3, 1, 5, 1, 2)
    assert made.speedup == pytest.approx(2.0)
    assert made.interval == pytest.approx((1 / 3, math.inf))
    assert made.p_value == pytest.approx(10 / 16)
    back = lab.steps_to_target(lab.pair(reached((20, 10), (40, 10), (10, 30), (None, 5), (None, None)), "a", "b"), 0.9)
    assert back.speedup == pytest.approx(0.5)
    assert (back.interval.low, back.sooner) == (0.0, 1)
    at_once = lab.steps_to_target(lab.pair(reached((0, 8)), "a", "b"), 0.9)
    assert at_once.speedup == pytest.approx(8.0)  # no steps count as one


def test_a_run_that_failed_in_the_end_has_not_reached_its_target_and_unmeasured_pairs_are_counted():
    failed = [run("a", math.nan, steps_to={0.9: 5}), run("b", 1.0, steps_to={0.9: 50})]
    made = lab.steps_to_target(lab.pair([*failed, run("a", 1.0, 1), run("b", 1.0, 1)], "a", "b"), 0.9)
    assert (made.later, made.never_first, made.pairs, made.unmeasured) == (1, 1, 1, 1)
    assert (made.speedup, made.interval) == (0.0, None)
    assert math.isnan(lab.steps_to_target(lab.pair(failed, "a", "b"), 0.5).speedup)


def test_the_target_comes_from_the_baseline():
    cosine = [run("cosine", 0.4), run("cosine", 0.6, 1)]
    assert lab.target_loss(cosine) == pytest.approx(2 - 0.9 * 1.5)
    assert lab.target_loss(cosine, share=0.5) == pytest.approx(1.25)
    assert lab.target_loss([*cosine, run("cosine", math.nan, 2)]) == pytest.approx(2 - 0.9 * 1.0)  # (0.4 + 0.6 + 2) / 3
    assert lab.first_step([0, 5, 10], [2.0, math.nan, 0.65], target=0.65) == 10
    assert lab.first_step([0, 5, 10], [2.0, math.nan, 0.7], target=0.65) is None
    with pytest.raises(ValueError, match="share must be a number with 0 < share <= 1, got 0"):
        lab.target_loss(cosine, share=0)
    with pytest.raises(ValueError, match="runs of one scheduler"):
        lab.target_loss([*cosine, run("linear", 0.5)])
    with pytest.raises(ValueError, match="only failed runs of cosine"):
        lab.target_loss([run("cosine", 3.0)])


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
