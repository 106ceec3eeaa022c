"""The core rule on quadratics: closed forms against simulation, the shipped rule, and a proof's inequality."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from greedylr.control import rule
from greedylr.control.paper.config import PaperConfig
from greedylr.theory import cycle_growth_rate, growth_rate, mean_growth_rate


def descend(factor, u, steps):
    """Gradient descent on x²/2 under the shipped core rule, from u = learning rate times curvature; x each step."""
    config = PaperConfig.core(factor)
    state = rule.start(config, [u])
    x = [1.0]
    rule.observe(config, state, x[0] ** 2 / 2)
    state.lrs = (u,)  # The first loss is better than none, which raises.
    for _ in range(steps):
        x.append(x[-1] * (1 - state.lrs[0]))
        rule.observe(config, state, x[-1] ** 2 / 2)
    return x, state.lrs[0]


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("place", [0.1, 0.6, 0.97])
def test_the_shipped_rule_ends_in_the_cycle_of_the_theory(factor, place):
    u = 2 * factor ** (-place)
    x, u_after = descend(factor, u, 2)
    assert u_after == pytest.approx(u)
    assert abs(x[2] / x[0]) == pytest.approx((u - 1) * abs(1 - factor * u))
    assert cycle_growth_rate(factor, u) == pytest.approx(math.log(abs(x[2] / x[0])) / 2)


@pytest.mark.parametrize("factor", [0.1, 0.25, 0.5, 0.7, 0.95])
def test_mean_growth_is_the_integral_over_the_cycles(factor):
    singular = [1 / factor] if 2 < 1 / factor < 2 / factor else None
    integral, _ = quad(lambda u: float(cycle_growth_rate(factor, u)) / u, 2 + 1e-12, 2 / factor, points=singular)
    assert mean_growth_rate(factor) == pytest.approx(integral / math.log(1 / factor), abs=1e-6)


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.9])
def test_simulation_in_one_dimension_agrees_with_the_cycles(factor):
    simulated = growth_rate(factor, starts=50, steps=400)
    u = 2 * factor ** -((1 - (np.arange(50) + 0.5) / 50) % 1)
    expected = cycle_growth_rate(factor, u)
    np.testing.assert_allclose(simulated.rates, expected, atol=1e-9)


@pytest.mark.parametrize("eigenvalues", [(1.0,), (1.0, 0.3, 0.01)])
def test_simulation_is_gradient_descent_under_the_shipped_rule(eigenvalues):
    factor, steps = 0.9, 60
    result = growth_rate(factor, eigenvalues, starts=3, steps=steps, seed=5)
    points = np.random.default_rng(5).standard_normal((3, len(eigenvalues)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for start in range(3):
        x, curvatures = points[start], np.array(eigenvalues)
        config = PaperConfig.core(factor)
        state = rule.start(config, [2 / max(eigenvalues) * factor ** ((start + 0.5) / 3)])
        first = float((curvatures * x * x).sum() / 2)
        norms, highest = [], first
        rule.observe(config, state, first)
        state.lrs = state.initial_lrs
        for _ in range(steps):
            x = x - state.lrs[0] * curvatures * x
            loss = float((curvatures * x * x).sum() / 2)
            highest = max(highest, loss)
            rule.observe(config, state, loss)
            norms.append(np.linalg.norm(x))
        assert result.rates[start] == pytest.approx(math.log(norms[-1] / norms[steps // 2 - 1]) / (steps // 2))
        assert result.overshoots[start] == pytest.approx(math.log(highest / first), abs=1e-9)


@given(factor=st.floats(0.5, 0.999), place=st.floats(0, 1))
def test_a_cut_of_the_square_contracts_in_every_cycle(factor, place):
    """The theorem in docs/theory.md: the product of three steps is below 1."""
    u = 2 * factor ** (-place)
    product = abs((u - 1) * (1 - factor * u) * (1 - factor**2 * u))
    assert product <= 1 - 1e-12 or u == 2


def test_a_cut_of_the_square_converges_from_every_start_and_the_published_rule_does_not():
    for factor in (0.5, 0.75, 0.9):
        assert growth_rate(factor, starts=200, steps=1000).diverging > 0.4
        assert growth_rate(factor, cut=factor**2, starts=200, steps=1000).diverging == 0
        stiff = np.geomspace(1e-3, 1, 10)
        assert growth_rate(factor, stiff, starts=20, steps=1000).mean > 0
        assert growth_rate(factor, stiff, cut=factor**2, starts=20, steps=1000).diverging == 0


def test_noise_changes_the_gradient():
    quiet, noisy = (growth_rate(0.9, cut=0.81, noise=noise, starts=10, steps=400) for noise in (0.0, 0.5))
    assert not np.allclose(quiet.rates, noisy.rates)


def test_the_unit_of_the_loss_does_not_matter():
    one, other = (growth_rate(0.7, [scale, 0.1 * scale], starts=5, steps=100) for scale in (1.0, 1e6))
    np.testing.assert_allclose(one.rates, other.rates, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, "factor must be a number with 0 < factor < 1, got 1.0"),
        ({"factor": 0.5, "cut": 0.0}, "cut must be"),
        ({"factor": 0.5, "eigenvalues": []}, "eigenvalues must be positive numbers"),
        ({"factor": 0.5, "eigenvalues": [1.0, -1.0]}, "eigenvalues must be positive numbers"),
        ({"factor": 0.5, "starts": 0}, "starts must be an integer of at least 1, got 0"),
        ({"factor": 0.5, "steps": 1.5}, "steps must be an integer of at least 2, got 1.5"),
        ({"factor": 0.5, "noise": -1.0}, "noise must be a number with 0 <= noise < inf, got -1.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        growth_rate(**arguments)


def test_cycles_are_between_the_limit_and_the_limit_over_the_factor():
    for u in (2.0, 4.1):
        with pytest.raises(ValueError, match=r"u must be in \(2, 2 / factor\]"):
            cycle_growth_rate(0.5, u)
