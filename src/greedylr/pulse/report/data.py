"""A run in as many points as a screen can show."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from greedylr.control.decision import Action, Decision
from greedylr.presentation import packed
from greedylr.pulse.diagnosis.reading import Reading
from greedylr.pulse.record import Floats, Ints, Metric
from greedylr.pulse.report import words

_Item = TypeVar("_Item")

POINTS = 1000
"""Points of a curve."""

MARKERS = 3000
"""Decisions marked on a page, over all its runs; of more, the reflexes and refuted ones first, then evenly spaced."""

MARKS = 200
"""Marks drawn of a run; of more, evenly spaced ones."""

_LONG = 60  # Characters of a mark's name; more would cover the chart.

_LOOK = {
    "RAISED": "raise",
    "CUT": "cut",
    "BACKED_OFF": "cut",
    "VALIDATION_ROSE": "cut",
    "EXPLOSION": "explosion",
    "NON_FINITE": "nonfinite",
    "SPIKE": "spike",
    "RESET": "reset",
}


def run_data(reading: Reading, runs: int) -> dict[str, Any]:
    """Everything that the page draws of one run, for JSON; texts are escaped for Plotly, which reads them as HTML.

    Args:
        reading: The run.
        runs: How many runs the page has.
    """
    trace = reading.trace
    edges = np.unique(np.linspace(0, len(trace.steps), POINTS + 1).astype(int))
    starts, last = edges[:-1], edges[1:] - 1
    steps = trace.steps[last] if len(starts) else np.empty(0, np.int64)
    lr_steps, lrs = _lr_points(trace.steps, trace.lrs[:, 0])
    mean = _reduced(np.add, trace.losses, starts) / np.maximum(np.diff(edges), 1) if len(starts) else np.empty(0)
    shown, total = _shown(reading, max(MARKERS // runs, 100))
    return {
        "name": html.escape(reading.name),
        "steps": _exact(steps),
        "mean": _exact(mean),
        "low": _exact(_reduced(np.fmin, np.where(np.isfinite(trace.losses), trace.losses, np.nan), starts)),
        "high": _exact(_reduced(np.fmax, np.where(np.isfinite(trace.losses), trace.losses, np.nan), starts)),
        "lr_steps": _exact(lr_steps),
        "lr": _exact(lrs),
        "limit": [_exact(at) for at in _stability_limit(trace.metrics)],
        "metrics": {
            html.escape(name): [_exact(at) for at in _thin(metric.steps, metric.values)]
            for name, metric in trace.metrics.items()
        },
        "decisions": _decisions(reading, shown),
        "decisions_in_all": total,
        "findings": [
            {
                "first": one.first,
                "last": one.last,
                "name": one.kind.value,
                "serious": one.serious,
                "text": html.escape(f"{one.kind.value}, step {words.steps(one.first, one.last)}: {one.numbers}"),
            }
            for one in reading.findings
        ],
        "marks": [{"step": one.step, "name": html.escape(_shortened(one.name))} for one in _spaced(trace.marks, MARKS)],
        "marks_in_all": len(trace.marks),
        "phases": [one._asdict() for one in trace.phases],
        "last": trace.last,
    }


def _decisions(reading: Reading, shown: list[Decision]) -> dict[str, Any]:
    verdicts = {one.decision.step: one for one in reading.audit.moves}
    trace = reading.trace
    finite = np.isfinite(trace.losses)
    steps, means = trace.steps[finite], trace.losses[finite]
    rows = np.clip(np.searchsorted(steps, [one.step for one in shown], side="right") - 1, 0, max(len(steps) - 1, 0))
    texts, looks, shorts = [], [], []
    for one in shown:
        judged = verdicts.get(one.step)
        text = words.reason(one) if judged is None else f"{words.reason(one)} {words.verdict(judged)}"
        texts.append(html.escape(text))
        looks.append(_LOOK[one.action.name])
        shorts.append("" if judged is None else judged.verdict.short)
    losses = [one.loss if np.isfinite(one.loss) else means[row] if len(means) else 0.0 for one, row in zip(shown, rows)]
    return {
        "step": [one.step for one in shown],
        "loss": _exact(np.array(losses)),
        "lr": _exact(np.array([one.lr_after[0] for one in shown])),
        "look": looks,
        "verdict": shorts,
        "text": texts,
    }


def _shown(reading: Reading, most: int) -> tuple[list[Decision], int]:
    """Decisions that are marked, of all that could be."""
    marked = [one for one in reading.trace.decisions if one.action.name in _LOOK]
    if len(marked) <= most:
        return marked, len(marked)
    refuted = {one.decision.step for one in reading.audit.moves if one.verdict.short == "refuted"}
    rare = [one for one in marked if one.step in refuted or one.action not in (Action.RAISED, Action.CUT)]
    if len(rare) > most // 2:
        rare = _spaced(rare, most // 2)
    kept = {one.step for one in rare}
    others = _spaced([one for one in marked if one.step not in kept], most - len(rare))
    return sorted([*rare, *others], key=lambda one: one.step), len(marked)


def _spaced(items: list[_Item], most: int) -> list[_Item]:
    """All, or of more so many, evenly spaced."""
    if len(items) <= most:
        return items
    return [items[row] for row in np.linspace(0, len(items) - 1, most).astype(int)]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONG else f"{name[: _LONG - 1]}…"


def _lr_points(steps: Ints, lrs: Floats) -> tuple[Ints, Floats]:
    """Steps at which the learning rate changed; a part of them if there are very many."""
    if not len(lrs):
        return steps, lrs
    changed = np.flatnonzero(np.diff(lrs)) + 1
    rows = np.unique(np.concatenate([[0], changed, [len(lrs) - 1]]))
    if len(rows) > 4 * POINTS:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, 4 * POINTS).astype(int))]
    return steps[rows], lrs[rows]


def _stability_limit(metrics: Mapping[str, Metric]) -> tuple[Ints, Floats]:
    """The learning rate above which training is unstable, where it was logged, or 2 over the sharpness."""
    known = metrics.get("stability_limit") or metrics.get("sharpness")
    if known is None:
        return np.empty(0, np.int64), np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        limits = known.values if "stability_limit" in metrics else 2 / known.values
    sound = np.isfinite(limits) & (limits > 0)  # Where the loss curves downwards there is none.
    return _thin(known.steps[sound], limits[sound]) if sound.any() else (known.steps[:0], limits[:0])


def _thin(steps: Ints, values: Floats) -> tuple[Ints, Floats]:
    rows = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).astype(int))
    return steps[rows], values[rows]


def _reduced(function: Any, values: Floats, starts: Any) -> Floats:
    if not len(starts):
        return np.empty(0)
    with np.errstate(over="ignore", invalid="ignore"):
        reduced: Floats = function.reduceat(values, starts)
        return reduced


def _exact(values: Any) -> str:
    return packed(values, "<f8")
