"""Steps to a target, with runs that never reach it."""

import math

import pytest

from greedylr.lab.analysis import statistics as lab

from .made import SCHEDULER, run


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
