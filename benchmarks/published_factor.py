"""Is F* = 1 − 1/L_max the best F? The core rule on convex problems of which L_max is known.

``python benchmarks/published_factor.py``: least squares on scikit-learn's diabetes and logistic regression on its
breast cancer, by gradient descent and by stochastic gradient descent on single examples, 2,000 steps of the core rule
from three initial learning rates, 20 starts each. The loss is measured in three units: the learning rate is divided by
what the loss is multiplied by, as anyone who tunes it would. Best is the F whose runs end nearest to the minimum, in
the median over the starts. The last result: ``benchmarks/published_factor.md``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer, load_diabetes

Array = NDArray[np.float64]
FACTORS = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995])
UNITS = (0.1, 1.0, 100.0)
STARTS, STEPS = 20, 2000

Pointwise = Callable[[Array, Array], tuple[Array, Array]]
"""Of predictions and targets, the loss of each and its derivative."""


def squares(predictions: Array, targets: Array) -> tuple[Array, Array]:
    return (predictions - targets) ** 2 / 2, predictions - targets


def logistic(predictions: Array, targets: Array) -> tuple[Array, Array]:
    margins = targets * predictions
    return np.logaddexp(0, -margins), -targets / (1 + np.exp(np.clip(margins, -700, 700)))


def standardized(rows: Array) -> Array:
    return (rows - rows.mean(0)) / rows.std(0)


def problems() -> dict[str, tuple[Array, Array, Pointwise, float]]:
    """Rows, targets, loss, and the curvature of one example over its squared length."""
    diabetes, cancer = load_diabetes(), load_breast_cancer()
    return {
        "least squares": (standardized(diabetes.data), standardized(diabetes.target), squares, 1.0),
        "logistic regression": (standardized(cancer.data), 2.0 * cancer.target - 1, logistic, 0.25),
    }


def least(rows: Array, targets: Array, loss_of: Pointwise) -> float:
    def mean(x: Array) -> float:
        return float(loss_of(x @ rows.T, targets)[0].mean())

    return float(minimize(mean, np.zeros(rows.shape[1]), method="BFGS", options={"gtol": 1e-12}).fun)


def distances(
    rows: Array, targets: Array, loss_of: Pointwise, unit: float, lr: float, lowest: float, single: bool
) -> Array:
    """Loss above the minimum over that at the start, for each F, in the median over the starts."""
    random = np.random.default_rng(0)
    x = np.tile(random.standard_normal((STARTS, rows.shape[1])), (len(FACTORS), 1, 1))
    lrs = np.full((len(FACTORS), STARTS), lr)
    factors = np.broadcast_to(FACTORS[:, None], lrs.shape)

    def above(x: Array) -> Array:
        return np.asarray(loss_of(x @ rows.T, targets)[0].mean(-1)) - lowest

    everything = np.tile(np.arange(len(rows)), (STARTS, 1))
    first, before = above(x), np.full(lrs.shape, np.inf)
    with np.errstate(over="ignore", invalid="ignore"):  # Some diverge.
        for _ in range(STEPS):
            # Every F sees the same examples.
            drawn = random.integers(len(rows), size=(STARTS, 1)) if single else everything
            examples = rows[drawn]
            losses, slopes = loss_of(np.einsum("fsd,sed->fse", x, examples), targets[drawn])
            gradient = np.einsum("fse,sed->fsd", slopes, examples) / drawn.shape[1]
            x = x - lrs[..., None] * unit * gradient
            loss = unit * losses.mean(-1)
            lrs = np.where(loss < before, lrs / factors, lrs * factors)
            before = loss
        ratio = above(x) / first
    return np.median(np.where(np.isfinite(ratio), ratio, np.inf), axis=1)


def main() -> None:
    print(
        "| problem | gradient | unit of the loss | L_max | F\\* | best F from γ₀ L_max = 0.01, 0.1, 1 | end there "
        "| end at the F nearest to F\\* |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (rows, targets, loss_of, curvature) in problems().items():
        lowest = least(rows, targets, loss_of)
        for single in (False, True):
            for unit in UNITS:
                smoothness = unit * curvature * float((rows**2).sum(1).max())
                published = 1 - 1 / smoothness
                best, ends, theirs = [], [], []
                for share in (0.01, 0.1, 1.0):
                    end = distances(rows, targets, loss_of, unit, share / smoothness, lowest, single)
                    best.append(f"{FACTORS[end.argmin()]:g}")
                    ends.append(f"{end.min():.1g}")
                    theirs.append(f"{end[np.abs(FACTORS - published).argmin()]:.1g}" if published > 0 else "–")
                print(
                    f"| {name} | {'one example' if single else 'all'} | {unit:g} | {smoothness:.3g} | {published:.3g} "
                    f"| {', '.join(best)} | {', '.join(ends)} | {', '.join(theirs)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
