"""Verdicts on cases: by hand, and what must hold whatever the runs came to."""

import math
from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greedylr.lab.analysis import statistics as lab
from greedylr.lab.analysis.statistics import Thresholds, Verdict, estimate

from .made import by_share, judge, paired_runs, run, verdict_of


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
