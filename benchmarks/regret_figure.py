"""The figure in the README: how near each learning rate comes to the best one, from the table in docs/default.md.

python benchmarks/regret_figure.py > docs/regret.svg
"""

from __future__ import annotations

import math
import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "default.md"
LINES = {"GreedyLR": ("GreedyLR", "#2b8be0"), "cosine with warmup": ("cosine", "#e0560b")}
WIDTH, HEIGHT, LEFT, TOP = 720, 260, 72, 40
RIGHT, HIGHEST = 110, 2.0


def rows() -> tuple[list[float], dict[str, list[tuple[float, float, float]]]]:
    """The learning rates, and median, lower and upper end for each, of the two lines."""
    table = DOCUMENT.read_text(encoding="utf-8").split("| median regret at LR × |", 1)[1].split("\n\n", 1)[0]
    head, _, *body = table.splitlines()
    multiples = [float(cell) for cell in head.split("|") if re.fullmatch(r"\s*\d+\.?\d*\s*", cell)]
    found = {}
    for line in body:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if name in LINES:
            numbers = [tuple(map(float, re.findall(r"\d+\.\d+", cell))) for cell in cells[: len(multiples)]]
            found[name] = [(middle, low, high) for middle, low, high in numbers]
    return multiples, found


def main() -> None:
    multiples, found = rows()
    first, last = math.log10(multiples[0]), math.log10(multiples[-1])

    def x(multiple: float) -> float:
        return LEFT + (math.log10(multiple) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(regret: float) -> float:
        return TOP + (HIGHEST - regret) / (HIGHEST - 1) * HEIGHT

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + HEIGHT + 56}"',
        'font-family="sans-serif" font-size="13" fill="#888" role="img">',
        "<title>Final loss against learning rate: nearly flat for GreedyLR, a U for cosine</title>",
        f'<text x="{LEFT}" y="20">final loss, as a multiple of the best in hindsight</text>',
    ]
    for tick in (1.0, 1.2, 1.4, 1.6, 1.8, 2.0):
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#8884"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for multiple in multiples:
        parts.append(f'<text x="{x(multiple):.1f}" y="{TOP + HEIGHT + 22}" text-anchor="middle">{multiple:g} ×</text>')
    parts.append(
        f'<text x="{LEFT}" y="{TOP + HEIGHT + 46}">initial learning rate, as a multiple of the good one</text>'
    )
    for name, numbers in found.items():
        title, color = LINES[name]
        places = [(x(multiple), y(middle)) for multiple, (middle, _, _) in zip(multiples, numbers)]
        upper = [(x(multiple), y(high)) for multiple, (_, _, high) in zip(multiples, numbers)]
        lower = [(x(multiple), y(low)) for multiple, (_, low, _) in zip(multiples, numbers)]
        band = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *reversed(lower)])
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polygon points="{band}" fill="{color}" opacity="0.15"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{color}"/>' for a, b in places]
        a, b = places[-1]
        parts.append(f'<text x="{a + 10:.1f}" y="{b + 4:.1f}" fill="{color}">{title}</text>')
    print("\n".join([*parts, "</svg>"]))


if __name__ == "__main__":
    main()
