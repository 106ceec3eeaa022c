"""Robustness section of the page, prepared so that template and script need only show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from greedylr.lab.analysis.robustness import Behind, By, Measure, Robustness, RobustnessRow, worst
from greedylr.lab.catalogue.perturbations import KINDS, find
from greedylr.lab.report import words
from greedylr.lab.report.disturbed import Disturbed
from greedylr.lab.report.robustness_tables import COLUMNS, MEASURES, beside, beside_protocol, cells, median_text
from greedylr.lab.report.trajectories import Scene

WORST = 8
"""Number of worst cases that are listed for each measure."""

_LEVELS: dict[By, str] = {"place": "where they act", "kind": "kind", "perturbation": "kind and strength"}
_PLACES = {
    "gradient": "on the gradient",
    "data": "on the data",
    "state": "on the state",
    "observation": "on the observation",
}


def section(disturbed: Disturbed, names: list[str]) -> dict[str, Any]:
    """The section's contents.

    Args:
        disturbed: What there is to say.
        names: All schedulers, in the order in which they are listed.
    """
    scenes = disturbed.trajectories.scenes()
    tables = {by: disturbed.robustness(by) for by in _LEVELS}
    worst_of = {measure: _worst(disturbed, tables["kind"], measure) for measure in MEASURES}
    return {
        "published": disturbed.published,
        "identical": sum(row.identical for row in disturbed.published if row.perturbation != "none"),
        "of": sum(row.runs for row in disturbed.published if row.perturbation != "none"),
        "without_twin": len(disturbed.measured.without_twin),
        "runs": len(disturbed.measured.recoveries),
        "twins": len(disturbed.measured.twins),
        "worst": worst_of,
        "measures": MEASURES,
        "beside": beside(disturbed.robustness("side"), disturbed.scheduler),
        "beside_protocol": beside_protocol(disturbed.published, disturbed.scheduler),
        "columns": ("final loss", *COLUMNS),
        "levels": _LEVELS,
        "rates": _rates(disturbed),
        "tables": {by: _rows(summary, names) for by, summary in tables.items()},
        "shown": [name for name in names if name in disturbed.trajectories.schedulers],
        "scenes": _by_perturbation(disturbed, scenes),
        "twins_curves": [disturbed.trajectories.data(scene) for scene in dict.fromkeys(map(Scene.twins, scenes))],
        "perturbations": _perturbations(scenes),
        "places": {
            "problem": {scene.problem: scene.problem for scene in scenes},
            "optimizer": {scene.optimizer: scene.optimizer for scene in scenes},
            "multiplier": {scene.multiplier: words.rate(scene.multiplier, absolute=False) for scene in scenes},
        },
        "first": _first(worst_of["excess"], scenes),
    }


def _worst(disturbed: Disturbed, kinds: Robustness, measure: Measure) -> list[dict[str, Any]]:
    return [
        {
            "kind": KINDS[one.own.perturbations].title,
            "rate": words.rate(one.own.multiplier, absolute=False),
            "best": words.title(one.best.scheduler),
            "values": [median_text(getattr(row, measure), ".3f") for row in (one.own, one.best)],
            "finals": [median_text(row.final) for row in (one.own, one.best)],
            "scene": _scene(disturbed, one),
        }
        for one in worst(kinds, disturbed.scheduler, measure)[:WORST]
    ]


def _scene(disturbed: Disturbed, one: Behind) -> dict[str, Any] | None:
    """Case that shows it best in the trajectories."""
    scene = disturbed.most_disturbed(one.own.perturbations, one.own.multiplier)
    return None if scene is None else scene._asdict()


def _first(worst_ones: list[dict[str, Any]], scenes: list[Scene]) -> dict[str, Any] | None:
    """Case that is shown before the reader has chosen: the worst."""
    return worst_ones[0]["scene"] if worst_ones else scenes[0]._asdict() if scenes else None


def _rates(disturbed: Disturbed) -> dict[float, str]:
    """Learning rates to select from."""
    found = sorted({one.run.multiplier for one in disturbed.measured.recoveries})
    return {multiplier: words.rate(multiplier, absolute=False) for multiplier in found}


def _rows(summary: Robustness, names: list[str]) -> list[list[str | float]]:
    """Learning rate, perturbations, scheduler and cells: schedulers in order, what disturbs them as it was met."""
    groups = list(dict.fromkeys(row.perturbations for row in summary.rows))

    def order(row: RobustnessRow) -> tuple[int, int]:
        return groups.index(row.perturbations), names.index(row.scheduler)

    return [
        [row.multiplier, _title(row.perturbations), row.scheduler, median_text(row.final), *cells(row)]
        for row in sorted(summary.rows, key=order)
    ]


def _title(perturbations: str) -> str:
    if perturbations in _PLACES:
        return _PLACES[perturbations]
    if perturbations in KINDS:
        return KINDS[perturbations].title
    found = find(perturbations)
    return perturbations if found is None else f"{found.kind.title}, {found.strength:g}"


def _by_perturbation(disturbed: Disturbed, scenes: list[Scene]) -> dict[str, list[dict[str, Any]]]:
    made: dict[str, list[dict[str, Any]]] = {}
    for scene in scenes:
        made.setdefault(scene.perturbation, []).append(disturbed.trajectories.data(scene))
    return made


def _perturbations(scenes: list[Scene]) -> Mapping[str, Mapping[str, str]]:
    """Names of perturbations, and what to call them, by the title of the kind."""
    made: dict[str, dict[str, str]] = {}
    for scene in scenes:
        found = find(scene.perturbation)
        if found is not None:
            made.setdefault(found.kind.title, {})[scene.perturbation] = _title(scene.perturbation)
    return made
