"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]

from greedylr import Action, Decision, presentation
from greedylr.lab.report.demo.contents import PROBLEMS, SCHEDULERS
from greedylr.lab.report.demo.table import Row, compare, summary
from greedylr.lab.results import Result, record
from greedylr.lab.runs import Run
from greedylr.presentation import compact

GENERATOR = "greedylr demo"
"""Named in the page's head, to tell it from pages of others."""

SEEDS_SHOWN = 5
"""Curves are shown for the first so many seeds: more would make the page heavy. The table has them all."""

# After Okabe & Ito: told apart by the colour-blind too, on light ground and dark.
_COLORS = ("#e0560b", "#009e73", "#2b8be0", "#8a8a8a")
_TRAINING, _VALIDATION, _LR = 1, 2, 3  # the rows of a chart
_NOTHING = Result(Run("", 0.0, "", 0, 0), record([], [0.0], {}))  # stands in for a run that is not finished


def render(runs: Sequence[Run], results: Sequence[Result], versions: dict[str, str]) -> str:
    """The page as a string.

    Args:
        runs: What was planned.
        results: What is finished of it.
        versions: Name and version of what the results were made with.

    Returns:
        HTML in which every text is escaped, and which loads nothing from anywhere.
    """
    rows = compare(runs, results)
    problems = dict.fromkeys(row.problem for row in rows)
    seeds = sorted({result.run.seed for result in results})[:SEEDS_SHOWN]
    charts = {f"{row.problem} {row.multiplier:g}": _chart(row.problem, row.multiplier, seeds, results) for row in rows}
    return presentation.render(
        Path(__file__).parent,
        "page.html.j2",
        GENERATOR,
        runs=runs,
        results=results,
        rows=rows,
        summary=summary(rows),
        problems=PROBLEMS,
        schedulers=SCHEDULERS,
        seeds=seeds,
        charts=charts,
        pictures={name: _picture([row for row in rows if row.problem == name]) for name in problems},
        versions=versions,
    )


def _picture(rows: Sequence[Row]) -> dict[str, Any]:
    """Final loss against the learning rate, of one problem: what the table says, at a glance."""
    figure = go.Figure()
    for number, (color, scheduler) in enumerate(zip(_COLORS, SCHEDULERS.values(), strict=True)):
        cells = [row.cells[number] for row in rows]
        figure.add_scatter(
            x=[row.multiplier for row in rows],
            y=[cell.mean if cell.losses and math.isfinite(cell.mean) else None for cell in cells],
            error_y={"array": [cell.spread or 0.0 for cell in cells], "thickness": 1, "width": 3},
            mode="lines+markers",
            marker={"symbol": ["x" if cell.diverged else "circle" for cell in cells], "size": 8},
            line={"color": color, "width": 2.6 if number == 0 else 1.6},
            hovertext=[escape(str(cell)) for cell in cells],
            hoverinfo="text+name",
            name=escape(scheduler.title),
        )
    ticks = sorted({row.multiplier for row in rows})
    texts = [f"{one:g}×" for one in ticks]
    figure.update_xaxes(
        type="log", zeroline=False, tickvals=ticks, ticktext=texts, title_text="learning rate, × the good one"
    )
    figure.update_yaxes(type="log", zeroline=False, exponentformat="power", title_text="final loss")
    figure.update_layout(
        template="none",
        title={"text": escape(PROBLEMS[rows[0].problem].title), "font": {"size": 14}, "x": 0.5, "y": 0.98},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        margin={"l": 58, "r": 8, "t": 36, "b": 96},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    drawn: dict[str, Any] = json.loads(figure.to_json())
    return drawn


def _chart(problem: str, multiplier: float, seeds: Iterable[int], results: Sequence[Result]) -> dict[str, Any]:
    """Layout and, for each seed, traces; in the same order for every seed, so that what is hidden stays hidden."""
    shown = {
        (result.run.seed, result.run.scheduler): result
        for result in results
        if (result.run.problem, result.run.multiplier) == (problem, multiplier)
    }
    chart: dict[str, Any] = {"traces": {}}
    for seed in seeds:
        figure = make_subplots(rows=3, shared_xaxes=True, vertical_spacing=0.03, row_heights=[0.32, 0.26, 0.42])
        for color, (name, scheduler) in zip(_COLORS, SCHEDULERS.items(), strict=True):
            group = {"legendgroup": name, "name": escape(scheduler.title), "showlegend": False}
            result = shown.get((seed, name), _NOTHING)
            _add_lines(figure, result, group, color)
            _add_decisions(figure, result, group, color)
        _lay_out(figure, list(shown.values()))
        drawn = json.loads(figure.to_json())
        chart["traces"][str(seed)] = drawn["data"]
        chart["layout"] = drawn["layout"]
    return chart


def _add_lines(figure: go.Figure, result: Result, group: dict[str, Any], color: str) -> None:
    style = {"mode": "lines", "line": {"color": color, "width": 1.6}}
    losses, lrs = result.losses, result.lrs
    window = max(1, len(losses) // 50)
    means = np.convolve(losses, np.full(window, 1 / window), "valid") if losses else ()
    lines = group | style | {"hoverinfo": "skip"}  # Else they would hide what the markers on them say.
    figure.add_scatter(y=compact(means), x0=window, **lines, row=_TRAINING, col=1)
    figure.add_scatter(y=compact(lrs), x0=1, line_shape="hv", **lines, row=_LR, col=1)
    figure.add_scatter(
        x=result.validation_steps,
        y=compact(result.validation_losses),
        customdata=compact(lrs[max(step - 1, 0)] for step in result.validation_steps),
        hovertemplate="%{y:.4g} after %{x} steps<br>LR %{customdata:.3g}",
        **group | style | {"showlegend": True},
        row=_VALIDATION,
        col=1,
    )


def _add_decisions(figure: go.Figure, result: Result, group: dict[str, Any], color: str) -> None:
    moves = [(one, one.lr_before[0]) for one in result.decisions if one.action is not Action.SPIKE]
    spikes = [(one, one.loss) for one in result.decisions if one.action is Action.SPIKE]
    for placed, row in ((moves, _LR), (spikes, _TRAINING)):
        decisions = [decision for decision, _ in placed]
        # Plotly does not hide what is empty: were it not empty for the next seed, it would show up.
        steps: list[int | None] = [one.step for one in decisions] or [None]
        heights: list[float | None] = [height for _, height in placed] or [None]
        figure.add_scatter(
            x=steps,
            y=heights,
            mode="markers",
            marker={
                "color": color,
                "size": 9,
                "symbol": [_symbol(one) for one in decisions],
                "line": {"width": 1, "color": "rgba(128, 128, 128, 0.6)"},
            },
            hovertext=[_explain(group["name"], one) for one in decisions],
            hoverinfo="text",
            **group,
            row=row,
            col=1,
        )


def _symbol(decision: Decision) -> str:
    if decision.action is Action.SPIKE:
        return "x"
    return "triangle-up" if decision.raised else "triangle-down"


def _explain(name: str, decision: Decision) -> str:
    """The text shown over a marker, as Plotly's HTML and in lines that a telephone has room for."""
    lines = [
        *textwrap.wrap(decision.action.value, 40),
        f"LR {decision.lr_before[0]:.4g} → {decision.lr_after[0]:.4g}",
        f"minibatch loss {decision.loss:.4g}",
        *(f"{name.replace('_', ' ')} {value:.4g}" for name, value in decision.evidence.items()),
    ]
    return "<br>".join((f"<b>{name}, step {decision.step}</b>", *map(escape, lines)))


def _lay_out(figure: go.Figure, shown: Sequence[Result]) -> None:
    figure.update_layout(
        template="none",
        hovermode="closest",
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 58, "r": 8, "t": 40, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        uirevision="keep",  # What was hidden or zoomed stays so when another seed is shown.
    )
    figure.update_xaxes(zeroline=False, range=[0, 1.01 * max((result.run.steps for result in shown), default=1)])
    figure.update_yaxes(type="log", zeroline=False, title_standoff=4, exponentformat="power")
    figure.update_xaxes(title_text="step", row=_LR)
    for row, title in ((_TRAINING, "training loss"), (_VALIDATION, "validation loss"), (_LR, "learning rate")):
        figure.update_yaxes(title_text=title, row=row)
    # Annealing goes on to zero, and would squeeze all else together: the range ends below the last move.
    lrs = [max(result.lrs) for result in shown]
    moved = [lr for result in shown for one in result.decisions for lr in (one.lr_before[0], one.lr_after[0])]
    if lrs:
        low, high = min(lrs + moved), max(lrs + moved)
        figure.update_yaxes(range=[math.log10(low / 4), math.log10(high * 2)], row=_LR)
