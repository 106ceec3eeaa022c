"""Warmup, limit and catching up, decision by decision on sequences that can be followed by hand.

With 400 steps the memory is of four: γ = 3/4, and of a loss of 4 with a slope of 1 Polyak's step is 4 from the first.
"""

import dataclasses
import math

import pytest

from greedylr.control import rule
from greedylr.control.decision import Action
from greedylr.control.default.config import DefaultConfig

WARMING_UP, CATCHING_UP, LIMITED, ANNEALING = (
    *(Action.WARMING_UP, Action.CATCHING_UP, Action.LIMITED, Action.ANNEALING),
)
GATHERING, RAISED, CUT, AT_MAX, NON_FINITE = (
    *(Action.GATHERING, Action.RAISED, Action.CUT, Action.AT_MAX, Action.NON_FINITE),
)
NAN, INF = math.nan, math.inf

PLAIN = DefaultConfig(
    warmup_steps=0, total_steps=400, anneal=0.0, catch_up_steps=1, window=50, min_scale=0.0, max_scale=1e6
)
"""Catching up is tenfold in one step."""


def follow(config, script, initial_lrs=(1.0,)):
    """Check every decision of a script of (loss, slope, action, learning rate)."""
    state = rule.start(config, initial_lrs)
    for step, (loss, slope, action, lr) in enumerate(script, start=1):
        before = state.lrs
        decision = rule.observe(config, state, loss, slope)
        assert (decision.step, decision.action, decision.lr_after[0]) == (step, action, lr)
        assert (decision.lr_before, decision.lr_after) == (before, state.lrs)
    return state


def test_warms_up_like_a_square_root_from_the_first_step_on():
    config = dataclasses.replace(PLAIN, warmup_steps=4)
    assert rule.start(config, [1.0, 0.1]).lrs == (0.5, 0.05)
    half, three_quarters = math.sqrt(0.5), math.sqrt(0.75)
    script = [(4, NAN, WARMING_UP, half), (4, NAN, WARMING_UP, three_quarters), (4, NAN, WARMING_UP, 1.0)]
    follow(config, [*script, (4, NAN, GATHERING, 1.0)])
    assert rule.start(dataclasses.replace(PLAIN, warmup_steps=1), [1.0]).lrs == (1.0,)


def test_the_warmup_goes_on_over_what_is_extraordinary():
    config = dataclasses.replace(PLAIN, warmup_steps=4, reflex_factor=0.5)
    half, three_quarters = math.sqrt(0.5), math.sqrt(0.75)
    script = [(NAN, NAN, NON_FINITE, half / 2), (4, NAN, WARMING_UP, three_quarters / 2), (4, NAN, WARMING_UP, 0.5)]
    follow(config, [*script, (4, NAN, GATHERING, 0.5)])


def test_no_step_promises_more_than_twice_the_loss():
    follow(PLAIN, [(4, 4, GATHERING, 1.0), (4, 8, GATHERING, 1.0)])  # promises the whole loss, and not twice it
    follow(
        PLAIN,
        [
            (4, 16, LIMITED, 0.5),
            (4, 16, LIMITED, 0.5),
            (4, NAN, GATHERING, 0.5),  # what is not known changes nothing
            (NAN, 16, NON_FINITE, 0.5),  # the scale is cut to a half, which is what the limit leaves
            (4, 16, GATHERING, 0.5),
        ],
    )


def test_the_limit_lets_go():
    state = follow(PLAIN, [(4, 16, LIMITED, 0.5)])
    lrs = [rule.observe(PLAIN, state, 4, 8.5).lr_after[0] for _ in range(60)]
    assert lrs[0] == pytest.approx(2 * (0.75 * 4 + 4) / (0.75 * 16 + 8.5), rel=1e-12)
    assert lrs[-1] == pytest.approx(2 * 4 / 8.5, rel=1e-6)
    decisions = [rule.observe(PLAIN, state, 4, 1) for _ in range(6)]
    lrs = [decision.lr_after[0] for decision in decisions]
    assert lrs == sorted(lrs)
    # The last that moves it says so too: what says that it holds moves nothing.
    assert {decision.action for decision in decisions if decision.lr_after != decision.lr_before} == {LIMITED}
    assert decisions[-1].action is GATHERING
    assert lrs[-1] == 1.0


def test_a_limit_of_another_share_and_none():
    follow(dataclasses.replace(PLAIN, polyak=1.0), [(4, 16, LIMITED, 0.25)])
    follow(dataclasses.replace(PLAIN, polyak=INF), [(4, 16, GATHERING, 1.0)])


def test_grows_while_a_step_promises_a_fifth_of_the_loss_at_most():
    follow(
        PLAIN,
        [
            (4, 1 / 16, CATCHING_UP, 10.0),  # Polyak's step is 64, a fifth of that 12.8
            (4, 1 / 16, CATCHING_UP, 100.0),
            (4, 1 / 16, GATHERING, 100.0),
        ],
    )
    follow(dataclasses.replace(PLAIN, headroom=6.5), [(4, 1 / 16, CATCHING_UP, 10.0), (4, 1 / 16, GATHERING, 10.0)])
    follow(dataclasses.replace(PLAIN, catch_up_steps=0), [(4, 1 / 16, GATHERING, 1.0)])
    follow(dataclasses.replace(PLAIN, max_scale=1.0), [(4, 1 / 16, GATHERING, 1.0)])
    follow(dataclasses.replace(PLAIN, max_scale=2.0), [(4, 1 / 16, CATCHING_UP, 2.0), (4, 1 / 16, GATHERING, 2.0)])


@pytest.mark.parametrize(("warmup", "first"), [(0, 1), (1, 1), (4, 2), (5, 3)])
def test_grows_from_half_of_the_warmup_on(warmup, first):
    config = dataclasses.replace(PLAIN, warmup_steps=warmup)
    state = rule.start(config, [1.0])
    actions = [rule.observe(config, state, 4, 1 / 16).action for _ in range(5)]
    assert actions.index(CATCHING_UP) == first - 1
    assert actions.count(CATCHING_UP) == 2
    assert state.scale == 100.0


def test_what_is_heard_before_that_counts():
    """The least of Polyak's steps is one of the first: 2.5, which leaves nothing to grow."""
    config = dataclasses.replace(PLAIN, warmup_steps=8)
    warmup = [(4, 1.6 if step == 1 else 1e-9, WARMING_UP, math.sqrt((step + 1) / 8)) for step in range(1, 8)]
    follow(config, [*warmup, *[(4, 1e-9, GATHERING, 1.0)] * 9])


def test_a_gradient_that_vanishes_is_no_reason_to_grow():
    """The least of Polyak's steps counts: the loss may be where it stays."""
    follow(PLAIN, [(4, 2, GATHERING, 1.0), *[(4, 1e-9, GATHERING, 1.0)] * 90])


def test_grows_by_the_same_factor_and_within_two_fifths_of_the_run():
    config = dataclasses.replace(PLAIN, catch_up_steps=None)
    state = rule.start(config, [1.0])
    scales = []
    for _ in range(400):
        rule.observe(config, state, 1.0, 1e-9)
        scales.append(state.scale)
    assert scales[23] == pytest.approx(10.0, rel=1e-12)  # 0.06 of 400
    assert scales[-1] == PLAIN.max_scale
    slow = dataclasses.replace(PLAIN, catch_up_steps=100)
    state = rule.start(slow, [1.0])
    for _ in range(400):
        rule.observe(slow, state, 1.0, 1e-9)
    assert state.scale == pytest.approx(10 ** (159 / 100), rel=1e-12)


def test_a_raise_waits_for_the_limit():
    config = dataclasses.replace(PLAIN, window=2, significance=0.0, factor=0.5)
    falling = [4, 4, 2, 2]
    follow(config, zip(falling, [NAN] * 4, [GATHERING] * 3 + [RAISED], [1.0, 1.0, 1.0, 2.0]))
    state = follow(config, zip(falling[:3], [16.0, 16.0, 8.0], [LIMITED] * 3, [0.5] * 3))
    assert rule.observe(config, state, 2, 8.0).action is LIMITED
    assert state.scale == 1.0


def test_the_annealing_is_limited_as_well():
    config = dataclasses.replace(PLAIN, anneal=1.0)
    follow(config, [(4, 16, LIMITED, 0.5), (4, NAN, ANNEALING, 0.5)])
    follow(dataclasses.replace(config, polyak=4.0), [(4, 16, ANNEALING, 399 / 400)])


@pytest.mark.parametrize(
    ("loss", "slope"), [(-4, 16), (0, 16), (4, 0), (4, INF), (INF, 4), (4, -1), (-4, 1e-9), (-INF, 1e-9)], ids=str
)
def test_says_nothing(loss, slope):
    """Of a loss below zero nobody knows how far it can fall; without a slope no step promises anything."""
    state = rule.start(PLAIN, [1.0])
    decision = rule.observe(PLAIN, state, loss, slope)
    assert decision.lr_after[0] == (1.0 if math.isfinite(loss) else PLAIN.reflex_factor)
    assert decision.action is (GATHERING if math.isfinite(loss) else NON_FINITE)


def test_a_reward_is_not_what_the_gradient_is_of():
    config = dataclasses.replace(PLAIN, mode="max")
    follow(config, [(4, 16, GATHERING, 1.0), (-4, 16, GATHERING, 1.0), (4, 1e-9, GATHERING, 1.0)])


def test_it_says_why():
    state = rule.start(PLAIN, [1.0])
    assert rule.observe(PLAIN, state, 4, 16).evidence == {"polyak": 0.25}
    state = rule.start(PLAIN, [1.0])
    assert rule.observe(PLAIN, state, 4, 1 / 16).evidence == {"polyak": 64.0}


def test_a_limit_that_is_not_known_any_more_lets_go():
    state = follow(PLAIN, [(4, 16, LIMITED, 0.5)])
    decision = rule.observe(PLAIN, state, -100, 16)
    assert (decision.action, decision.lr_after, decision.evidence) == (LIMITED, (1.0,), {})


def test_learning_rates_set_by_hand_begin_anew():
    """The slopes so far were those at other initial learning rates."""
    state = follow(PLAIN, [(4, 16, LIMITED, 0.5)])
    rule.take_over(PLAIN, state, [0.25], [0.5])
    assert (state.initial_lrs, state.level, state.slope, state.least_polyak) == ((0.5,), 0.0, 0.0, -1.0)
    assert rule.observe(PLAIN, state, 4, 8).lr_after == (0.5,)


def test_a_climb_is_limited_and_neither_warms_up_nor_catches_up():
    config = DefaultConfig(decade_steps=1, start_scale=0.01, min_scale=0.0, warmup_steps=9, catch_up_steps=1)
    script = [(4, 1e-9, Action.CLIMBING, 0.1), (4, 1e-9, Action.CLIMBING, 1.0), (4, 80, LIMITED, None)]
    state = rule.start(config, [1.0])
    for loss, slope, action, lr in script:
        decision = rule.observe(config, state, loss, slope)
        assert decision.action is action
        assert lr is None or decision.lr_after[0] == pytest.approx(lr, rel=1e-12)
    assert state.scale == pytest.approx(10.0, rel=1e-12)
    assert state.lrs[0] < 1.0


def test_every_group_is_limited_alike():
    state = rule.start(PLAIN, [1.0, 0.125])
    assert rule.observe(PLAIN, state, 4, 16).lr_after == (0.5, 0.0625)
    bounded = dataclasses.replace(PLAIN, min_scale=[0.75, 0.0])
    state = rule.start(bounded, [1.0, 0.125])
    assert rule.observe(bounded, state, 4, 16).lr_after == (0.75, 0.0625)
