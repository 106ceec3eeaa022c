"""The default rule and cosine on quadratics, from learning rates far below the limit of stability to far above it.

``python benchmarks/quadratics.py``: gradient descent, 300 steps, 20 dimensions with curvatures spread evenly on the
logarithmic scale (one dimension for condition number 1), 50 starts. The last result: docs/theory.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from greedylr.control import rule
from greedylr.control.default.config import DefaultConfig

Array = NDArray[np.float64]
STEPS, STARTS = 300, 50


def ours(lr: float) -> Callable[[int, float, float], float]:
    config = DefaultConfig(total_steps=STEPS)
    state = rule.start(config, [lr])

    def after(step: int, loss: float, squares: float) -> float:
        rule.observe(config, state, loss, lr * squares)
        return state.lrs[0]

    return after


def cosine(lr: float) -> Callable[[int, float, float], float]:
    return lambda step, loss, squares: lr * (1 + math.cos(math.pi * (step + 1) / STEPS)) / 2


def descend(curvatures: Array, x: Array, lr: float, after: Callable[[int, float, float], float]) -> Array:
    """The loss before each step and after the last."""
    losses = []
    for step in range(STEPS):
        gradient = curvatures * x
        losses.append(float(x @ gradient) / 2)
        x = x - lr * gradient
        lr = after(step, losses[-1], float(gradient @ gradient))
    return np.array([*losses, float(x @ (curvatures * x)) / 2])


def cell(condition: float, share: float) -> str:
    curvatures = np.geomspace(1 / condition, 1, 20) if condition > 1 else np.ones(1)
    lr = 2 * share
    highest, ends, theirs = 0.0, [], []
    for seed in range(STARTS):
        x = np.random.default_rng(seed).standard_normal(len(curvatures))
        first_lr = rule.start(DefaultConfig(total_steps=STEPS), [lr]).lrs[0]  # Warmup begins below the given one.
        losses = descend(curvatures, x, first_lr, ours(lr))
        highest = max(highest, float(losses.max() / losses[0]))
        ends.append(losses[-1] / losses[0])
        with np.errstate(all="ignore"):  # It diverges.
            losses = descend(curvatures, x, lr, cosine(lr))
            theirs.append(losses[-1] / losses[0])
    other = np.median(theirs)
    return f"{np.median(ends):.1g} ({highest:.3g}); {f'{other:.1g}' if other < 1 else 'diverges'}"


def main() -> None:
    conditions = (1.0, 100.0, 10_000.0)
    print(f"| from, as a share of the limit | {' | '.join(f'condition number {c:,.0f}' for c in conditions)} |")
    print("|---|---|---|---|")
    for share in (0.001, 0.01, 0.1, 0.5, 1, 10, 100):
        print(f"| {share:g} | {' | '.join(cell(condition, share) for condition in conditions)} |", flush=True)


if __name__ == "__main__":
    main()
