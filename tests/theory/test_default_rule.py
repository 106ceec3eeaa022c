"""What docs/theory.md proves of the default rule: each inequality holds for the shipped rule, on random problems."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from greedylr import Action, GreedyLR
from greedylr.control import rule
from greedylr.control.default.config import DefaultConfig

SLACK = 1 + 1e-9  # for sums that are rounded
QUIET = {"significance": 1e9, "spike": 1e9}  # The gradient's limit alone: windows and reflexes do nothing.

shares = st.floats(-3, 2).map(lambda exponent: 10.0**exponent)
curvatures = st.lists(st.floats(-4, 0).map(lambda exponent: 10.0**exponent), min_size=1, max_size=5)
seeds = st.integers(0, 2**32 - 1)


def descend(config, eigenvalues, lr, steps, seed):
    """Gradient descent on a quadratic under the rule: state, squares of the point before each step, LR after it."""
    eigenvalues = np.array(eigenvalues)
    point = np.random.default_rng(seed).standard_normal(len(eigenvalues))
    state = rule.start(config, [lr])
    for _ in range(steps):
        gradient = eigenvalues * point
        loss, squares = float(gradient @ point) / 2, point * point
        point = point - state.lrs[0] * gradient
        decision = rule.observe(config, state, loss, lr * float(gradient @ gradient))
        yield state, decision, squares
        if loss == 0:
            return


@given(curvatures, shares, seeds)
def test_the_limit_is_at_least_half_the_learning_rate_that_is_stable(eigenvalues, share, seed):
    lr, config = 2 * share / max(eigenvalues), DefaultConfig(warmup_steps=0, **QUIET)
    for state, _, _ in descend(config, eigenvalues, lr, 60, seed):
        assert state.lrs[0] * SLACK >= min(lr * state.scale, 1 / max(eigenvalues))


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), shares, seeds)
def test_nor_is_it_less_where_the_loss_is_not_convex(frequencies, share, seed):
    """Of Σ 1 − cos(w x), which is at least 0, the gradient changes by at most w² times the way."""
    w = np.array(frequencies)
    smoothness = float(max(w) ** 2)
    lr, config = 2 * share / smoothness, DefaultConfig(warmup_steps=0, **QUIET)
    state = rule.start(config, [lr])
    x = np.random.default_rng(seed).standard_normal(len(w))
    for _ in range(60):
        loss, gradient = float((2 * np.sin(w * x / 2) ** 2).sum()), w * np.sin(w * x)
        x = x - state.lrs[0] * gradient
        rule.observe(config, state, loss, lr * float(gradient @ gradient))
        assert state.lrs[0] * SLACK >= min(lr * state.scale, 1 / smoothness)


@given(curvatures, shares, seeds)
def test_of_the_smoothed_loss_less_than_half_is_where_the_learning_rate_is_unstable(eigenvalues, share, seed):
    h = np.array(eigenvalues)
    config = DefaultConfig(warmup_steps=0, **QUIET)
    smoothed = np.zeros(len(h))
    for state, _, squares in descend(config, eigenvalues, 2 * share / max(h), 60, seed):
        smoothed = config.memory * smoothed + (1 - config.memory) * h * squares / 2
        lr = state.lrs[0]
        assert (smoothed * h).sum() * lr <= smoothed.sum() * SLACK
        assert smoothed[lr * h > 2].sum() <= smoothed.sum() / 2 * SLACK


@given(curvatures, st.floats(1.01, 100), seeds)
def test_it_acts_before_the_smoothed_loss_has_doubled_and_within_steps_that_can_be_told(eigenvalues, share, seed):
    h = np.array(eigenvalues)
    lr = 2 * share / max(h)
    config = DefaultConfig(warmup_steps=0, catch_up_steps=0, **QUIET)
    unstable = lr * h > 2
    slowest = float(np.abs(1 - lr * h[unstable]).min()) ** 2
    weights = 0.0
    for number, (state, decision, squares) in enumerate(descend(config, eigenvalues, lr, 10_000, seed), start=1):
        losses = h * squares / 2
        if number == 1:
            rest, growing = float(losses[~unstable].sum()), float(losses[unstable].sum())
        weights = config.memory * weights + (1 - config.memory)
        if decision.action is Action.LIMITED:
            break
        assert state.lrs == (lr,)
        assert state.level / weights <= 2 * rest * SLACK
    allowed = math.log(rest / growing / (1 - config.memory)) / math.log(slowest) if rest else -math.inf
    assert number <= max(allowed, 0) + 2


@given(curvatures, st.floats(-3, 0).map(lambda exponent: 10.0**exponent), seeds)
def test_catching_up_ends_where_a_step_is_a_fifth_of_polyaks_and_not_before_a_twentieth_of_what_is_stable(
    eigenvalues, share, seed
):
    config = DefaultConfig(catch_up_steps=20, **QUIET)
    lr = 2 * share / max(eigenvalues)
    least, steps = math.inf, 0
    for state, decision, _ in descend(config, eigenvalues, lr, 150, seed):
        steps += 1
        if state.slope > 0:
            least = min(least, lr * state.level / state.slope)
        if decision.action is Action.CATCHING_UP:
            assert decision.lr_before[0] <= least / config.headroom * SLACK
            assert state.lrs[0] <= least / config.headroom * config.catch_up * SLACK
    if steps == 150:  # Three decades take 60 steps, warmup 20.
        assert lr * state.scale * SLACK >= 1 / (2 * max(eigenvalues)) / config.headroom


@given(st.integers(1, 4), shares, seeds)
def test_at_the_learning_rate_that_is_allowed_the_steps_of_the_memory_lead_no_further_away(size, share, seed):
    """Stochastic gradients of convex losses that one point brings to zero."""
    random = np.random.default_rng(seed)
    rows, solution = random.standard_normal((8, size)), random.standard_normal(size)
    lr, config = 2 * share / float((rows**2).sum(axis=1).max()), DefaultConfig(warmup_steps=0, **QUIET)
    state = rule.start(config, [lr])
    x, towards, lengths = np.zeros(size), 0.0, 0.0
    for _ in range(60):
        row = rows[random.integers(8)]
        residual = float(row @ (x - solution))
        gradient = np.sign(residual) * row
        gamma = config.memory
        towards = gamma * towards + (1 - gamma) * float(gradient @ (x - solution))
        lengths = gamma * lengths + (1 - gamma) * float(gradient @ gradient)
        x = x - state.lrs[0] * gradient
        rule.observe(config, state, abs(residual), lr * float(gradient @ gradient))
        # Of the mean square of the distance, after and before.
        assert -2 * state.lrs[0] * towards + state.lrs[0] ** 2 * lengths <= 1e-9 * abs(towards)


@given(st.integers(1, 4), st.floats(-3, 3).map(lambda exponent: 10.0**exponent), seeds)
def test_adam_moves_a_weight_at_most_twice_as_far_as_the_solution_is_away(size, lr, seed):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(8, size, generator=random, dtype=torch.float64)
    solution = torch.randn(size, generator=random, dtype=torch.float64)
    x = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([x], lr)
    scheduler = GreedyLR(optimizer, warmup_steps=0, config=DefaultConfig(**QUIET))
    furthest = 0.0
    for _ in range(30):
        furthest = max(furthest, (x.detach() - solution).abs().max().item())
        loss = (rows @ (x - solution)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss)
        assert scheduler.get_last_lr()[0] <= max(2 * furthest, lr * 1e-5) * SLACK


@pytest.mark.parametrize("total_steps", [300, 3000])
@pytest.mark.parametrize("condition", [1, 10, 100, 10_000])
@pytest.mark.parametrize("share", [0.001, 0.1, 1, 10, 100])
def test_from_any_learning_rate_the_whole_rule_lowers_the_loss(total_steps, condition, share):
    eigenvalues = np.geomspace(1 / condition, 1, 20) if condition > 1 else np.ones(1)
    for seed in range(3):
        course = list(descend(DefaultConfig(total_steps=total_steps), eigenvalues, 2 * share, total_steps, seed))
        first, last = (float((eigenvalues * squares).sum()) for squares in (course[0][2], course[-1][2]))
        # In the shortest run, from the lowest, half of the warmup is missing: until then nothing catches up.
        assert last < first / (19 if share == 0.001 and total_steps == 300 else 20)
