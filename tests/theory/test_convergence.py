"""The bound of SGD theory: by hand, by scaling, against runs where everything is known, and where it does not hold."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greedylr.theory import convergence_bound


def test_by_hand():
    # p = 0.1 (1 - 0.4), 0.2 (1 - 0.8): 0.06 + 0.04; squares 0.01 + 0.04
    bound = convergence_bound([0.1, 0.2], smoothness=2.0, distance=3.0, noise=0.5)
    assert bound.highest == 0.25
    assert bound.distance_term == pytest.approx(9 / 0.2)
    assert bound.noise_term == pytest.approx(0.25 * 0.05 / 0.1)
    assert bound.value == bound.holding == bound.distance_term + bound.noise_term
    assert (bound.violating, bound.first_violation) == (0.0, None)


def test_no_number_where_the_condition_is_violated():
    bound = convergence_bound([0.1, 0.25, 0.3, 0.1], smoothness=2.0, distance=1.0)
    assert (bound.value, bound.distance_term, bound.noise_term) == (None, None, None)
    assert (bound.first_violation, bound.violating) == (2, 0.5)
    assert bound.holding == convergence_bound([0.1], smoothness=2.0, distance=1.0).value
    assert convergence_bound([1.0], smoothness=2.0, distance=1.0).holding is None


def test_where_steps_are_missing_a_row_counts_for_those_before_it():
    run = SimpleNamespace(steps=np.array([1, 3, 4]), lrs=np.array([[0.1], [0.2], [0.3]]))
    full = convergence_bound([0.1, 0.2, 0.2, 0.3], smoothness=1.0, distance=1.0, noise=1.0)
    assert convergence_bound(run, smoothness=1.0, distance=1.0, noise=1.0) == full
    late = convergence_bound(run, smoothness=2.0, distance=1.0)
    assert (late.first_violation, late.violating) == (4, 0.25)


def test_learning_rates_of_zero_guarantee_nothing_and_cost_nothing():
    assert convergence_bound([0.0], smoothness=1.0, distance=1.0).value == math.inf
    with_zeros = convergence_bound([0.1, 0.0, 0.2, 0.0], smoothness=1.0, distance=1.0, noise=1.0)
    assert with_zeros == convergence_bound([0.1, 0.2], smoothness=1.0, distance=1.0, noise=1.0)


lrs = st.lists(st.floats(1e-3, 0.49), min_size=1, max_size=20)


@given(lrs=lrs, unit=st.floats(1e-3, 1e3), length=st.floats(1e-3, 1e3))
def test_units(lrs, unit, length):
    """The loss in another unit, the parameters in another length: the bound is a loss."""
    one = convergence_bound(lrs, smoothness=1.0, distance=1.0, noise=1.0).value
    rates = [lr * length**2 / unit for lr in lrs]
    other = convergence_bound(rates, smoothness=unit / length**2, distance=length, noise=unit / length).value
    assert other == pytest.approx(unit * one, rel=1e-9)


@given(lrs=lrs)
def test_the_constant_of_the_mean_is_no_worse_where_there_is_no_noise(lrs):
    """Σp is concave in each learning rate, so equal ones of the same sum guarantee at least as much."""
    mean = [float(np.mean(lrs))] * len(lrs)
    varied, even = (convergence_bound(rates, smoothness=1.0, distance=1.0).value for rates in (lrs, mean))
    assert even <= varied * (1 + 1e-12)


@given(data=st.data(), seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6))
def test_sgd_on_random_least_squares_keeps_to_the_bound(data, seed, count):
    """Expectations are exact: every sequence of samples is followed, of at most 3 examples and 4 steps."""
    random = np.random.default_rng(seed)
    examples, steps = 1 + count % 3, 1 + count % 4
    rows, targets = random.standard_normal((examples, 2)), random.standard_normal(examples)
    solution = np.linalg.lstsq(rows, targets, rcond=None)[0]
    smoothness = float((rows**2).sum(axis=1).max())
    shares = data.draw(st.lists(st.floats(0.01, 0.99), min_size=steps, max_size=steps))
    rates = [share / (2 * smoothness) for share in shares]

    def loss(x):
        return float(((rows @ x - targets) ** 2).mean() / 2)

    def gradients(x):
        return rows * (rows @ x - targets)[:, None]

    start = solution + random.standard_normal(2)
    noise = math.sqrt((gradients(solution) ** 2).sum(axis=1).mean())
    weights = np.array([rate * (1 - 2 * rate * smoothness) for rate in rates])
    excess, points = [], [(start, np.zeros(2))]
    for rate, weight in zip(rates, weights):
        points = [(x - rate * gradient, total + weight * x) for x, total in points for gradient in gradients(x)]
    excess = np.mean([loss(total / weights.sum()) - loss(solution) for _, total in points])
    distance = float(np.linalg.norm(start - solution))
    bound = convergence_bound(rates, smoothness=smoothness, distance=distance, noise=noise).value
    assert excess <= bound * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"smoothness": 0.0, "distance": 1.0}, "smoothness must be a number with 0 < smoothness < inf, got 0.0"),
        ({"smoothness": 1.0, "distance": -1.0}, "distance must be a number with 0 <= distance < inf, got -1.0"),
        ({"smoothness": 1.0, "distance": 1.0, "noise": math.nan}, "noise must be"),
        ({"smoothness": 1.0, "distance": 1.0, "trace_or_lrs": []}, "at least one step"),
        ({"smoothness": 1.0, "distance": 1.0, "trace_or_lrs": [0.1, -0.1]}, "finite numbers of at least 0"),
        ({"smoothness": 1.0, "distance": 1.0, "trace_or_lrs": np.ones((3, 2))}, "2 parameter groups"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        convergence_bound(**{"trace_or_lrs": [0.1], **arguments})
