"""The default family, decision by decision on sequences that can be followed by hand.

Windows of two: (3, 5) has mean 4 and variance 2, so its ceiling is 4 + 6√2 ≈ 12.49, and two such windows differ by
more than one standard error if their means do by more than √2 ≈ 1.41.
"""

import dataclasses
import math

import pytest

from greedylr.control import default, rule
from greedylr.control.config import DefaultConfig
from greedylr.control.decision import Action

RAISED, CUT, NON_FINITE, EXPLOSION = Action.RAISED, Action.CUT, Action.NON_FINITE, Action.EXPLOSION
GATHERING, NOT_SIGNIFICANT, SPIKE = Action.GATHERING, Action.NOT_SIGNIFICANT, Action.SPIKE
AT_MAX, AT_MIN, WARMING_UP, ANNEALING = Action.AT_MAX, Action.AT_MIN, Action.WARMING_UP, Action.ANNEALING
NAN, INF = math.nan, math.inf

SMALL = DefaultConfig(window=2, significance=1.0, factor=0.5, bold_factor=0.25)


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
        assert decision.loss == loss or math.isnan(loss)
    return decisions


def windows(*steps):
    """Scripts of whole windows: the first losses of each are gathered, the last brings the action."""
    script, lr = [], 1.0
    for losses, action, new_lr in steps:
        script += [(loss, GATHERING, lr) for loss in losses[:-1]] + [(losses[-1], action, new_lr)]
        lr = new_lr
    return script


def test_bold_until_the_first_flip_then_cautious():
    script = windows(
        ((13, 15), GATHERING, 1.0),  # the first window has nothing before it
        ((10, 12), RAISED, 4.0),
        ((7, 9), RAISED, 16.0),
        ((10, 12), CUT, 8.0),  # the direction flips: from here on factor, not bold_factor
        ((13, 15), CUT, 4.0),
        ((10, 12), RAISED, 8.0),
    )
    follow(SMALL, script)


def test_cuts_are_bold_too_until_the_first_flip():
    script = windows(
        ((3, 5), GATHERING, 1.0), ((6, 8), CUT, 0.25), ((9, 11), CUT, 0.0625), ((6, 8), RAISED, 0.125)
    )  # fmt: skip
    follow(SMALL, script)


def test_only_significant_differences_count():
    script = windows(
        ((3, 5), GATHERING, 1.0),
        ((2, 4), NOT_SIGNIFICANT, 1.0),  # 1 < √2
        ((3, 5), NOT_SIGNIFICANT, 1.0),
        ((1.5, 3.5), RAISED, 4.0),  # 1.5 > √2
        ((2.9, 4.9), NOT_SIGNIFICANT, 4.0),  # 1.4 < √2
        ((4.4, 6.4), CUT, 2.0),
    )
    decisions = follow(SMALL, script)
    assert decisions[3].evidence == {"mean": 3.0, "previous_mean": 4.0, "standard_error": pytest.approx(math.sqrt(2))}
    assert decisions[7].evidence == {"mean": 2.5, "previous_mean": 4.0, "standard_error": pytest.approx(math.sqrt(2))}
    assert not any(decision.evidence for decision in decisions[:3] + decisions[4:5])
    # Twice as sure, and 1.5 is not enough.
    script = windows(((3, 5), GATHERING, 1.0), ((1.5, 3.5), NOT_SIGNIFICANT, 1.0), ((-1, 1), NOT_SIGNIFICANT, 1.0))
    follow(dataclasses.replace(SMALL, significance=2.0), script)


def test_equal_windows_are_not_significant_at_any_significance():
    script = windows(((1, 1), GATHERING, 1.0), ((1, 1), NOT_SIGNIFICANT, 1.0), ((1, 1), NOT_SIGNIFICANT, 1.0))
    follow(dataclasses.replace(SMALL, significance=0.0), script)
    # And any difference is, at 0.
    script = windows(((3, 5), GATHERING, 1.0), ((3, 5.01), CUT, 0.25), ((3, 5), RAISED, 0.5))
    follow(dataclasses.replace(SMALL, significance=0.0), script)


def test_windows_do_not_overlap():
    config = DefaultConfig(window=3, factor=0.5, bold_factor=0.5)
    script = windows(((1, 2, 3), GATHERING, 1.0), ((4, 5, 6), CUT, 0.5), ((7, 8, 9), CUT, 0.25))
    follow(config, script)


def test_at_the_bounds():
    config = dataclasses.replace(SMALL, min_scale=0.4, max_scale=3.0)
    script = windows(
        ((13, 15), GATHERING, 1.0),
        ((10, 12), RAISED, 3.0),  # clamped
        ((7, 9), AT_MAX, 3.0),
        ((10, 12), CUT, 1.5),  # the scale has not wound up beyond the bound
        ((13, 15), CUT, 0.75),
        ((16, 18), CUT, 0.4),
        ((19, 21), AT_MIN, 0.4),
        ((16, 18), RAISED, 0.8),
    )
    follow(config, script)


def test_bounds_of_each_group():
    config = dataclasses.replace(SMALL, min_scale=[0.5, 0.0], max_scale=[2.0, 8.0])
    state = rule.start(config, [0.1, 1.0])
    lrs = []
    for losses in ((13, 15), (10, 12), (7, 9), (10, 12), (13, 15), (16, 18), (19, 21)):
        lrs.append([rule.observe(config, state, loss).lr_after for loss in losses][-1])
    assert lrs == [(0.1, 1.0), (0.2, 4.0), (0.2, 8.0), (0.2, 4.0), (0.2, 2.0), (0.1, 1.0), (0.05, 0.5)]
    assert rule.observe(config, state, 22).lr_after == (0.05, 0.5)
    assert rule.observe(config, state, 24).lr_after == (0.05, 0.25)


def test_one_spike_is_left_out():
    script = [
        *windows(((3, 5), GATHERING, 1.0)),
        (3, GATHERING, 1.0),
        (12.5, SPIKE, 1.0),  # over 12.485…
        (5, NOT_SIGNIFICANT, 1.0),  # completes (3, 5): the spike is in no average
        (12.5, SPIKE, 1.0),
        (3, GATHERING, 1.0),
        (12.5, SPIKE, 1.0),  # not in a row
        (5, NOT_SIGNIFICANT, 1.0),
    ]
    decisions = follow(SMALL, script)
    assert decisions[3].evidence == {"ceiling": pytest.approx(4 + 6 * math.sqrt(2))}
    assert decisions[4].evidence["mean"] == 4.0


def test_what_is_at_the_ceiling_is_no_spike():
    script = [*windows(((1, 1), GATHERING, 1.0)), (1, GATHERING, 1.0), (math.nextafter(1, 2), SPIKE, 1.0)]
    follow(SMALL, script)
    script = [*windows(((3, 5), GATHERING, 1.0)), (12.48, GATHERING, 1.0)]
    follow(SMALL, script)
    script = [*windows(((3, 5), GATHERING, 1.0)), (6.9, SPIKE, 1.0)]
    follow(dataclasses.replace(SMALL, spike=2.0), script)


def test_two_in_a_row_are_an_explosion():
    script = [
        *windows(((3, 5), GATHERING, 1.0)),
        (4, GATHERING, 1.0),
        (20, SPIKE, 1.0),
        (30, EXPLOSION, 0.25),  # at once, in the middle of a window; the new ceiling is 30 + 6√2 ≈ 38.5
        (38, GATHERING, 0.25),  # the level is known already; the window began anew
        (36, CUT, 0.0625),  # (38, 36) against (3, 5); its ceiling is 37 + 6√2 ≈ 45.5
        (4, GATHERING, 0.0625),
        (6, RAISED, 0.125),  # the explosion was a cut: the direction has flipped
    ]
    decisions = follow(SMALL, script)
    assert decisions[4].evidence == {"ceiling": pytest.approx(4 + 6 * math.sqrt(2))}


def test_an_explosion_cuts_again_only_while_it_climbs():
    script = [
        *windows(((3, 5), GATHERING, 1.0)),
        (20, SPIKE, 1.0),
        (30, EXPLOSION, 0.25),
        (40, EXPLOSION, 0.0625),  # over 38.5, and the third in a row
        (50, EXPLOSION, 0.015625),  # over 48.5
        (50, GATHERING, 0.015625),
        (60, SPIKE, 0.015625),  # over 58.5, but not in a row
        (52, CUT, 0.00390625),
    ]
    follow(SMALL, script)


def test_an_explosion_flips_the_direction():
    script = [
        *windows(((13, 15), GATHERING, 1.0), ((10, 12), RAISED, 4.0)),
        (30, SPIKE, 4.0),
        (30, EXPLOSION, 1.0),  # bold_factor all the same
        (29, GATHERING, 1.0),
        (31, CUT, 0.5),  # but cautious from here on
    ]
    follow(SMALL, script)


def test_an_explosion_at_the_lower_bound():
    config = dataclasses.replace(SMALL, min_scale=0.5)
    script = [*windows(((3, 5), GATHERING, 1.0)), (20, SPIKE, 1.0), (30, EXPLOSION, 0.5), (40, EXPLOSION, 0.5)]
    decisions = follow(config, script)
    assert [decision.cut for decision in decisions] == [False, False, False, True, False]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_not_finite_costs_one_cut(bad):
    script = [
        (bad, NON_FINITE, 0.25),  # the very first
        (3, GATHERING, 0.25),
        (bad, NON_FINITE, 0.0625),
        (5, GATHERING, 0.0625),
        (bad, NON_FINITE, 0.015625),
        (bad, NON_FINITE, 0.00390625),
        (1.5, GATHERING, 0.00390625),
        (3.5, RAISED, 0.015625),  # still bold: it was no turn
    ]
    decisions = follow(SMALL, script)
    assert [decision.evidence for decision in decisions[:-1]] == [{}] * 7
    assert decisions[-1].evidence["previous_mean"] == 4.0
    assert decisions[0].cut
    assert not decisions[1].cut


def test_not_finite_between_two_spikes_does_not_part_them():
    script = [
        *windows(((3, 5), GATHERING, 1.0)),
        (20, SPIKE, 1.0),
        (NAN, NON_FINITE, 0.25),
        (INF, NON_FINITE, 0.0625),
        (30, EXPLOSION, 0.015625),
    ]
    follow(SMALL, script)


def test_not_finite_does_not_make_a_spike():
    script = [*windows(((3, 5), GATHERING, 1.0)), (NAN, NON_FINITE, 0.25), (20, SPIKE, 0.25), (4, GATHERING, 0.25)]
    follow(SMALL, script)


def test_warming_up():
    config = dataclasses.replace(SMALL, warmup_steps=4)
    assert rule.start(config, [1.0]).lrs == (0.25,)
    script = [
        (9, WARMING_UP, 0.5),
        (11, WARMING_UP, 0.75),
        (NAN, NON_FINITE, 0.25),  # it cuts the scale, and the ramp goes on: 0.25 · 4/4
        (6, GATHERING, 0.25),  # the ramp is done
        (8, RAISED, 1.0),
    ]
    follow(config, script)


def test_no_comparison_moves_during_the_ramp():
    config = dataclasses.replace(SMALL, warmup_steps=10)
    script = [(loss, WARMING_UP, step / 10) for step, loss in enumerate((13, 15, 10, 12, 7, 9), start=2)]
    script += [(20, SPIKE, 0.8), (30, EXPLOSION, 0.25 * 0.9), (30, WARMING_UP, 0.25), (32, CUT, 0.0625)]
    decisions = follow(config, script)
    assert decisions[3].evidence["previous_mean"] == 14.0  # what was compared is told all the same


def test_annealing():
    config = dataclasses.replace(SMALL, total_steps=10, anneal=0.4, min_scale=0.1)
    script = [
        *windows(((13, 15), GATHERING, 1.0), ((10, 12), RAISED, 4.0)),
        (9, GATHERING, 4.0),
        (7, ANNEALING, 4.0),  # step 6: the next optimizer step is the first of the last four, at 4/4
        (1, ANNEALING, 3.0),
        (2, ANNEALING, 2.0),
        (NAN, NON_FINITE, 0.25),
        (1, ANNEALING, 0.1),  # the floor, and it stays there
        (2, ANNEALING, 0.1),
        (9, SPIKE, 0.1),
    ]
    follow(config, script)


def test_annealing_of_everything_and_of_nothing():
    config = dataclasses.replace(SMALL, total_steps=4, anneal=1.0, min_scale=0.0)
    assert rule.start(config, [1.0]).lrs == (1.0,)
    follow(
        config,
        [(1, ANNEALING, 0.75), (2, ANNEALING, 0.5), (3, ANNEALING, 0.25), (4, ANNEALING, 0.0), (5, ANNEALING, 0)],
    )
    config = dataclasses.replace(SMALL, total_steps=2, anneal=0.0)
    follow(config, windows(((3, 5), GATHERING, 1.0), ((0, 2), RAISED, 4.0)))


def test_ramp_and_annealing_may_touch():
    config = dataclasses.replace(SMALL, warmup_steps=2, total_steps=4, anneal=0.5, min_scale=0.0)
    assert rule.start(config, [1.0]).lrs == (0.5,)
    follow(config, [(1, WARMING_UP, 1.0), (1, ANNEALING, 1.0), (1, ANNEALING, 0.5), (1, ANNEALING, 0.0)])


@pytest.mark.parametrize("window", range(2, 8))
@pytest.mark.parametrize("spike_at", range(1, 7))
def test_annealing_starts_on_time_wherever_the_windows_end(window, spike_at):
    config = DefaultConfig(window=window, total_steps=20, anneal=0.5, min_scale=0.0)
    state = rule.start(config, [1.0])
    lrs = [rule.observe(config, state, 1e9 if step == spike_at + window else 4).lr_after[0] for step in range(1, 21)]
    assert lrs == [1.0] * 9 + [(20 - step) / 10 for step in range(10, 21)]


def test_reward():
    config = dataclasses.replace(SMALL, mode="max")
    script = [
        *windows(((3, 5), GATHERING, 1.0), ((6, 8), RAISED, 4.0), ((3, 5), CUT, 2.0)),
        (-4.5, SPIKE, 2.0),
        (-5, EXPLOSION, 0.5),
    ]
    decisions = follow(config, script)
    assert decisions[3].evidence == {"mean": 7.0, "previous_mean": 4.0, "standard_error": pytest.approx(math.sqrt(2))}
    assert decisions[6].evidence == {"ceiling": pytest.approx(4 - 6 * math.sqrt(2))}


def test_raised_and_cut_say_what_the_loss_did():
    script = [
        *windows(((3, 5), GATHERING, 1.0), ((0, 2), RAISED, 4.0), ((3, 5), CUT, 2.0)),
        (NAN, NON_FINITE, 0.5),
        (20, SPIKE, 0.5),
        (30, EXPLOSION, 0.125),
    ]
    decisions = follow(SMALL, script)
    assert [decision.raised for decision in decisions] == [False] * 3 + [True] + [False] * 5
    assert [decision.cut for decision in decisions] == [False] * 5 + [True, True, False, True]
    annealed = follow(DefaultConfig(total_steps=2, anneal=1.0), [(1, ANNEALING, 0.5)])
    assert not annealed[0].cut


def test_a_group_that_joins_late_is_as_if_it_had_been_there():
    config = dataclasses.replace(SMALL, warmup_steps=8, max_scale=2.0)
    early, late = rule.start(config, [1.0, 0.1]), rule.start(config, [1.0])
    losses = [13, 15, 10, 12, 20, NAN, 30, 31, 9, 9, 5]
    for loss in losses[:6]:
        rule.observe(config, early, loss)
        rule.observe(config, late, loss)
    rule.add_group(config, late, 0.1)
    for loss in losses[6:]:
        assert rule.observe(config, late, loss) == rule.observe(config, early, loss)
    assert late == early


def test_group_with_learning_rate_zero():
    state = rule.start(SMALL, [0.0, 1.0])
    assert [rule.observe(SMALL, state, loss).lr_after for loss in (3, 5, 0, 2)][-1] == (0.0, 4.0)


def test_advance_is_observe_without_the_decision():
    script = windows(((3, 5), GATHERING, 1.0), ((0, 2), RAISED, 4.0), ((3, 5), CUT, 2.0))
    one, other = rule.start(SMALL, [1.0]), rule.start(SMALL, [1.0])
    assert rule.advancer(SMALL) is default.advance
    for loss, action, _ in script:
        assert default.advance(SMALL, one, loss) is rule.observe(SMALL, other, loss).action is action
    assert one == other


EXTREME = [
    [1e200, 3e200, 2e200],
    [-1.7e308, 1.7e308, 1.7e308],
    [1.7e308, -1.7e308, 9e307],
    [0.0, 0.0, 1e154],
]


@pytest.mark.parametrize("losses", EXTREME, ids=str)
def test_recovers_from_extreme_losses(losses):
    config = DefaultConfig(window=3)
    state = rule.start(config, [1.0])
    for loss in [*losses, 3, 4, 5, 3, 4, 5]:
        rule.observe(config, state, loss)
    assert (state.mean, state.previous_mean) == (4.0, 4.0)
    assert state.ceiling == pytest.approx(10.0)
    before = state.lrs
    for loss in (0, 1, 2):
        rule.observe(config, state, loss)
    assert state.lrs > before


def test_an_overflow_is_not_mistaken_for_calm():
    """The square of the sum overflows where the sum of squares does not."""
    config = DefaultConfig()
    state = rule.start(config, [1.0])
    for loss in [0.0] + [1e153] * 19:
        rule.observe(config, state, loss)
    assert state.variance == INF
    assert math.isfinite(state.mean)
