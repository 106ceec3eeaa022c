"""``greedylr theory``: what it says; the statements are computed in :mod:`greedylr.theory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from greedylr import presentation
from greedylr.presentation import check_writable, render, write_whole
from greedylr.presentation.terminal import FittingTable, as_markup
from greedylr.presentation.words import count
from greedylr.pulse import Trace
from greedylr.theory import Bound, convergence_bound, growth_rate, mean_growth_rate

FACTORS = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99)
GENERATOR = "greedylr theory"
_TITLE = "Growth of the distance to the minimum"
_HARDER = "cut by F², raise by 1/F"
_ABOUT = (
    "Plain gradient descent, without bounds; means over 100 starts, 3,000 steps from each; natural logarithms. "
    "docs/theory.md has the proofs."
)


def bound(console: Console, run: Path, smoothness: float, distance: float, noise: float) -> int:
    """Print what SGD theory guarantees for the learning rates of a recorded run.

    Args:
        console: Where to print.
        run: Its folder.
        smoothness: The largest smoothness constant of any example's loss.
        distance: From the initial parameters to the minimum.
        noise: Standard deviation of the gradient at the minimum.

    Returns:
        The exit code: 0, or 1 after an error.
    """
    try:
        trace = Trace.load(run)
        found = convergence_bound(trace, smoothness=smoothness, distance=distance, noise=noise)
    except (OSError, ValueError) as error:
        console.print(f"[red]Stopped:[/] {as_markup(error)}", soft_wrap=True)
        return 1
    console.print(f"{as_markup(trace.name)}: {count(trace.last, 'step')}.")
    for line in _said(found):
        console.print(line, soft_wrap=True)
    console.print("For convex losses, and the average of the parameters; docs/theory.md has the theorem and its proof.")
    return 0


def _said(found: Bound) -> list[str]:
    condition = f"Condition: every learning rate is below 1 / (2 × smoothness) = {found.highest:.4g}."
    if found.value is not None:
        return [
            f"{condition} It holds.",
            f"Guarantee: on average, the loss ends at most {found.value:.4g} above its minimum: "
            f"{found.distance_term:.4g} from the distance, {found.noise_term:.4g} from the noise.",
        ]
    violated = f"It is violated at {found.violating:.1%} of the steps, at first at step {found.first_violation}"
    lines = [f"{condition} {violated}: of the whole run the theorem says nothing."]
    if found.holding is not None:
        lines.append(f"Up to there: on average, the loss is at most {found.holding:.4g} above its minimum.")
    return lines


def factor(console: Console, factors: Sequence[float], condition: float, dimensions: int, out: Path | None) -> int:
    """Print how fast the core rule converges on quadratics, or that it does not, against F.

    Args:
        console: Where to print.
        factors: The values of F.
        condition: Largest over smallest curvature of the quadratic of several dimensions.
        dimensions: How many it has; their curvatures are spread evenly on the logarithmic scale.
        out: A page with the figure; None: none.

    Returns:
        The exit code: 0, or 1 after an error.
    """
    try:
        if out is not None:
            check_writable(out, GENERATOR)
        curvatures = np.geomspace(1 / condition, 1.0, dimensions).tolist()
        lines = [mean_growth_rate(one) for one in factors]
        cored = [growth_rate(one, curvatures) for one in factors]
        harder = [growth_rate(one, curvatures, cut=one**2) for one in factors]
    except (OSError, ValueError) as error:
        console.print(f"[red]Stopped:[/] {as_markup(error)}", soft_wrap=True)
        return 1
    several = f"{count(dimensions, 'dimension')}, condition {condition:g}"
    header = ("F", "one dimension, in closed form", several, "diverges from", _HARDER, "diverges from")
    rows = [
        (
            f"{one:g}",
            f"{line:+.4f}",
            *(text for it in (core, hard) for text in (f"{it.mean:+.4f}", f"{it.diverging:.0%}")),
        )
        for one, line, core, hard in zip(factors, lines, cored, harder, strict=True)
    ]
    table = FittingTable(f"{_TITLE}, per step (negative: it converges)", *header)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(_ABOUT)
    if out is not None:
        curves = {
            header[1]: lines,
            several: [one.mean for one in cored],
            _HARDER: [one.mean for one in harder],
        }
        page = render(
            Path(presentation.__file__).parent,
            "figure.html.j2",
            GENERATOR,
            title=f"{_TITLE} under the core rule",
            lines=["Per step; negative: it converges.", _ABOUT],
            table={"header": header, "rows": rows},
            figure=_figure(factors, curves),
        )
        write_whole(out, page)
        console.print(f"Figure: {as_markup(out)}", soft_wrap=True)
    return 0


def _figure(factors: Sequence[float], curves: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    axes = {"zerolinecolor": "#808080", "automargin": True}
    return {
        "data": [
            {"type": "scatter", "mode": "lines+markers", "x": list(factors), "y": list(values), "name": name}
            for name, values in curves.items()
        ],
        "layout": {
            "xaxis": {"title": {"text": "F"}, **axes},
            "yaxis": {"title": {"text": "growth per step"}, **axes},
            "legend": {"orientation": "h", "x": 0, "y": -0.15, "yanchor": "top"},
            "margin": {"l": 58, "r": 8, "t": 16, "b": 96},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
        },
    }
