"""Runs that differ only in the scheduler, and what they are measured by."""

import math

import pytest

from greedylr.lab.analysis import statistics as lab

from .made import run


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
