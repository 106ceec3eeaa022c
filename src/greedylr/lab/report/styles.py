"""Line styles of the schedulers: the same in every chart, and distinct for the colour-blind too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# After Okabe & Ito and Tol: visible on light ground and dark. The first is for the scheduler in question alone.
_OURS = "#e0560b"
_COLORS = ("#2b8be0", "#009e73", "#cc79a7", "#b08d00", "#7a6bd0", "#8a8a8a", "#b2403a", "#3fa7a0")
_DASHES = ("solid", "dash", "dot")


class Style(NamedTuple):
    """Style of a line.

    Attributes:
        color: As CSS has it.
        dash: As Plotly has it.
        width: In pixels.
    """

    color: str
    dash: str
    width: float


def styles(scheduler: str, others: Iterable[str]) -> dict[str, Style]:
    """A style for each scheduler; with more than two dozen they repeat.

    Args:
        scheduler: The one in question, which stands out.
        others: The others, in the order in which they are shown.
    """
    made = {scheduler: Style(_OURS, "solid", 2.6)}
    for number, name in enumerate(others):
        dash, color = divmod(number, len(_COLORS))
        made[name] = Style(_COLORS[color], _DASHES[dash % len(_DASHES)], 1.6)
    return made
