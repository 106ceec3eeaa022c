"""The default family, decision by decision on sequences that can be followed by hand.

Windows of two: (3, 5) has mean 4 and variance 2, so its ceiling is 4 + 6√2 ≈ 12.49, and two such windows differ by
more than one standard error if their means do by more than √2 ≈ 1.41.

A climb of a decade per loss: τ = 4 and β = 3/4, and it has settled after eight losses. (3, 5) four times over has a
noise of 2, so the standard error is √(2/7) ≈ 0.5345; the smoothed loss ends at 29/7 ≈ 4.143. Twice three standard
errors are 3.207, three are 1.604, and it has fallen when it is 2.268 below.
"""

import dataclasses
import json
import math
import random

import pytest
import torch

from greedylr.control import plain, rule
from greedylr.control.decision import Action
from greedylr.control.default import step as default
from greedylr.control.default.config import DefaultConfig

RAISED, CUT, NON_FINITE, EXPLOSION = Action.RAISED, Action.CUT, Action.NON_FINITE, Action.EXPLOSION
GATHERING, NOT_SIGNIFICANT, SPIKE = Action.GATHERING, Action.NOT_SIGNIFICANT, Action.SPIKE
AT_MAX, AT_MIN, ANNEALING = Action.AT_MAX, Action.AT_MIN, Action.ANNEALING
CLIMBING, BACKED_OFF = Action.CLIMBING, Action.BACKED_OFF
NAN, INF = math.nan, math.inf

SMALL = DefaultConfig(warmup_steps=0, window=2, significance=1.0, factor=0.5, reflex_factor=0.25)
# Powers of two times powers of ten are exact.
START = 2.0**-20
CLIMB = dataclasses.replace(SMALL, decade_steps=1, start_scale=START, min_scale=0.0, max_scale=1e30)
EVEN = [3, 5] * 4


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


def climb(losses, start=START, growth=10.0):
    """The script of a climb that goes on all the way."""
    script = []
    for loss in losses:
        start *= growth
        script.append((loss, CLIMBING, start))
    return script


# The climb.


@pytest.mark.parametrize("decade_steps", [1, 4, 10, 100])
def test_a_climb_grows_by_the_same_factor_at_every_loss(decade_steps):
    config = DefaultConfig(start_scale=0.03, decade_steps=decade_steps)
    state = rule.start(config, [0.5])
    losses = [2.0 - step / 1e9 for step in range(2 * decade_steps)]
    lrs = [state.lrs[0]] + [rule.observe(config, state, loss).lr_after[0] for loss in losses]
    assert lrs == pytest.approx([0.5 * 0.03 * 10 ** (step / decade_steps) for step in range(2 * decade_steps + 1)])
    # Step by step, to the last bit.
    follow(
        dataclasses.replace(CLIMB, decade_steps=decade_steps), climb([4, 4.001] * 15, growth=10 ** (1 / decade_steps))
    )


@pytest.mark.parametrize(
    ("settings", "lrs"),
    [
        ({}, (0.03, 0.003)),
        ({"start_scale": 0.5}, (0.5, 0.05)),
        ({"start_scale": 1.0}, (1.0, 0.1)),
        ({"min_scale": 0.25}, (0.25, 0.025)),
        ({"min_scale": [0.25, 0.0]}, (0.25, 0.003)),
        ({"min_scale": [0.25, 0.125]}, (0.25, 0.0125)),
        ({"decade_steps": 0}, (1.0, 0.1)),
        ({"decade_steps": 0, "min_scale": 1.0, "max_scale": 1.0}, (1.0, 0.1)),
        ({"total_steps": 100, "anneal": 1.0}, (1.0, 0.1)),
    ],
    ids=str,
)
def test_a_climb_starts_within_the_bounds(settings, lrs):
    config = DefaultConfig(**{"start_scale": 0.03, "decade_steps": 100, "warmup_steps": 0, **settings})
    assert rule.start(config, [1.0, 0.1]).lrs == pytest.approx(lrs, rel=1e-15)


def test_no_objection_before_the_smoothed_loss_has_settled():
    """Up by ten at every loss, so that 6 e is 16.04; the smoothed loss is at 48.9, 57.3, 66.0 after 8, 9, 10."""
    script = climb(range(0, 90, 10))
    decisions = follow(CLIMB, [*script, (90, BACKED_OFF, script[-1][2] / 8)])
    numbers = {"mean": 65.9674, "lowest": 48.9, "standard_error": 2.6726}
    assert decisions[-1].evidence == pytest.approx(numbers, rel=1e-5)
    # Nor after: of two losses there is one difference, and a loss that has not settled says nothing, however high.
    follow(CLIMB, climb([0, 1, 10, 1e3, 1e6, 1e9, 1e12]))


def test_a_loss_that_has_not_fallen_is_asked_twice_as_much():
    """After 8 to 13 losses the smoothed loss is at 4.14, 3.83 (lowest), 4.67, 5.80, 6.63, 7.75.

    The eleventh is 1.97 above the lowest, more than 3 e = 1.88; the thirteenth 3.91, more than 6 e = 3.46.
    """
    script = climb([*EVEN, 3, 7, 9, 9])
    decisions = follow(CLIMB, [*script, (11, BACKED_OFF, script[-1][2] / 8)])
    numbers = {"mean": 7.7475, "lowest": 3.8339, "standard_error": 0.57622}
    assert decisions[-1].evidence == pytest.approx(numbers, rel=1e-4)
    assert [decision.evidence for decision in decisions[:-1]] == [{}] * 12
    assert [decision.cut for decision in decisions] == [False] * 12 + [True]
    assert not any(decision.raised for decision in decisions)
    # With half the objection, twice that is what three were.
    script = climb([*EVEN, 3, 7])
    follow(dataclasses.replace(CLIMB, objection=1.5), [*script, (9, BACKED_OFF, script[-1][2] / 8)])
    # At an objection of 0 whatever is above the lowest will do.
    script = climb([*EVEN, 3])
    follow(dataclasses.replace(CLIMB, objection=0.0), [*script, (7, BACKED_OFF, script[-1][2] / 8)])


FALLEN = [*EVEN, 3, 1, 3, 1, -1, 1, -1, 1]
"""The smoothed loss is 2.52 below where it settled after the thirteenth, and lowest at 0.84 after the fifteenth."""


def test_a_loss_that_has_fallen_is_asked_once():
    """Then 1.42, 2.32 and 2.99: 0.57, 1.48 and 2.15 above the lowest. At 3 e = 1.60 it objects."""
    script = climb([*FALLEN, 3, 5])
    decisions = follow(CLIMB, [*script, (5, BACKED_OFF, script[-1][2] / 8)])
    numbers = {"mean": 2.9901, "lowest": 0.84135, "standard_error": math.sqrt(2 / 7)}
    assert decisions[-1].evidence == pytest.approx(numbers, rel=1e-4)


def test_it_may_have_fallen_long_ago():
    """Fallen is fallen: the smoothed loss need not be low any more when it objects."""
    state = rule.start(CLIMB, [1.0])
    fell = []
    for loss in [*FALLEN, 3, 5, 5]:
        rule.observe(CLIMB, state, loss)
        fell.append(state.fell)
    assert fell == [False] * 12 + [True] * 7
    assert state.total / state.weight > state.first - 2.2678  # by itself it would not count as fallen now


# The ninth lifts the smoothed loss to 5.73, and the tenth by 4.31; 6 e is 4.13 then, and the line is at 16.65.
RISING = [*EVEN, 10, 16]


@pytest.mark.parametrize(
    ("reached", "back_off", "share"),
    [
        (0.5, 4.0, lambda s: s / 4),  # below the learning rate that was given: no choice
        (3.0, 4.0, lambda s: s / 4),
        (4.0, 4.0, lambda s: 1.0),
        (6.0, 4.0, lambda s: 1.0),  # the learning rate that was given is between 6/8 and 6/4
        (8.0, 4.0, lambda s: 1.0),
        (40.0, 4.0, lambda s: s / 8),  # far above: nearest to it
        (6.0, 2.0, lambda s: s / 4),
        (3.0, 2.0, lambda s: 1.0),
        (1.0, 1.5, lambda s: s / 1.5),
        (1e3, 100.0, lambda s: s / 200),
    ],
)
def test_backs_off_to_a_part_or_to_the_learning_rate_that_was_given(reached, back_off, share):
    start = reached / 1e9
    config = dataclasses.replace(CLIMB, start_scale=start, back_off=back_off)
    script = climb(RISING[:-1], start)
    assert script[-1][2] == pytest.approx(reached)
    s = script[-1][2]
    expected = min(max(1.0, s / (2 * back_off)), s / back_off)  # for those on the edge, in the same arithmetic
    assert expected == pytest.approx(share(reached))
    follow(config, [*script, (16, BACKED_OFF, expected)])


def test_backs_off_within_the_bounds():
    config = dataclasses.replace(CLIMB, start_scale=0.03, min_scale=0.0078125)
    follow(config, [(NAN, NON_FINITE, 0.03), (NAN, NON_FINITE, 0.0078125)])
    config = dataclasses.replace(config, min_scale=[0.0078125, 0.0])
    state = rule.start(config, [1.0, 1.0])
    assert [rule.observe(config, state, NAN).lr_after for _ in range(2)] == [(0.03, 0.03), (0.0078125, 0.0075)]


def test_after_the_climb_it_listens():
    script = climb(RISING[:-1])
    lr = script[-1][2] / 8
    script += [
        (16, BACKED_OFF, lr),
        (20, GATHERING, lr),  # the first window begins here
        (22, GATHERING, lr),
        (3, GATHERING, lr),
        (5, RAISED, 2 * lr),  # compared by windows, and down by more than their standard error
        (20, SPIKE, 2 * lr),
        (30, EXPLOSION, lr / 2),
        (NAN, NON_FINITE, lr / 8),  # by reflex_factor: there is nothing more to back off from
    ]
    follow(CLIMB, script)


def test_one_bad_batch_does_not_end_the_climb():
    """The line is 4.14 + 6√2 = 12.63; above it, a loss is held against no one, and the climb waits."""
    for bad in (20, 1e3, 1e6, 1e150, 1e308):
        script = climb(EVEN)
        lr = script[-1][2]
        # The same as without it, from here on: up to 2.79 above the lowest, 6 e at 3.70, and then 3.91 and 3.46.
        script += [(bad, SPIKE, lr), *climb([3, 7], lr), (bad, SPIKE, lr * 100), *climb([9, 9], lr * 100)]
        decisions = follow(CLIMB, [*script, (11, BACKED_OFF, lr * 1e4 / 8)])
        assert decisions[8].evidence == {"ceiling": pytest.approx(29 / 7 + 6 * math.sqrt(2))}
        assert decisions[-1].evidence["mean"] == pytest.approx(7.7475, rel=1e-4)


def test_two_in_a_row_do():
    script = climb(EVEN)
    lr = script[-1][2]
    script += [
        (13, SPIKE, lr),
        (30, EXPLOSION, lr / 8),  # as after an objection; the line is at 30 + 6√2 = 38.49 from here on
        (39, EXPLOSION, lr / 32),  # the third in a row, and higher still: by reflex_factor
        (47, GATHERING, lr / 32),  # below 39 + 6√2
        (46, GATHERING, lr / 32),
    ]
    decisions = follow(CLIMB, script)
    assert decisions[9].evidence == {"ceiling": pytest.approx(29 / 7 + 6 * math.sqrt(2))}
    assert decisions[10].evidence == {"ceiling": pytest.approx(30 + 6 * math.sqrt(2))}
    assert decisions[9].cut
    # One that is not finite counts as one of the two.
    follow(CLIMB, [*climb(EVEN), (NAN, NON_FINITE, lr), (13, EXPLOSION, lr / 8), (30, EXPLOSION, lr / 32)])
    follow(CLIMB, [*climb(EVEN), (13, SPIKE, lr), (NAN, NON_FINITE, lr / 8), (30, EXPLOSION, lr / 32)])
    # What is extraordinary is a setting: at 9 the line is at 16.87. This is 3.34 more, and 6 e is 3.21.
    follow(dataclasses.replace(CLIMB, spike=9.0), [*climb(EVEN), (16.5, BACKED_OFF, lr / 8)])
    follow(CLIMB, [*climb(EVEN), (16.5, SPIKE, lr), (16.5, EXPLOSION, lr / 8)])


def test_several_bad_batches_below_the_line_end_the_climb_by_objection():
    """Twelve is 2.12, 3.64 and 4.74 above, and 6 e is 3.21, 4.97 and 4.65."""
    script = climb([*EVEN, 12, 12])
    follow(CLIMB, [*script, (12, BACKED_OFF, script[-1][2] / 8)])


def test_there_is_no_line_before_the_smoothed_loss_has_settled():
    script = climb(EVEN[:7])
    follow(CLIMB, [*script, *climb([1e6], script[-1][2])])


def test_the_line_of_the_climb_holds_until_the_first_window():
    # After an objection it is above the loss that objected: 16 + 6√3.3125 = 26.92.
    script = climb(RISING[:-1])
    lr = script[-1][2] / 8
    script += [(16, BACKED_OFF, lr), (26.9, GATHERING, lr), (26.95, SPIKE, lr), (26.95, EXPLOSION, lr / 4)]
    # The window began anew, and the line is 26.95 + 6√3.3125 = 37.87.
    script += [(37.8, GATHERING, lr / 4), (37.9, SPIKE, lr / 4), (37.8, GATHERING, lr / 4)]
    # There is a window now, without any noise of its own: 37.8 · 1.06 = 40.07.
    script += [(40, GATHERING, lr / 4), (40.1, SPIKE, lr / 4), (40, CUT, lr / 8)]
    follow(CLIMB, script)
    # Or above the smoothed loss, if that is higher: here the noise comes down until 3.57 above the lowest is enough.
    state = rule.start(CLIMB, [1.0])
    decisions = [rule.observe(CLIMB, state, loss) for loss in [*EVEN, 12, 12, *[7.7] * 8]]
    objected = next(decision for decision in decisions if decision.action is BACKED_OFF)
    assert objected.evidence["mean"] > objected.loss == 7.7
    assert state.ceiling == pytest.approx(objected.evidence["mean"] + 6 * math.sqrt(state.noise), rel=1e-12)
    # After the upper bound it is where it was: at 10⁷ it is reached with the ninth loss, and the tenth ends the climb.
    config = dataclasses.replace(CLIMB, start_scale=0.01, max_scale=1e7)
    state = rule.start(config, [1.0])
    for loss in [*EVEN, 3, 5]:
        assert rule.observe(config, state, loss).action is CLIMBING
    assert not state.climbing
    line = state.total / state.weight + 6 * math.sqrt(2)
    assert state.ceiling == pytest.approx(line)
    assert [rule.observe(config, state, line + 0.1).action for _ in range(2)] == [SPIKE, EXPLOSION]


def test_a_spike_where_the_annealing_starts_does_not_prolong_the_climb():
    config = dataclasses.replace(CLIMB, total_steps=20, anneal=0.5, min_scale=0.0)
    script = climb([*EVEN, 3])
    lr = script[-1][2]
    follow(config, [*script, (99, SPIKE, lr), (3, ANNEALING, lr * 0.9), (3, ANNEALING, lr * 0.8)])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("at", [0, 3, 7, 8, 12])
def test_two_losses_in_a_row_that_are_not_finite_end_the_climb(bad, at):
    """One may be a bad batch, the very first one too: the climb waits, and what it knows is what it was."""
    script = climb((EVEN * 2)[:at])
    reached = script[-1][2] if script else START
    lr = min(max(1.0, reached / 8), reached / 4)
    after = [(3, GATHERING, lr), (5, GATHERING, lr), (0, GATHERING, lr), (2, RAISED, 2 * lr)]
    decisions = follow(CLIMB, [*script, (bad, NON_FINITE, reached), (bad, NON_FINITE, lr), *after])
    assert decisions[at].evidence == decisions[at + 1].evidence == {}
    assert (decisions[at].cut, decisions[at + 1].cut) == (False, True)
    one_by_one = [*script, (bad, NON_FINITE, reached), *climb([4], reached), (bad, NON_FINITE, reached * 10)]
    follow(CLIMB, [*one_by_one, *climb([4, 4], reached * 10)])


def test_the_climb_ends_at_the_upper_bound():
    config = dataclasses.replace(CLIMB, start_scale=0.0625, max_scale=2.0)
    script = [
        (1, CLIMBING, 0.625),
        (1, CLIMBING, 2.0),  # clamped
        (1, CLIMBING, 2.0),  # nothing changes any more: over
        *[(13, GATHERING, 2.0), (15, GATHERING, 2.0), (10, GATHERING, 2.0), (12, AT_MAX, 2.0)],
        *[(13, GATHERING, 2.0), (15, CUT, 1.0)],
    ]
    follow(config, script)
    # It may still object at the bound, while the climb goes on.
    follow(config, [*script[:2], (NAN, NON_FINITE, 2.0), (NAN, NON_FINITE, 0.5)])
    follow(config, [*script[:3], (NAN, NON_FINITE, 0.5)])  # by reflex_factor, which is as much here
    config = dataclasses.replace(config, back_off=8.0)
    follow(config, [*script[:2], (NAN, NON_FINITE, 2.0), (NAN, NON_FINITE, 0.25)])
    follow(config, [*script[:3], (NAN, NON_FINITE, 0.5)])


def test_never_above_the_learning_rate_that_was_given():
    config = dataclasses.replace(CLIMB, start_scale=0.0625, max_scale=1.0)
    script = [(1, CLIMBING, 0.625), (1, CLIMBING, 1.0), (1, CLIMBING, 1.0)]
    script += [(3, GATHERING, 1.0), (5, GATHERING, 1.0), (0, GATHERING, 1.0), (2, AT_MAX, 1.0)]
    follow(config, script)
    # Nowhere to climb at all.
    follow(dataclasses.replace(config, start_scale=1.0), [(1, CLIMBING, 1.0), (3, GATHERING, 1.0), (5, GATHERING, 1.0)])
    r = random.Random(0)
    config = DefaultConfig(max_scale=1.0)
    state = rule.start(config, [0.1])
    assert max(rule.observe(config, state, 4 - step / 500 + r.gauss(0, 0.1)).lr_after[0] for step in range(2000)) == 0.1


def test_without_a_climb():
    state = rule.start(SMALL, [1.0])
    assert (state.climbing, state.lrs) == (False, (1.0,))
    follow(SMALL, windows(((3, 5), GATHERING, 1.0), ((0, 2), RAISED, 2.0)))


def test_the_climb_ends_where_the_annealing_starts():
    config = dataclasses.replace(CLIMB, total_steps=8, anneal=0.5)
    script = climb([1] * 3)
    top = START * 1e4
    script += [
        (1, ANNEALING, top),  # step 4: grown once more, and the next optimizer step is the first of the last four
        (1, ANNEALING, top * 0.75),
        (1, ANNEALING, top * 0.5),
        (NAN, NON_FINITE, top / 4 * 0.25),  # reflex_factor; and nothing is left to back off from
        (1, ANNEALING, 0.0),
        (1, Action.OVER, 0.0),
    ]
    follow(config, script)
    # An objection at that very step is one.
    config = dataclasses.replace(CLIMB, total_steps=20, anneal=0.5)
    script = climb(RISING[:-1])
    lr = script[-1][2] / 8
    follow(config, [*script, (16, BACKED_OFF, lr), (3, ANNEALING, lr * 0.9), (5, ANNEALING, lr * 0.8)])
    # If all is annealed, there is none.
    config = dataclasses.replace(CLIMB, start_scale=0.0625, total_steps=4, anneal=1.0)
    follow(config, [(1, ANNEALING, 0.75), (1, ANNEALING, 0.5), (1, ANNEALING, 0.25)])


def test_groups_with_different_bounds_climb_apart():
    """The scale goes as far as the widest bounds; each group stays within its own."""
    config = dataclasses.replace(CLIMB, start_scale=0.125, min_scale=[0.5, 0.0], max_scale=[2.0, 16.0])
    state = rule.start(config, [1.0, 1.0])
    lrs = [state.lrs] + [rule.observe(config, state, loss).lr_after for loss in (1, 1, 1, NAN, NAN, NAN, NAN)]
    assert lrs[:4] == [(0.5, 0.125), (1.25, 1.25), (2.0, 12.5), (2.0, 16.0)]
    assert lrs[4:] == [(2.0, 16.0), (2.0, 2.0), (0.5, 0.5), (0.5, 0.125)]  # 16/8, then by reflex_factor


def test_a_reward_climbs_likewise():
    config = dataclasses.replace(CLIMB, mode="max")
    script = climb([-loss for loss in [*FALLEN, 3, 5]])
    decisions = follow(config, [*script, (-5, BACKED_OFF, script[-1][2] / 8)])
    numbers = {"mean": -2.9901, "lowest": -0.84135, "standard_error": math.sqrt(2 / 7)}
    assert decisions[-1].evidence == pytest.approx(numbers, rel=1e-4)
    script = climb(EVEN)
    lr = script[-1][2]
    follow(config, [*script, (NAN, NON_FINITE, lr), (NAN, NON_FINITE, lr / 8)])


@pytest.mark.parametrize("level", [0.0, 4.0, -4.0, 1 / 3, 1e-200, -1e100, 1e300])
@pytest.mark.parametrize("decade_steps", [10, 100, 333])
def test_constant_losses_never_object_and_are_no_consent(level, decade_steps):
    config = DefaultConfig(decade_steps=decade_steps)
    state = rule.start(config, [1.0])
    decisions = [rule.observe(config, state, level) for _ in range(6 * decade_steps + 100)]
    held = decisions[config.settled :]
    assert {decision.action for decision in held} == {Action.SILENT}
    assert {decision.lr_after for decision in held} == {decisions[config.settled - 1].lr_after}
    # It goes on with the first loss that is another one.
    assert rule.observe(config, state, level * 0.999 - 1e-3).action is CLIMBING


def test_a_signal_that_speaks_seldom_holds_in_between():
    config = DefaultConfig(decade_steps=100, mode="max")
    state = rule.start(config, [1.0])
    rewards = [float(step % 100 == 99) for step in range(1000)]
    actions = [rule.observe(config, state, reward).action for reward in rewards]
    assert actions.count(Action.SILENT) > 50
    assert state.scale < 1.0


@pytest.mark.parametrize("rise", [0.05, 0.09])
def test_calm_losses_may_rise_by_a_share_of_themselves(rise):
    """Four, without any noise: its noise is taken to be 0.04, so 6 e is 0.0907; a rise of its own makes more."""
    config = dataclasses.replace(CLIMB, decade_steps=30)
    state = rule.start(config, [1.0])
    for loss in [4.0] * 9 + [4.0 + rise] * 40:
        assert rule.observe(config, state, loss).action in {CLIMBING, Action.SILENT}


@pytest.mark.parametrize(("level", "noise", "most"), [(2.0, 0.0, 0), (2.0, 0.01, 0), (2.0, 0.3, 15), (0.0, 3.0, 15)])
def test_few_climbs_end_because_of_noise_alone(level, noise, most):
    """Of a hundred climbs by two decades, while the loss neither falls nor rises: 13 where the noise is seen."""
    config = DefaultConfig(start_scale=0.03, decade_steps=100, objection=3.0, max_scale=3.0)
    ended = 0
    for seed in range(100):
        r = random.Random(seed)
        state = rule.start(config, [1.0])
        ended += BACKED_OFF in {rule.observe(config, state, level + r.gauss(0, noise)).action for _ in range(250)}
    assert ended <= most


@pytest.mark.parametrize("growth", [1.02, 1.1, 1.3, 1.5, 1.8, 2.0, 3.0, 10.0, 1e3])
def test_a_loss_that_grows_without_end_ends_the_climb(growth):
    """Soon: if it grows too fast for the smoothed loss, then by two in a row."""
    config = DefaultConfig(start_scale=0.03, decade_steps=100)
    for seed in range(5):
        r = random.Random(seed)
        state = rule.start(config, [1.0])
        for _ in range(60):
            rule.observe(config, state, 2 + r.gauss(0, 0.1))
        loss = 2.0
        while state.climbing:
            loss *= growth
            rule.observe(config, state, loss)
        assert loss <= max(20, 2 * growth**2)
        assert state.scale < 0.1


# Listening.


def test_moves_by_the_same_factor_both_ways():
    script = windows(
        ((13, 15), GATHERING, 1.0),  # the first window has nothing before it
        ((10, 12), RAISED, 2.0),
        ((7, 9), RAISED, 4.0),
        ((10, 12), CUT, 2.0),
        ((13, 15), CUT, 1.0),
        ((16, 18), CUT, 0.5),
        ((10, 12), RAISED, 1.0),
    )
    follow(SMALL, script)


def test_only_significant_differences_count():
    script = windows(
        ((3, 5), GATHERING, 1.0),
        ((2, 4), NOT_SIGNIFICANT, 1.0),  # 1 < √2
        ((3, 5), NOT_SIGNIFICANT, 1.0),
        ((1.5, 3.5), RAISED, 2.0),  # 1.5 > √2
        ((2.9, 4.9), NOT_SIGNIFICANT, 2.0),  # 1.4 < √2
        ((4.4, 6.4), CUT, 1.0),
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
    script = windows(((3, 5), GATHERING, 1.0), ((3, 5.01), CUT, 0.5), ((3, 5), RAISED, 1.0))
    follow(dataclasses.replace(SMALL, significance=0.0), script)


def test_windows_do_not_overlap():
    config = DefaultConfig(warmup_steps=0, window=3, factor=0.5)
    script = windows(((1, 2, 3), GATHERING, 1.0), ((4, 5, 6), CUT, 0.5), ((7, 8, 9), CUT, 0.25))
    follow(config, script)


def test_at_the_bounds():
    config = dataclasses.replace(SMALL, min_scale=0.4, max_scale=3.0)
    script = windows(
        ((13, 15), GATHERING, 1.0),
        ((10, 12), RAISED, 2.0),
        ((7, 9), RAISED, 3.0),  # clamped
        ((4, 6), AT_MAX, 3.0),
        ((7, 9), CUT, 1.5),  # the scale has not wound up beyond the bound
        ((10, 12), CUT, 0.75),
        ((13, 15), CUT, 0.4),
        ((16, 18), AT_MIN, 0.4),
        ((13, 15), RAISED, 0.8),
    )
    follow(config, script)


def test_bounds_of_each_group():
    config = dataclasses.replace(SMALL, min_scale=[0.5, 0.0], max_scale=[2.0, 4.0])
    state = rule.start(config, [0.1, 1.0])
    lrs = []
    for losses in ((13, 15), (10, 12), (7, 9), (4, 6), (7, 9), (10, 12), (13, 15), (16, 18)):
        lrs.append([rule.observe(config, state, loss).lr_after for loss in losses][-1])
    assert lrs == [(0.1, 1.0), (0.2, 2.0), (0.2, 4.0), (0.2, 4.0), (0.2, 2.0), (0.1, 1.0), (0.05, 0.5), (0.05, 0.25)]
    assert rule.observe(config, state, 19).lr_after == (0.05, 0.25)
    assert rule.observe(config, state, 21).lr_after == (0.05, 0.125)


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
    script = [*windows(((0, 0), GATHERING, 1.0)), (0, GATHERING, 1.0), (math.nextafter(0, 1), SPIKE, 1.0)]
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
        (36, CUT, 0.125),  # (38, 36) against (3, 5); its ceiling is 37 + 6√2 ≈ 45.5
        (4, GATHERING, 0.125),
        (6, RAISED, 0.25),
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
        (52, CUT, 0.0078125),
    ]
    follow(SMALL, script)


def test_calm_losses_are_taken_to_have_a_noise_of_a_hundredth():
    """The line is at 4 · 1.06 = 4.24 above a window without any noise."""
    calm = windows(((4, 4), GATHERING, 1.0))
    follow(SMALL, [*calm, (4.23, GATHERING, 1.0), (4.23, CUT, 0.5)])
    follow(SMALL, [*calm, (4.25, SPIKE, 1.0), (4.23, GATHERING, 1.0)])
    # Above what exploded too: to 5 · 1.06 = 5.3, and for a negative level by as much of its size.
    follow(SMALL, [*calm, (4.25, SPIKE, 1.0), (5, EXPLOSION, 0.25), (5.29, GATHERING, 0.25)])
    follow(SMALL, [*calm, (4.25, SPIKE, 1.0), (5, EXPLOSION, 0.25), (5.31, EXPLOSION, 0.0625)])
    negative = windows(((-4, -4), GATHERING, 1.0))
    follow(SMALL, [*negative, (-3.77, GATHERING, 1.0)])
    follow(SMALL, [*negative, (-3.75, SPIKE, 1.0)])
    # Where the noise is more than a hundredth, it decides: (3.9, 4.1) has 0.141, and the line is at 4.849.
    noisy = windows(((3.9, 4.1), GATHERING, 1.0))
    follow(SMALL, [*noisy, (4.84, GATHERING, 1.0)])
    follow(SMALL, [*noisy, (4.86, SPIKE, 1.0)])


@pytest.mark.parametrize("settings", [{"decade_steps": 100}, {}, {"window": 20}], ids=str)
def test_losses_rounded_to_half_precision_set_off_no_explosion(settings):
    """Near 2.3, bfloat16 has steps of 0.0156: with a noise of 0.003 most windows are of one value alone."""
    for seed in range(10):
        torch.manual_seed(seed)
        losses = (2.3 + 0.003 * torch.randn(3000)).to(torch.bfloat16).tolist()
        assert len(set(losses)) <= 3
        config = DefaultConfig(**settings)
        state = rule.start(config, [1.0])
        seen = {rule.observe(config, state, loss).action for loss in losses}
        assert not seen & {SPIKE, EXPLOSION, BACKED_OFF}


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
        (3.5, RAISED, 0.0078125),
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


def test_annealing():
    config = dataclasses.replace(SMALL, total_steps=10, anneal=0.4, min_scale=0.1)
    script = [
        *windows(((13, 15), GATHERING, 1.0), ((10, 12), RAISED, 2.0)),
        (9, GATHERING, 2.0),
        (7, ANNEALING, 2.0),  # step 6: the next optimizer step is the first of the last four, at 4/4
        (1, ANNEALING, 1.5),
        (2, ANNEALING, 1.0),
        (NAN, NON_FINITE, 0.125),
        (1, ANNEALING, 0.1),  # the floor, and it stays there
        (2, Action.OVER, 0.1),
        (3, Action.OVER, 0.1),
        (9, SPIKE, 0.1),
    ]
    follow(config, script)


def test_a_window_that_lies_in_the_warmup_moves_nothing():
    """The newer of two does not end in it, nor begin in it."""
    config = dataclasses.replace(SMALL, warmup_steps=3)
    script = [(20, Action.WARMING_UP, math.sqrt(2 / 3)), (22, Action.WARMING_UP, 1.0), (13, GATHERING, 1.0)]
    script += [(15, NOT_SIGNIFICANT, 1.0), *windows(((10, 12), RAISED, 2.0), ((13, 15), CUT, 1.0))]
    follow(config, script)
    long = dataclasses.replace(SMALL, warmup_steps=100)
    state = rule.start(long, [1.0])
    for step in range(100):
        rule.observe(long, state, 1000.0 - 9 * step)
    assert (state.scale, state.lrs) == (1.0, (1.0,))


def test_annealing_of_everything_and_of_nothing():
    config = dataclasses.replace(SMALL, total_steps=4, anneal=1.0, min_scale=0.0)
    assert rule.start(config, [1.0]).lrs == (1.0,)
    follow(
        config,
        [(1, ANNEALING, 0.75), (2, ANNEALING, 0.5), (3, ANNEALING, 0.25), (4, ANNEALING, 0.0), (5, Action.OVER, 0)],
    )
    config = dataclasses.replace(SMALL, total_steps=2, anneal=0.0)
    follow(config, windows(((3, 5), GATHERING, 1.0), ((0, 2), RAISED, 2.0)))


def test_no_comparison_moves_during_the_annealing():
    """But the reflexes do, and what was compared is told all the same."""
    config = dataclasses.replace(SMALL, total_steps=8, anneal=1.0, min_scale=0.0)
    script = [(loss, ANNEALING, 1 - step / 8) for step, loss in enumerate((13, 15, 10, 12), start=1)]
    script += [(30, SPIKE, 3 / 8), (40, EXPLOSION, 0.25 * 2 / 8), (NAN, NON_FINITE, 0.0625 / 8)]
    decisions = follow(config, script)
    assert decisions[3].evidence["previous_mean"] == 14.0


@pytest.mark.parametrize("window", range(2, 8))
@pytest.mark.parametrize("spike_at", range(1, 7))
def test_annealing_starts_on_time_wherever_the_windows_end(window, spike_at):
    config = DefaultConfig(warmup_steps=0, window=window, total_steps=20, anneal=0.5, min_scale=0.0)
    state = rule.start(config, [1.0])
    lrs = [rule.observe(config, state, 1e9 if step == spike_at + window else 4).lr_after[0] for step in range(1, 21)]
    assert lrs == [1.0] * 9 + [(20 - step) / 10 for step in range(10, 21)]


def test_reward():
    config = dataclasses.replace(SMALL, mode="max")
    script = [
        *windows(((3, 5), GATHERING, 1.0), ((6, 8), RAISED, 2.0), ((3, 5), CUT, 1.0)),
        (-4.5, SPIKE, 1.0),
        (-5, EXPLOSION, 0.25),
    ]
    decisions = follow(config, script)
    assert decisions[3].evidence == {"mean": 7.0, "previous_mean": 4.0, "standard_error": pytest.approx(math.sqrt(2))}
    assert decisions[6].evidence == {"ceiling": pytest.approx(4 - 6 * math.sqrt(2))}


def test_raised_and_cut_say_what_the_loss_did():
    script = [
        *windows(((3, 5), GATHERING, 1.0), ((0, 2), RAISED, 2.0), ((3, 5), CUT, 1.0)),
        (NAN, NON_FINITE, 0.25),
        (20, SPIKE, 0.25),
        (30, EXPLOSION, 0.0625),
    ]
    decisions = follow(SMALL, script)
    assert [decision.raised for decision in decisions] == [False] * 3 + [True] + [False] * 5
    assert [decision.cut for decision in decisions] == [False] * 5 + [True, True, False, True]
    annealed = follow(DefaultConfig(warmup_steps=0, total_steps=2, anneal=1.0), [(1, ANNEALING, 0.5)])
    assert not annealed[0].cut


@pytest.mark.parametrize("joins", range(12))
@pytest.mark.parametrize("config", [dataclasses.replace(CLIMB, max_scale=2.0, decade_steps=2, start_scale=0.03), SMALL])
def test_a_group_that_joins_late_is_as_if_it_had_been_there(config, joins):
    early, late = rule.start(config, [1.0, 0.1]), rule.start(config, [1.0])
    losses = [13, 15, 10, 12, 10, 12, 30, NAN, 30, 31, 9, 9, 5]
    for loss in losses[:joins]:
        rule.observe(config, early, loss)
        rule.observe(config, late, loss)
    rule.add_group(config, late, 0.1)
    assert late.lrs == early.lrs
    for loss in losses[joins:]:
        assert repr(rule.observe(config, late, loss)) == repr(rule.observe(config, early, loss))
    assert late == early


def test_group_with_learning_rate_zero():
    state = rule.start(SMALL, [0.0, 1.0])
    assert [rule.observe(SMALL, state, loss).lr_after for loss in (3, 5, 0, 2)][-1] == (0.0, 2.0)


def test_advance_is_observe_without_the_decision():
    climbs = climb(RISING[:-1])
    listens = windows(((3, 5), GATHERING, 1.0), ((0, 2), RAISED, 2.0), ((3, 5), CUT, 1.0))
    for config, script in ((CLIMB, [*climbs, (16, BACKED_OFF, None)]), (SMALL, listens)):
        one, other = rule.start(config, [1.0]), rule.start(config, [1.0])
        assert rule.advancer(config) is default.advance
        for loss, action, _ in script:
            assert default.advance(config, one, loss) is rule.observe(config, other, loss).action is action
        assert one == other


EXTREME = [
    [1e200, 3e200, 2e200],
    [-1.7e308, 1.7e308, 1.7e308],
    [1.7e308, -1.7e308, 9e307],
    [0.0, 0.0, 1e154],
]


@pytest.mark.parametrize("losses", EXTREME, ids=str)
def test_recovers_from_extreme_losses(losses):
    config = DefaultConfig(warmup_steps=0, window=3)
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
    config = DefaultConfig(warmup_steps=0, window=20)
    state = rule.start(config, [1.0])
    for loss in [0.0] + [1e153] * 19:
        rule.observe(config, state, loss)
    assert state.variance == INF
    assert math.isfinite(state.mean)


LARGEST = 1.7976931348623157e308


@pytest.mark.parametrize("at", [0, 1, 7, 8, 9, 20])
@pytest.mark.parametrize("losses", [*EXTREME, [1e308], [LARGEST] * 30, [-LARGEST, LARGEST] * 15], ids=str)
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_climb_through_extreme_losses_leaves_numbers_behind(losses, at, mode):
    config = dataclasses.replace(CLIMB, mode=mode, decade_steps=5, max_scale=1e300)
    state = rule.start(config, [1.0])
    r = random.Random(at)
    for loss in [2 + r.gauss(0, 0.1) for _ in range(at)] + losses + [2 + r.gauss(0, 0.1) for _ in range(200)]:
        decision = rule.observe(config, state, loss)
        json.dumps(plain.to_dict(state), allow_nan=False)
        data = [value for value in plain.to_dict(state).values() if isinstance(value, float)]
        assert not any(map(math.isnan, [*data, *decision.evidence.values()]))
        assert decision.lr_after[0] > 0
        assert math.isfinite(decision.lr_after[0])
