"""The bound of SGD theory beside what runs do: ours, the published rule, cosine and a constant.

``python benchmarks/convergence_bound.py``: ridge regression on scikit-learn's diabetes, so that the solution, L_max and
the gradient noise are known; SGD on single examples, 3,000 steps, from the origin, five seeds. The learning rate that
is given is a share of 1 / (2 L_max), below which the theorem holds. Measured is the loss above its minimum at the
average of the iterates that the theorem is about. The last result: docs/theory.md.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_diabetes

from greedylr import GreedyLR
from greedylr.theory import Bound, convergence_bound

STEPS, SEEDS, RIDGE = 3000, 5, 0.1
SHARES = (0.1, 0.5, 0.9, 10.0)

Step = Callable[[torch.Tensor], None]


def _paper(optimizer: torch.optim.SGD, lr: float) -> Step:
    return GreedyLR.paper(optimizer, smooth=True, min_lr=lr / 1000, max_lr=lr * 1000).step


def _default(optimizer: torch.optim.SGD, lr: float) -> Step:
    return GreedyLR(optimizer, total_steps=STEPS).step


def _safe(optimizer: torch.optim.SGD, lr: float) -> Step:
    return GreedyLR(optimizer, total_steps=STEPS, max_scale=1).step


def _cosine(optimizer: torch.optim.SGD, lr: float) -> Step:
    # To a thousandth: at zero there is no step to speak of.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=lr / 1000)
    return lambda loss: schedule.step()


def _constant(optimizer: torch.optim.SGD, lr: float) -> Step:
    return lambda loss: None


SCHEDULERS = {
    "default": _default,
    "default, max_scale=1": _safe,
    "published, smoothing": _paper,
    "cosine": _cosine,
    "constant": _constant,
}


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    diabetes = load_diabetes()
    rows = torch.tensor(diabetes.data / diabetes.data.std(0))
    targets = torch.tensor((diabetes.target - diabetes.target.mean()) / diabetes.target.std())
    n, size = rows.shape

    def each(x: torch.Tensor) -> torch.Tensor:
        return (rows @ x - targets).square() / 2 + RIDGE / 2 * x.square().sum()

    solution = torch.linalg.solve(rows.T @ rows / n + RIDGE * torch.eye(size), rows.T @ targets / n)
    residuals = rows @ solution - targets
    noise = (residuals[:, None] * rows + RIDGE * solution).square().sum(1).mean().sqrt().item()
    smoothness = (rows.square().sum(1).max() + RIDGE).item()
    lowest, distance = each(solution).mean().item(), solution.norm().item()
    start = each(torch.zeros(size, dtype=torch.float64)).mean().item() - lowest
    print(f"L_max = {smoothness:.3g}, D = {distance:.3g}, σ = {noise:.3g}, f(x₀) − f* = {start:.3g}\n")
    print(f"| scheduler | {' | '.join(f'from {share:g} of the limit' for share in SHARES)} |")
    print(f"|---|{'---|' * len(SHARES)}")
    for name, make in SCHEDULERS.items():
        cells = []
        for share in SHARES:
            lr = share / (2 * smoothness)
            bounds, measured = [], []
            for seed in range(SEEDS):
                random = torch.Generator().manual_seed(seed)
                x = torch.zeros(size, dtype=torch.float64, requires_grad=True)
                optimizer = torch.optim.SGD([x], lr)
                after = make(optimizer, lr)
                lrs, average, weight = [], torch.zeros(size, dtype=torch.float64), 0.0
                for _ in range(STEPS):
                    one = int(torch.randint(n, (), generator=random))
                    loss = (rows[one] @ x - targets[one]).square() / 2 + RIDGE / 2 * x.square().sum()
                    optimizer.zero_grad()
                    loss.backward()
                    lrs.append(optimizer.param_groups[0]["lr"])
                    p = lrs[-1] * max(1 - 2 * lrs[-1] * smoothness, 0)
                    average, weight = average + p * x.detach(), weight + p
                    optimizer.step()
                    after(loss.detach())
                bounds.append(convergence_bound(np.array(lrs), smoothness=smoothness, distance=distance, noise=noise))
                if weight:
                    measured.append(each(average / weight).mean().item() - lowest)
            values = [bound.value for bound in bounds if bound.value is not None]
            told = f"≤ {np.mean(values):.2g}" if len(values) == SEEDS else violated(bounds)
            cells.append(f"{told}; {np.mean(measured):.2g}" if measured and math.isfinite(np.mean(measured)) else told)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def violated(bounds: list[Bound]) -> str:
    first = min(bound.first_violation for bound in bounds if bound.first_violation is not None)
    return f"says nothing: {np.mean([bound.violating for bound in bounds]):.0%} of the steps, the first {first}"


if __name__ == "__main__":
    main()
