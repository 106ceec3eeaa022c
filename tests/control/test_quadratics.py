"""Plain gradient descent on quadratics, without noise: where the rule goes is known there.

Curvatures from L down to L/κ; the largest learning rate that does not diverge is 2/L. The numbers are final loss over
initial loss after 3,000 steps, the worst of five starts. For comparison: the best fixed learning rate of all, near 2/L,
leaves 1e-54 at κ = 100 and 1e-5 at κ = 10,000.
"""

import math
import random

import pytest

from greedylr.control import rule
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig

STEPS, SEEDS = 3000, range(2)
L = 1.0


def descend(config, condition, multiple, seed):
    """Final loss over initial loss, the worst on the way, and the rule's state at the end."""
    r = random.Random(seed)
    curvatures = [L * condition ** (-k / 9) for k in range(10)]
    weights = [r.gauss(0, 1) for _ in curvatures]
    initial_lr = multiple * 2 / L
    state = rule.start(config, [initial_lr])

    def loss():
        return sum(c * w * w for c, w in zip(curvatures, weights)) / 2

    first = worst = loss()
    for _ in range(STEPS):
        now = loss()
        (lr,), slope = state.lrs, initial_lr * sum((c * w) ** 2 for c, w in zip(curvatures, weights))
        weights = [w - lr * c * w for c, w in zip(curvatures, weights)]
        rule.observe(config, state, now, slope)
        worst = max(worst, loss())
    return loss() / first, worst / first, state


@pytest.mark.parametrize(
    ("total_steps", "condition", "multiple", "most"),
    [
        (None, 1, 1e-4, 1e-30),  # ends at the upper bound, a thousand times the initial learning rate, 0.1 · 2/L
        (None, 1, 1e-2, 1e-30),
        (None, 1, 1, 1e-30),
        (None, 100, 1e-4, 1e-6),  # likewise at the upper bound
        (None, 100, 1e-2, 1e-30),
        (None, 100, 1, 1e-30),
        (None, 10_000, 1e-4, 1e-2),  # likewise
        (None, 10_000, 1e-2, 1e-5),
        (None, 10_000, 1, 1e-5),
        (STEPS, 1, 1e-4, 1e-6),
        (STEPS, 1, 1e-2, 1e-30),
        (STEPS, 1, 1, 1e-30),
        (STEPS, 100, 1e-4, 1e-2),
        (STEPS, 100, 1e-2, 1e-4),
        (STEPS, 100, 1, 1e-30),
        (STEPS, 10_000, 1e-4, 1e-2),
        (STEPS, 10_000, 1e-2, 1e-2),
        (STEPS, 10_000, 1, 1e-3),
    ],
)
def test_converges(total_steps, condition, multiple, most):
    config = DefaultConfig(total_steps=total_steps)
    for seed in SEEDS:
        final, worst, state = descend(config, condition, multiple, seed)
        assert worst < 1e6  # it overshoots on the way, and comes back
        assert state.scale > 100 * config.min_scale
        assert final < most


@pytest.mark.parametrize("total_steps", [None, STEPS])
@pytest.mark.parametrize("condition", [100, 10_000])
def test_gets_further_than_the_learning_rate_that_was_given(total_steps, condition):
    """From a ten-thousandth of 2/L too, where it does not get far enough."""
    for seed in SEEDS:
        fixed, *_ = descend(PaperConfig(patience=10**6, min_lr=0.0), condition, 1e-4, seed)
        assert descend(DefaultConfig(total_steps=total_steps), condition, 1e-4, seed)[0] < fixed / 2


@pytest.mark.parametrize("multiple", [1e-4, 1])
@pytest.mark.parametrize("condition", [100, 10_000])
def test_the_core_rule_does_not_converge_there(multiple, condition):
    """Nothing holds it back while the loss still falls and the stiffest direction already grows."""
    for seed in SEEDS:
        final, _, _ = descend(PaperConfig.core(), condition, multiple, seed)
        assert final > 1e6 or math.isnan(final)
