"""What a validation loss grants and what it cuts, decision by decision on sequences that can be followed by hand."""

import dataclasses
import json
import math

import pytest

from greedylr.control import checkpoint, rule
from greedylr.control.decision import CUTS, Action
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig

NAN, INF = math.nan, math.inf
GATHERING, CATCHING_UP, ROSE = Action.GATHERING, Action.CATCHING_UP, Action.VALIDATION_ROSE

PLAIN = DefaultConfig(
    warmup_steps=0, total_steps=400, anneal=0.0, catch_up_steps=1, window=50, min_scale=0.0, max_scale=1e6
)
"""Catching up is tenfold in one step."""
WAITS = dataclasses.replace(PLAIN, await_validation=True)
OPEN = dataclasses.replace(WAITS, total_steps=None)
FAR = 1e-6
"""A slope with which a step promises next to nothing."""


def follow(config, script, loss=4.0):
    """Check every decision of a script of (validations before it, slope, action, learning rate)."""
    state = rule.start(config, [1.0])
    for step, (validations, slope, action, lr) in enumerate(script, start=1):
        for validation in validations:
            rule.validate(config, state, validation)
        decision = rule.observe(config, state, loss, slope)
        assert (decision.step, decision.action, decision.lr_after[0]) == (step, action, lr)
    return state, decision


def test_what_is_clearly_above_the_lowest_halves_at_the_next_loss():
    _, decision = follow(
        WAITS,
        [
            ([], NAN, GATHERING, 1.0),
            ([3.0], NAN, GATHERING, 1.0),  # the first there is
            ([2.0], NAN, GATHERING, 1.0),
            ([2.0], NAN, GATHERING, 1.0),  # neither
            ([2.009], NAN, GATHERING, 1.0),  # by less than a hundredth of what it has fallen
            ([2.5], NAN, ROSE, 0.5),
            ([], NAN, GATHERING, 0.5),  # once
            ([2.25], NAN, ROSE, 0.25),  # lower than the last, and not than the lowest
            ([1.5], NAN, GATHERING, 0.25),
            ([1.514], NAN, GATHERING, 0.25),
            ([1.516], NAN, ROSE, 0.125),
        ],
    )
    assert decision.evidence == {"validation": 1.516, "lowest_validation": 1.5}
    assert decision.cut
    assert ROSE in CUTS


def test_one_that_has_never_fallen_cuts_by_any_rise():
    follow(WAITS, [([3.0], NAN, GATHERING, 1.0), ([3.0], NAN, GATHERING, 1.0), ([3.0 + 1e-9], NAN, ROSE, 0.5)])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_is_not_finite_is_worse_than_any_other(bad):
    follow(WAITS, [([bad], NAN, GATHERING, 1.0), ([3.0], NAN, GATHERING, 1.0), ([bad], NAN, ROSE, 0.5)])


def test_more_than_one_between_two_losses_cuts_once():
    follow(WAITS, [([3.0, 4.0, 5.0, 6.0], NAN, ROSE, 0.5), ([3.5, 2.0], NAN, ROSE, 0.25)])


def test_awaited_nothing_rises_before_it_falls_and_then_by_twice():
    follow(
        OPEN,
        [
            ([], FAR, GATHERING, 1.0),
            ([3.0], FAR, GATHERING, 1.0),  # there is nothing to compare it with
            ([2.9], FAR, CATCHING_UP, 2.0),
            ([], FAR, GATHERING, 2.0),
            ([2.4], FAR, CATCHING_UP, 4.0),
            ([2.5], FAR, ROSE, 2.0),
            ([], FAR, GATHERING, 2.0),  # and not again before it is the lowest
            ([2.6], FAR, ROSE, 1.0),
            ([1.0], FAR, CATCHING_UP, 2.0),
        ],
    )


def test_it_rises_only_where_a_twentieth_of_what_the_steps_promised_was_kept():
    """A step at 1 promises 0.5, of a loss of 4: more than it could. (Polyak's step is 8, more than headroom.)"""
    follow(
        OPEN,
        [
            ([4.0], 0.5, GATHERING, 1.0),
            ([], 0.5, GATHERING, 1.0),
            ([3.96], 0.5, GATHERING, 1.0),  # of 1 that two steps promised
            ([], 0.5, GATHERING, 1.0),
            ([3.9], 0.5, CATCHING_UP, 2.0),
            ([], 0.5, GATHERING, 2.0),
            ([], 0.5, GATHERING, 2.0),
            ([3.8], 0.5, GATHERING, 2.0),  # of 1, at twice the learning rate, three times: since the lowest
        ],
    )


def test_it_rises_only_where_half_of_the_largest_share_was_kept():
    follow(
        OPEN,
        [
            ([4.0], 0.05, GATHERING, 1.0),
            ([3.98], 0.05, CATCHING_UP, 2.0),  # two fifths of what the step before promised
            ([], 0.05, GATHERING, 2.0),
            ([3.951], 0.05, GATHERING, 2.0),  # less than a fifth of what two did, at 1 and at 2
            ([3.9305], 0.05, CATCHING_UP, 4.0),  # a fifth
        ],
    )


def test_it_does_not_rise_where_the_run_is_long_enough_as_it_is():
    """After 8 steps of 400, the 392 that are left count for half: 4 - fell is gone after 8 (4 - fell) / fell of 196."""
    # (The smoothed slope, over four of them, is a tenth below the slope.)
    for fell, lr in ((0.178, 1.0), (0.172, 2.0)):
        state = rule.start(WAITS, [1.0])
        rule.validate(WAITS, state, 4.0)
        for _ in range(8):
            rule.observe(WAITS, state, 4.0, FAR)
        rule.validate(WAITS, state, 4.0 - fell)
        assert rule.observe(WAITS, state, 4.0, FAR).lr_after[0] == lr


def test_without_waiting_it_rises_by_itself_and_hears_nothing():
    state, _ = follow(PLAIN, [([], FAR, CATCHING_UP, 10.0), ([], FAR, CATCHING_UP, 100.0)])
    with pytest.raises(ValueError, match=r"a validation loss is heard with await_validation=True only"):
        rule.validate(PLAIN, state, 3.0)


def test_a_raise_waits_too():
    config = dataclasses.replace(OPEN, window=2)
    state = rule.start(config, [1.0])
    for loss in (4.0, 4.1, 3.0):
        rule.observe(config, state, loss)
    assert rule.observe(config, state, 3.1).action is Action.AT_MAX
    for validation in (3.0, 2.0):
        rule.validate(config, state, validation)
    rule.observe(config, state, 2.0)
    assert rule.observe(config, state, 2.1)[2:5] == (Action.RAISED, (1.0,), (1 / 0.9,))


def test_what_rises_ends_a_climb():
    config = DefaultConfig(decade_steps=50, start_scale=0.5, min_scale=0.0, await_validation=True)
    state = rule.start(config, [1.0])
    rule.observe(config, state, 4.0)
    climbed = state.scale
    assert 0.5 < climbed < 1.0
    for validation in (2.0, 3.0, 3.0):
        rule.validate(config, state, validation)
    decision = rule.observe(config, state, 2.5)
    assert (decision.action, decision.lr_after[0]) == (ROSE, pytest.approx(climbed / 4))
    assert not state.climbing


def test_it_cuts_while_it_anneals_and_beside_what_the_loss_does():
    config = dataclasses.replace(WAITS, total_steps=10, anneal=1.0)
    state = rule.start(config, [1.0])
    for validation in (2.0, 3.0, 3.0):
        rule.validate(config, state, validation)
    decision = rule.observe(config, state, 4.0)
    assert (decision.action, decision.lr_after[0]) == (ROSE, 0.45)
    rule.validate(config, state, 3.0)
    decision = rule.observe(config, state, NAN)  # both: the loss is what is told
    assert (decision.action, decision.lr_after[0]) == (Action.NON_FINITE, 0.1)


def test_at_the_lower_bound_there_is_nothing_to_cut():
    config = dataclasses.replace(WAITS, min_scale=1.0)
    follow(config, [([2.0, 3.0, 3.0], NAN, GATHERING, 1.0)])


def test_of_a_reward_what_falls_is_worse():
    config = dataclasses.replace(WAITS, mode="max")
    _, decision = follow(config, [([1.0, 2.0], NAN, GATHERING, 1.0), ([1.5, 1.5], NAN, ROSE, 0.5)])
    assert decision.evidence == {"validation": 1.5, "lowest_validation": 2.0}


def test_what_was_told_is_in_the_state():
    state, _ = follow(OPEN, [([3.0, 2.0], FAR, CATCHING_UP, 2.0)])
    for validation in (2.5, 2.5):
        rule.validate(OPEN, state, validation)
    saved = json.loads(json.dumps(checkpoint.save(OPEN, state), allow_nan=False))
    config, again = checkpoint.load(saved, "default")
    assert again == state
    assert rule.observe(config, again, 4.0, FAR) == rule.observe(OPEN, state, 4.0, FAR)
    assert again.lrs == (1.0,)
    saved["state"]["granted"] = 0.25
    with pytest.raises(ValueError, match=r"granted in the saved state must be at least scale=2\.0, got 0\.25"):
        checkpoint.load(saved, "default")


def test_the_published_algorithm_has_no_ear_for_it():
    config = PaperConfig()
    with pytest.raises(TypeError, match="the published algorithm observes one series of losses"):
        rule.validate(config, rule.start(config, [0.1]), 1.0)
