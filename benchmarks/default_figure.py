"""The figure in docs/default.md: one run of the default rule at three learning rates, as SVG.

python benchmarks/default_figure.py > docs/default.svg
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from greedylr.lab.execution.reference_loop import train
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

PROBLEM, STEPS = "gru", 250
COLORS = {0.03: "#2b8be0", 1.0: "#009e73", 30.0: "#e0560b"}
WIDTH, HEIGHT, LEFT, GAP = 720, 190, 64, 34
LOWEST = 3e-5  # of the learning rates shown


def points(xs: Sequence[float], ys: Sequence[float], top: float, low: float, high: float) -> str:
    def place(x: float, y: float) -> str:
        share = (math.log10(max(y, low)) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return f"{LEFT + x / STEPS * (WIDTH - LEFT - 8):.1f},{top + (1 - share) * HEIGHT:.1f}"

    return " ".join(place(x, y) for x, y in zip(xs, ys))


def panel(title: str, top: float, low: float, high: float, ticks: Sequence[float]) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{top - 8}">{title}</text>']
    for tick in ticks:
        _, y = points([0], [tick], top, low, high).split(",")
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - 8}" stroke="#8884"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return parts


def main() -> None:
    torch.set_num_threads(1)
    runs: dict[float, Result] = {m: train(Run(PROBLEM, m, "greedylr", 0, STEPS)) for m in COLORS}
    losses_top, lrs_top = 30, 30 + HEIGHT + GAP
    height = lrs_top + HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        'font-family="sans-serif" font-size="12" fill="#888">',
        # The curves come as the run did, in eight seconds; for those who want no motion, at once.
        "<style>@media (prefers-reduced-motion: no-preference) { #seen rect { animation: seen 8s linear } }",
        "@keyframes seen { from { width: 0 } }</style>",
        f'<clipPath id="seen"><rect x="{LEFT}" y="0" width="{WIDTH - LEFT}" height="{height}"/></clipPath>',
        *panel("training loss, mean over 5 steps", losses_top, 1.5, 6.0, (1.5, 2, 3, 4, 5, 6)),
        *panel("learning rate", lrs_top, LOWEST, 1.0, (1e-4, 1e-3, 1e-2, 1e-1, 1)),
    ]
    for multiplier, result in runs.items():
        color = COLORS[multiplier]
        smooth = np.convolve(result.losses, np.full(5, 0.2), "valid").tolist()
        steps = list(range(STEPS))
        for ys, top, low, high in ((smooth, losses_top, 1.5, 6.0), (result.lrs, lrs_top, LOWEST, 1.0)):
            line = points(steps[-len(ys) :], ys, top, low, high)
            look = f'fill="none" stroke="{color}" stroke-width="1.6"'
            parts.append(f'<polyline clip-path="url(#seen)" points="{line}" {look}/>')
    for number, (multiplier, color) in enumerate(COLORS.items()):
        place = f'x="{LEFT + 210 * number}" y="{height - 8}" fill="{color}"'
        parts.append(f"<text {place}>started at {multiplier:g} × the good LR</text>")
    print("\n".join([*parts, "</svg>"]))


if __name__ == "__main__":
    main()
