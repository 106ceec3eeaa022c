"""Every decision of the search, on losses that fall by so much at each step; the paper's Eq. 1 is what is transcribed.

Speeds are powers of two, so that the slopes of such losses are found exactly, with no error.
"""

import math

import pytest
import torch

from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.schedulers.adalrs import AdaLRS, Descent

STEPS, WARMUP, WINDOW = 500, 50, 10  # The search takes the fifteen windows from step 50 to step 200.


class Driven:
    """A scheduler on losses that are made up as it goes."""

    def __init__(self, steps=STEPS, mode="min", lrs=(0.5,)):
        self.optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs])
        self.scheduler = AdaLRS(self.optimizer, steps, steps // 10, mode)
        self.sign, self.loss = (1 if mode == "min" else -1), 1000.0

    def step(self, loss):
        self.loss = loss
        self.scheduler.step(self.sign * loss)
        return self.scheduler.scale

    def fall(self, *speeds, steps=WINDOW):
        """The scale after each of some windows."""
        scales = []
        for speed in speeds:
            for _ in range(steps):
                self.step(self.loss - speed)
            scales.append(self.scheduler.scale)
        return scales

    @property
    def lr(self):
        return self.optimizer.param_groups[0]["lr"]


@pytest.fixture
def driven():
    """At the start of the search."""
    driven = Driven()
    assert driven.fall(1.0, steps=WARMUP) == [1.0]
    return driven


def up(window):
    return pytest.approx(3 * 0.99**window)


def down(window):
    return pytest.approx(1 / (2 * 0.99**window))


def test_a_trial_begins_when_the_descent_is_no_faster_than_in_the_window_before(driven):
    assert driven.fall(0.25, 0.5, 1.0, 0.5) == [1, 1, 1, up(4)]


def test_a_trial_begins_when_the_descent_goes_on_as_it_was(driven):
    assert driven.fall(0.5, 0.5) == [1, up(2)]


def test_a_trial_that_is_faster_is_kept_and_measures_the_next(driven):
    kept = 3 * 0.99**2
    scales = driven.fall(0.5, 0.25, 0.5, 1.0, 0.5, 2.0)
    assert scales == [1, up(2), up(2), up(2), pytest.approx(kept * 3 * 0.99**5), pytest.approx(kept * 3 * 0.99**5)]


def test_a_trial_that_is_slower_ends_in_a_cut(driven):
    assert driven.fall(0.5, 0.25, 0.125) == [1, up(2), down(3)]


def test_a_trial_that_makes_no_difference_ends_where_it_began(driven):
    assert driven.fall(0.5, 0.25, 0.25) == [1, up(2), 1]


def test_after_a_cut_the_next_window_is_only_looked_at(driven):
    assert driven.fall(0.5, 0.25, 0.125, 0.03125) == [1, up(2), down(3), down(3)]
    assert driven.fall(0.03125) == [pytest.approx(3 * 0.99**5 / (2 * 0.99**3))]


def test_a_difference_within_the_errors_makes_none(driven):
    noise = [0.5, -0.5, -0.5, 0.5, 0.0, 0.0, 0.5, -0.5, -0.5, 0.5]  # in balance: the slope is that without it
    driven.fall(0.5, 0.25)
    start = driven.loss
    losses = [start - 0.28125 * step + more for step, more in enumerate(noise, 1)]
    trial = Descent.over(losses)
    assert 0.25 < trial.velocity < 0.25 + trial.error
    assert [driven.step(loss) for loss in losses] == [up(2)] * 9 + [1]


def test_two_windows_of_rising_loss_cut(driven):
    assert driven.fall(-1.0, -1.0, -1.0, -1.0) == [1, down(2), down(2), pytest.approx(1 / (4 * 0.99**6))]


def test_one_window_of_rising_loss_does_nothing(driven):
    assert driven.fall(1.0, -0.25, 0.5, -0.25, 0.5, 0.5) == [1, 1, 1, 1, 1, up(6)]


def test_a_loss_above_all_before_breaks_off_a_trial_but_nothing_else(driven):
    driven.fall(0.5)
    driven.fall(0.25, steps=WINDOW - 1)
    assert driven.step(driven.loss - 0.25) == up(2)
    assert driven.step(1000.0 - 1.0) == up(2)  # as high as at the very start
    assert driven.step(1000.0) == down(3)
    assert driven.step(2000.0) == down(3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_cuts_at_once(driven, bad):
    driven.fall(0.5)
    before = driven.loss
    assert driven.step(bad) == down(2)
    driven.loss = before
    # The window begins anew, and nothing of the loss is kept.
    assert driven.fall(0.5, 0.5) == [down(2), pytest.approx(3 * 0.99**4 / (2 * 0.99**2))]
    assert driven.step(bad) == pytest.approx(1 / (2 * 0.99**2) / (2 * 0.99**5))


@pytest.mark.parametrize("loss", [math.nan, 1e9, 1.0])
def test_nothing_is_decided_before_and_after_the_search(loss):
    driven = Driven()
    assert {driven.step(loss) for _ in range(WARMUP)} == {1}
    driven.loss = 1.0
    driven.fall(*[2.0**power for power in range(15)])
    assert {driven.step(loss) for _ in range(STEPS - 200)} == {1}


def test_a_trial_that_the_end_of_the_search_comes_upon_is_given_up(driven):
    assert driven.fall(*[2.0**power for power in range(14)], 0.5)[-2:] == [1, up(15)]
    assert driven.step(driven.loss - 1) == 1


def test_a_reward_is_a_loss_with_its_sign_changed():
    driven = Driven(mode="max")
    driven.fall(1.0, steps=WARMUP)
    assert driven.fall(0.5, 0.25, 0.125) == [1, up(2), down(3)]


def test_the_schedule_is_cosine_annealing_with_warmup_times_the_scale():
    driven, plain = Driven(), torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5)
    cosine = SCHEDULERS["cosine"].build(plain, STEPS)
    plain.step()
    scales = set()
    for step in range(STEPS):
        assert driven.lr == pytest.approx(plain.param_groups[0]["lr"] * driven.scheduler.scale, abs=1e-12)
        scales.add(driven.step(1 / (step + 1)))
        cosine.step()
    assert len(scales) > 3


def test_groups_keep_their_ratio():
    driven = Driven(lrs=(0.5, 0.125))
    for step in range(STEPS // 2):
        driven.step(1 / (step + 1))
    first, second = (group["lr"] for group in driven.optimizer.param_groups)
    assert first == pytest.approx(4 * second)
    assert driven.scheduler.scale != 1


def test_a_run_too_short_for_a_window_is_annealed_as_it_is():
    driven = Driven(steps=12)
    assert driven.fall(1.0, steps=20) == [1]
    assert driven.lr == pytest.approx(0)


def quadratic(adalrs, seed, steps=600, lr=0.5 / 30):
    """The mean curvature-weighted error after SGD with noisy gradients, and the scale at the end."""
    generator = torch.Generator().manual_seed(seed)
    curvatures = torch.logspace(-1, 0, 20)
    parameters = torch.nn.Parameter(torch.full((20,), 3.0))
    optimizer = torch.optim.SGD([parameters], lr)
    scheduler = AdaLRS(optimizer, steps, steps // 10) if adalrs else None
    for _ in range(steps):
        noise = 0.1 * torch.randn(20, generator=generator)
        loss = 0.5 * (curvatures * (parameters - noise) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step(loss.item())
    error = 0.5 * (curvatures * parameters.detach() ** 2).sum().item()
    return error, scheduler.scale if scheduler is not None else 1.0


@pytest.mark.parametrize("seed", range(3))
def test_started_thirty_times_too_low_it_goes_up_and_does_better_than_constant(seed):
    searched, scale = quadratic(True, seed)
    constant, _ = quadratic(False, seed)
    assert scale > 5
    assert searched < constant / 10
