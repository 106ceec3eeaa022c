"""The figure in docs/theory.md: the learning rate of the default rule, and the limit of stability beside it, as SVG.

python benchmarks/stability_figure.py > docs/stability.svg

A CNN on scikit-learn's digits, 400 steps of SGD with momentum on batches of 64, from three learning rates; at every
tenth step ``greedylr.theory.stability`` measures the limit on 512 of the examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from sklearn.datasets import load_digits
from stability_limit import loss_of, networks

from greedylr import GreedyLR
from greedylr.theory import stability

STEPS, EVERY, BATCH = 400, 10, 64
LRS = (0.0005, 0.02, 1.0)
WIDTH, HEIGHT, LEFT, GAP = 720, 130, 64, 40
LOWEST, HIGHEST = 1e-4, 2.0


def course(lr: float) -> tuple[list[float], list[float], float]:
    """Learning rates, one a step; limits, one every tenth; and the loss at the end."""
    torch.manual_seed(0)
    digits = load_digits()
    images, targets = torch.tensor(digits.images / 16, dtype=torch.float32), torch.tensor(digits.target)
    known = images[:512], targets[:512]
    model = networks()["convolutional"]
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    scheduler = GreedyLR(optimizer, total_steps=STEPS)
    lrs, limits = [], []
    for step in range(STEPS):
        if step % EVERY == 0:
            limits.append(stability(model, loss_of, known, optimizer, tolerance=1e-2).limits[0])
        lrs.append(scheduler.get_last_lr()[0])
        drawn = torch.randint(len(images), (BATCH,))
        loss = loss_of(model, (images[drawn], targets[drawn]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss)
    return lrs, limits, loss_of(model, known).item()


def points(ys: Sequence[float], every: int, top: float) -> list[tuple[float, float]]:
    span = math.log10(HIGHEST / LOWEST)
    return [
        (
            LEFT + number * every / STEPS * (WIDTH - LEFT - 8),
            top + (1 - math.log10(min(max(y, LOWEST), HIGHEST) / LOWEST) / span) * HEIGHT,
        )
        for number, y in enumerate(ys)
    ]


def panel(lr: float, top: float) -> list[str]:
    lrs, limits, end = course(lr)
    parts = [f'<text x="{LEFT}" y="{top - 8:g}">from {lr:g}: loss at the end {end:.3f}</text>']
    for tick in (1e-4, 1e-3, 1e-2, 1e-1, 1):
        ((_, y),) = points([tick], 1, top)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 8}" stroke="#8884"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points(lrs, 1, top))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2b8be0" stroke-width="1.6"/>')
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="#e0560b"/>' for x, y in points(limits, EVERY, top)]
    return parts


def main() -> None:
    torch.set_num_threads(1)
    height = 30 + len(LRS) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        'font-family="sans-serif" font-size="12" fill="#888">',
    ]
    for number, lr in enumerate(LRS):
        parts += panel(lr, 30 + number * (HEIGHT + GAP))
    parts.append(f'<text x="{LEFT}" y="{height - 8}" fill="#2b8be0">learning rate</text>')
    parts.append(f'<text x="{LEFT + 110}" y="{height - 8}" fill="#e0560b">limit of stability, every tenth step</text>')
    print("\n".join([*parts, "</svg>"]))


if __name__ == "__main__":
    main()
