"""What a run can have come to, and when it failed."""

import math

import pytest

from .made import run


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
