"""Regret against the best fixed schedule: by hand, and with what is missing."""

import math

import pytest

from greedylr.lab.analysis import statistics as lab
from greedylr.lab.analysis.statistics.regret import Measure

from .made import run


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
