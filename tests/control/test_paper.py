"""The published algorithm, decision by decision on sequences that can be followed by hand."""

import dataclasses
import math

import pytest

from greedylr.control import rule
from greedylr.control.decision import Action
from greedylr.control.paper import step as paper
from greedylr.control.paper.config import PaperConfig

RAISED, CUT, RESET, NON_FINITE = Action.RAISED, Action.CUT, Action.RESET, Action.NON_FINITE
GATHERING, PATIENCE, COOLDOWN, WARMUP = Action.GATHERING, Action.PATIENCE, Action.COOLDOWN, Action.WARMUP
AT_MAX, AT_MIN, BELOW_EPS = Action.AT_MAX, Action.AT_MIN, Action.BELOW_EPS
NAN, INF = math.nan, math.inf

# Halves and doubles at every second observation, between 1/16 and 16.
SMALL = PaperConfig(factor=0.5, patience=1, threshold=0.0, min_lr=0.0625, max_lr=16.0, eps=0.0)


def follow(config, script, initial_lrs=(1.0,)):
    """Check every decision of a script of (loss, action, learning rate); returns the decisions."""
    state = rule.start(config, initial_lrs)
    decisions = []
    for step, (loss, action, lr) in enumerate(script, start=1):
        before = state.lrs
        decision = rule.observe(config, state, loss)
        decisions.append(decision)
        assert (decision.step, decision.action, decision.lr_after[0]) == (step, action, lr)
        assert decision.lr_before == before
        assert decision.lr_after == state.lrs
    return decisions


def test_patience_acts_on_the_eleventh():
    config = PaperConfig()
    falling = [(100 - step, PATIENCE, 0.5) for step in range(10)] + [(89, RAISED, 0.5 / 0.95)]
    again = [(89 - step, PATIENCE, 0.5 / 0.95) for step in range(1, 11)] + [(78, RAISED, 0.5 / 0.95 / 0.95)]
    follow(config, [*falling, *again], (0.5,))
    # The first loss is better than nothing; every equal one is worse.
    flat = [(1, PATIENCE, 0.5)] + [(1, PATIENCE, 0.5)] * 10 + [(1, CUT, 0.475)]
    decisions = follow(config, flat, (0.5,))
    assert decisions[0].evidence == {}
    assert decisions[1].evidence == {"value": 1, "reference": 1, "better": 0, "worse": 1}
    assert [decision.evidence["worse"] for decision in decisions[1:]] == [*range(1, 11), 0]


def test_runs_must_be_unbroken():
    script = [(9, PATIENCE, 1), (9, PATIENCE, 1), (8, PATIENCE, 1), (8, PATIENCE, 1), (7, PATIENCE, 1), (6, RAISED, 2)]
    follow(SMALL, script)


def test_better_than_the_best_so_far():
    script = [
        (5, PATIENCE, 1),
        (9, PATIENCE, 1),
        (8, CUT, 0.5),
        (7, PATIENCE, 0.5),
        (6, CUT, 0.25),
        (4, PATIENCE, 0.25),
    ]
    decisions = follow(SMALL, script)
    assert [decision.evidence.get("reference") for decision in decisions] == [None, 5, 5, 5, 5, 5]


def test_better_than_the_previous():
    config = dataclasses.replace(SMALL, compare="previous")
    script = [(5, GATHERING, 1), (9, PATIENCE, 1), (8, PATIENCE, 1), (7, RAISED, 2), (7, PATIENCE, 2), (8, CUT, 1)]
    decisions = follow(config, script)
    assert [decision.evidence.get("reference") for decision in decisions] == [None, 5, 9, 8, 7, 7]


def test_core_rule():
    script = [(3, GATHERING, 1), (2, RAISED, 2), (2, CUT, 1), (3, CUT, 0.5), (2.9, RAISED, 1), (NAN, NON_FINITE, 0.5)]
    follow(PaperConfig.core(0.5), [*script, (2.8, RAISED, 1)])
    script = [(3, GATHERING, 1), (2, CUT, 0.5), (2, CUT, 0.25), (3, RAISED, 0.5)]
    follow(PaperConfig.core(0.5, "max"), script)
    # No bounds, either way.
    follow(PaperConfig.core(0.5), [(0, GATHERING, 1)] + [(-step, RAISED, 2.0**step) for step in range(1, 60)])
    follow(PaperConfig.core(0.5), [(0, GATHERING, 1)] + [(step, CUT, 0.5**step) for step in range(1, 60)])


def test_absolute_threshold():
    config = dataclasses.replace(SMALL, patience=0, threshold=0.5)
    # Strictly: 1.5 is not below 2 − 0.5, and the best stays 2.
    script = [(2, RAISED, 2), (1.5, CUT, 1), (1.75, CUT, 0.5), (1.25, RAISED, 1)]
    follow(config, script)


@pytest.mark.parametrize("sign", [1, -1])
def test_relative_threshold_is_a_share_of_the_size_of_the_reference(sign):
    config = dataclasses.replace(SMALL, patience=0, threshold=0.25, threshold_mode="rel")
    # The line is 8 − 2 = 6 and −8 − 2 = −10.
    at, below = (6, 5.9) if sign > 0 else (-10, -10.1)
    follow(config, [(sign * 8, RAISED, 2), (at, CUT, 1), (sign * 8, CUT, 0.5), (below, RAISED, 1)])
    config = dataclasses.replace(config, mode="max")
    at, above = (10, 10.1) if sign > 0 else (-6, -5.9)
    follow(config, [(sign * 8, RAISED, 2), (at, CUT, 1), (sign * 8, CUT, 0.5), (above, RAISED, 1)])


def test_a_metric_that_crosses_zero():
    config = dataclasses.replace(SMALL, patience=0, threshold=0.5, threshold_mode="rel")
    follow(config, [(1, RAISED, 2), (0, RAISED, 4), (0, CUT, 2), (-1, RAISED, 4), (-1.5, CUT, 2), (-1.6, RAISED, 4)])


def test_cooldown():
    config = dataclasses.replace(SMALL, cooldown=2)
    script = [
        *[(5, PATIENCE, 1), (5, PATIENCE, 1), (5, CUT, 0.5)],
        *[(9, COOLDOWN, 0.5), (1, COOLDOWN, 0.5)],  # ignored, the best 1 as well
        *[(4, PATIENCE, 0.5), (3, RAISED, 1)],
        *[(9, PATIENCE, 1), (9, CUT, 0.5)],  # none after a raise
        *[(9, COOLDOWN, 0.5), (9, COOLDOWN, 0.5), (9, PATIENCE, 0.5), (9, CUT, 0.25)],
    ]
    follow(config, script)


def test_warmup():
    config = dataclasses.replace(SMALL, warmup=2)
    script = [
        *[(5, PATIENCE, 1), (4, RAISED, 2)],
        *[(9, WARMUP, 2), (1, WARMUP, 2)],
        *[(4, PATIENCE, 2), (4, CUT, 1)],
        *[(9, PATIENCE, 1), (9, CUT, 0.5)],  # none after a cut
    ]
    follow(config, script)


def test_cooldown_before_warmup():
    """A reset clears the warmup but leaves the cooldown of the cut it came from."""
    config = dataclasses.replace(SMALL, patience=0, cooldown=1, warmup=1, min_lr=1.0, reset_start=1)
    script = [(5, RAISED, 2), (5, WARMUP, 2), (5, RESET, 1), (5, COOLDOWN, 1), (9, RAISED, 2), (9, WARMUP, 2)]
    follow(config, script)


def test_bounds():
    config = dataclasses.replace(SMALL, patience=0, min_lr=0.7, max_lr=1.5)
    script = [(9, RAISED, 1.5), (8, AT_MAX, 1.5), (8, CUT, 0.75), (8, CUT, 0.7), (8, AT_MIN, 0.7), (7, RAISED, 1.4)]
    follow(config, script)


def test_bounds_of_each_group():
    config = dataclasses.replace(SMALL, patience=0, min_lr=[0.5, 0.25], max_lr=[2.0, 8.0])
    state = rule.start(config, [1.0, 4.0])
    decisions = [rule.observe(config, state, loss) for loss in (9, 8, 7, 7, 7, 7, 7, 7)]
    assert [decision.lr_after for decision in decisions] == [
        *[(2, 8), (2, 8), (2, 8), (1, 4), (0.5, 2), (0.5, 1), (0.5, 0.5), (0.5, 0.25)]
    ]
    assert [decision.action for decision in decisions] == [RAISED, AT_MAX, AT_MAX, *[CUT] * 5]


def test_learning_rate_outside_the_bounds():
    config = dataclasses.replace(SMALL, patience=0, min_lr=0.5, max_lr=2.0)
    # A cut never raises to the lower bound, a raise never cuts to the upper one.
    follow(config, [(9, RAISED, 0.25), (9, AT_MIN, 0.25), (8, RAISED, 0.5)], (0.125,))
    follow(config, [(9, AT_MAX, 5.0), (9, CUT, 2.5), (9, CUT, 1.25)], (5.0,))


def test_eps():
    config = dataclasses.replace(SMALL, patience=0, min_lr=0.0, eps=0.25)
    # Strictly larger than eps: from 0.5 to 0.25 is not.
    script = [(9, RAISED, 2), (9, CUT, 1), (9, CUT, 0.5), (9, BELOW_EPS, 0.5), (8, RAISED, 1)]
    follow(config, script)
    follow(config, [(9, BELOW_EPS, 0.25), (9, BELOW_EPS, 0.25)], (0.25,))
    # To each group by itself.
    state = rule.start(config, [1.0, 0.25])
    assert rule.observe(config, state, 9).lr_after == (2.0, 0.25)


def test_reset():
    config = dataclasses.replace(SMALL, patience=0, min_lr=0.5, reset_start=2)
    script = [
        (9, RAISED, 2.0),
        (9, CUT, 1.0),
        (9, CUT, 0.5),  # arrives at the lower bound: the first attempt
        (9, RESET, 1.0),  # the second
        (99, RAISED, 2.0),  # the best has been forgotten
        *[(99, CUT, 1.0), (99, CUT, 0.5), (99, RESET, 1.0)],
    ]
    follow(config, script)
    # A raise begins the count anew, even one that changes nothing.
    script = [(9, RAISED, 2), (9, CUT, 1), (9, CUT, 0.5), (8, RAISED, 1), (8, CUT, 0.5), (8, RESET, 1)]
    follow(config, script)
    # Every group must be at its bound.
    config = dataclasses.replace(config, min_lr=[0.5, 0.125])
    state = rule.start(config, [1.0, 1.0])
    actions = [rule.observe(config, state, 9).action for _ in range(6)]
    assert actions == [RAISED, CUT, CUT, CUT, CUT, RESET]
    assert state.lrs == (1.0, 1.0)


def test_smoothing():
    config = dataclasses.replace(SMALL, patience=0, smooth=True, window_size=2)
    script = [
        (8, RAISED, 2),
        (4, RAISED, 4),  # 6
        (8, CUT, 2),  # 6 again: not better
        (2, RAISED, 4),  # 5
        (8, CUT, 2),  # 5
        (1.5, RAISED, 4),  # 4.75
    ]
    decisions = follow(config, script)
    assert [decision.evidence.get("value") for decision in decisions] == [None, 6, 6, 5, 5, 4.75]
    assert [decision.evidence.get("reference") for decision in decisions] == [None, 8, 6, 6, 5, 5]


def test_smoothing_goes_on_while_losses_are_ignored_and_ends_with_a_reset():
    config = dataclasses.replace(SMALL, patience=0, smooth=True, window_size=2, cooldown=1)
    follow(config, [(8, RAISED, 2), (8, CUT, 1), (2, COOLDOWN, 1), (8, RAISED, 2)])  # (2 + 8) / 2 = 5 < 8
    config = dataclasses.replace(config, cooldown=0, min_lr=1.0, reset_start=1)
    script = [(1, RAISED, 2), (1, RESET, 1), (8, RAISED, 2), (6, RAISED, 4)]  # 8, then (8 + 6) / 2
    follow(config, script)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_not_finite_costs_one_cut(bad):
    config = dataclasses.replace(SMALL, smooth=True, window_size=2, cooldown=1, warmup=1)
    script = [
        (bad, NON_FINITE, 0.5),  # the very first
        (8, PATIENCE, 0.5),
        (bad, NON_FINITE, 0.25),  # breaks no run
        (4, RAISED, 0.5),
        (bad, NON_FINITE, 0.25),  # is not what warmup ignores
        (4, WARMUP, 0.25),
        (2, PATIENCE, 0.25),  # (4 + 2) / 2 = 3
        (bad, NON_FINITE, 0.125),
        (bad, NON_FINITE, 0.0625),
        (bad, NON_FINITE, 0.0625),  # at the lower bound
        (2, RAISED, 0.125),  # (2 + 2) / 2
    ]
    decisions = follow(config, script)
    assert all(decision.evidence == {} for decision in decisions if decision.action is NON_FINITE)


def test_not_finite_at_the_lower_bound_is_no_attempt():
    config = dataclasses.replace(SMALL, patience=0, min_lr=0.5, reset_start=2)
    script = [(9, RAISED, 2), (9, CUT, 1), (9, CUT, 0.5), (NAN, NON_FINITE, 0.5), (NAN, NON_FINITE, 0.5), (9, RESET, 1)]
    follow(config, script)


def test_reward():
    config = dataclasses.replace(SMALL, mode="max", smooth=True, window_size=1)
    decisions = follow(config, [(5, PATIENCE, 1), (6, RAISED, 2), (6, PATIENCE, 2), (4, CUT, 1)])
    assert decisions[1].evidence == {"value": 6, "reference": 5, "better": 0, "worse": 0}
    assert decisions[3].evidence == {"value": 4, "reference": 6, "better": 0, "worse": 0}


def test_a_group_that_joins_late_keeps_its_learning_rate():
    config = dataclasses.replace(SMALL, patience=0, min_lr=0.5, reset_start=1)
    state = rule.start(config, [1.0])
    rule.observe(config, state, 9)
    rule.add_group(config, state, 0.75)
    assert state.lrs == (2.0, 0.75)
    actions = [rule.observe(config, state, loss) for loss in (8, 8, 8, 8)]
    assert [decision.lr_after for decision in actions] == [(4, 1.5), (2, 0.75), (1, 0.5), (1, 0.75)]


def test_may_move_says_when_learning_rates_matter():
    """A move that was not announced would not know of learning rates set by hand."""
    config = dataclasses.replace(SMALL, patience=2, cooldown=1, warmup=1, min_lr=0.5, reset_start=2)
    state = rule.start(config, [1.0])
    announced = set()
    for step in range(2000):
        loss = NAN if step % 17 == 0 else float((step * step) % 23)
        may_move = paper.may_move(config, state, loss)
        before = state.lrs
        action = paper.advance(config, state, loss)
        assert may_move or state.lrs is before
        announced.add((may_move, action))
    assert {(True, RAISED), (True, CUT), (True, RESET), (True, NON_FINITE), (False, PATIENCE)} <= announced


def test_cautions():
    config = PaperConfig()
    assert paper.cautions(config, (1e-3, 0.1, 1.0)) == []
    (low,) = paper.cautions(config, (0.1, 2e-5))
    assert low.startswith("the initial LR 2e-05 of parameter group 1 is below min_lr=0.001")
    (high,) = paper.cautions(config, (3.0,))
    assert high.startswith("the initial LR 3 of parameter group 0 is above max_lr=1")
    (small,) = paper.cautions(PaperConfig(min_lr=0.0), (1e-7,))
    assert "1e-07 of parameter group 0 is too small for eps=1e-08" in small
    assert paper.cautions(PaperConfig(min_lr=0.0, eps=0.0), (1e-7,)) == []
    assert len(paper.cautions(PaperConfig(min_lr=[0.2, 0.0], max_lr=[1.0, 0.1]), (0.1, 0.5))) == 2


def test_one_huge_loss_stays_in_the_running_sum():
    """The published arithmetic: what the sum loses to rounding beside one huge loss is missing from it for good."""
    config = PaperConfig(smooth=True, window_size=5, patience=100)
    state = rule.start(config, [0.1])
    values = []
    for loss in [2.0] * 5 + [1e17] + [2.0] * 50:
        rule.observe(config, state, loss)
        values.append(state.value)
    assert values[4] == 2.0
    assert values[-1] == values[10] == pytest.approx(3.2)
    assert state.losses == [2.0] * 5
