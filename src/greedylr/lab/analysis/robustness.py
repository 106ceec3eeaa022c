"""Statements about schedulers from disturbed runs and their twins; defined in ``docs/robustness.md``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np

from greedylr.lab.analysis.recovery import TOLERANCE, Recovery, clean_losses, cuts, published_ratio, recovery, twin_of
from greedylr.lab.analysis.statistics import Interval, Proportion, median_interval, proportion
from greedylr.lab.analysis.statistics.estimate import median
from greedylr.lab.catalogue.perturbations import find
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

By = Literal["perturbation", "kind", "place", "side"]
"""Grouping of runs: of one perturbation, of one kind in all strengths, of all that act at one place, or of
all that act on the training, and all that act on what is told of it."""

Measure = Literal["excess", "validation_ratio"]
"""Measure that schedulers are compared by: the area above the twin, or the final loss over the twin's."""


class Median(NamedTuple):
    """A median over problems, each of which counts with its own.

    Attributes:
        value: The median; NaN if there are no values.
        interval: Exact interval at 95 %; None for fewer than two problems.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class RobustnessRow:
    """Outcome of the runs of one scheduler under some perturbations, at one learning rate.

    Attributes:
        scheduler: Its name.
        perturbations: What they are called together: as asked for, a perturbation, a kind, or a place.
        multiplier: Initial learning rate as a multiple of the good one.
        runs: How many were disturbed.
        problems: How many problems they are on.
        unmeasured: Runs whose twin failed; they go into ``failed`` and the false alarms only.
        failed: Runs that ended no better than they began.
        final: Final validation loss; infinite where it is not finite, or a run broke down.
        validation_ratio: Final validation loss over the twin's.
        training_gap: By how much the final clean training loss is above the twin's, as a share of its decrease.
        disrupted: Of the runs that are measured, how many were away from their twins while they were disturbed.
        steps: Steps to recover of these; infinite where most runs of most problems do not.
        recovered: How many of these got back.
        excess: Area between the run and its twin over the twin's decrease, in steps.
        published_ratio: Largest over last training loss, the published "recovery ratio".
        false_alarms: Cuts of the learning rate in 100 quiet steps; None of schedules that never react.
        missed: Of the runs that were disrupted, how many did not react; None where training is not disturbed.
    """

    scheduler: str
    perturbations: str
    multiplier: float
    runs: int
    problems: int
    unmeasured: int
    failed: int
    final: Median
    validation_ratio: Median
    training_gap: Median
    disrupted: Proportion
    steps: Median
    recovered: Proportion
    excess: Median
    published_ratio: Median
    false_alarms: float | None
    missed: Proportion | None


@dataclass(frozen=True)
class TwinRow:
    """Outcome of the undisturbed runs of one scheduler at one learning rate.

    Attributes:
        scheduler: Its name.
        multiplier: Initial learning rate as a multiple of the good one.
        runs: How many there are.
        failed: Runs that ended no better than they began.
        published_ratio: Largest over last training loss: with nothing to recover from.
        false_alarms: Cuts of the learning rate in 100 steps, all of them quiet; None of schedules that never react.
    """

    scheduler: str
    multiplier: float
    runs: int
    failed: int
    published_ratio: Median
    false_alarms: float | None


@dataclass(frozen=True)
class Robustness:
    """Robustness, as a set of results shows it.

    Attributes:
        by: What was put together.
        rows: In the order in which scheduler, perturbations and multiplier were met.
        twins: Of every scheduler and multiplier.
        without_twin: Disturbed runs whose twin is not there; they count nowhere.
    """

    by: By
    rows: tuple[RobustnessRow, ...]
    twins: tuple[TwinRow, ...]
    without_twin: tuple[Run, ...]


@dataclass(frozen=True)
class Measured:
    """Effect of every disturbance on its run; small, where the results themselves are large.

    Attributes:
        recoveries: Of each disturbed run whose twin is there, in the order in which they were met.
        twins: The results of the runs that nothing disturbed, each once.
        without_twin: Disturbed runs whose twin is not there.
    """

    recoveries: tuple[Recovery, ...]
    twins: tuple[Result, ...]
    without_twin: tuple[Run, ...]


@dataclass(frozen=True)
class Behind:
    """Distance by which a scheduler is behind the best other one under some perturbations, at one learning rate.

    Attributes:
        own: Its row.
        best: The row of the one that does best.
        behind: What is between the two, in units of the measure.
    """

    own: RobustnessRow
    best: RobustnessRow
    behind: float


@dataclass(frozen=True)
class PublishedRow:
    """Measures of the published protocol for one scheduler under one of its perturbations.

    Attributes:
        scheduler: Its name.
        perturbation: Its name; ``"none"`` for the runs without any.
        runs: How many there are.
        identical: How many have every loss and learning rate in common with the twin, bit for bit.
        difference: Largest difference of a loss from the twin's, over all steps, validations and runs.
        final: Median final training loss over runs.
        published_ratio: Median over runs of the largest over the last training loss.
    """

    scheduler: str
    perturbation: str
    runs: int
    identical: int
    difference: float
    final: float
    published_ratio: float


class _Key(NamedTuple):
    scheduler: str
    perturbations: str
    multiplier: float


def measure(results: Iterable[Result], tolerance: float = TOLERANCE) -> Measured:
    """Measure what each disturbance did.

    Args:
        results: Disturbed runs and their twins, in any order, each once; gone through once. Only the twins are kept,
            and those that come before their twins, so that it is best to begin with the twins, as suites do.
        tolerance: Share of the twin's decrease within which a run is back.

    Raises:
        KeyError: If there is no such perturbation or scheduler.
        ValueError: If the tolerance is not positive.
    """
    twins: dict[Run, Result] = {}
    recoveries: list[Recovery] = []
    waiting: list[Result] = []
    for result in results:
        if result.run.perturbation == "none":
            twins[result.run] = result
        elif twin_of(result.run) in twins:
            recoveries.append(recovery(result, twins[twin_of(result.run)], tolerance))
        else:
            waiting.append(result)
    without = []
    for result in waiting:
        if twin_of(result.run) in twins:
            recoveries.append(recovery(result, twins[twin_of(result.run)], tolerance))
        else:
            without.append(result.run)
    return Measured(tuple(recoveries), tuple(twins.values()), tuple(without))


def put_together(measured: Measured, by: By) -> Robustness:
    """Say what perturbations did to the runs of each scheduler.

    Args:
        measured: What they did to each run.
        by: What to put together.
    """
    groups: dict[_Key, list[Recovery]] = {}
    for one in measured.recoveries:
        key = _Key(one.run.scheduler, _together(one.run.perturbation, by), one.run.multiplier)
        groups.setdefault(key, []).append(one)
    of_twins: dict[tuple[str, float], list[Result]] = {}
    for twin in measured.twins:
        of_twins.setdefault((twin.run.scheduler, twin.run.multiplier), []).append(twin)
    return Robustness(
        by=by,
        rows=tuple(_row(key, recoveries) for key, recoveries in groups.items()),
        twins=tuple(_twin_row(*key, its) for key, its in of_twins.items()),
        without_twin=measured.without_twin,
    )


def summarize_robustness(results: Iterable[Result], by: By = "place", tolerance: float = TOLERANCE) -> Robustness:
    """Measure what each disturbance did, and say it of each scheduler: :func:`measure` and :func:`put_together`.

    Args:
        results: Disturbed runs and their twins, in any order, each once.
        by: What to put together.
        tolerance: Share of the twin's decrease within which a run is back.

    Raises:
        KeyError: If there is no such perturbation or scheduler.
        ValueError: If the tolerance is not positive.
    """
    return put_together(measure(results, tolerance), by)


def worst(summary: Robustness, scheduler: str, by_measure: Measure) -> list[Behind]:
    """Cases in which a scheduler is behind the best other one, and by how much, the worst first.

    A scheduler is compared by what a disturbance did to its own runs. One whose learning rate is tiny is hardly
    disturbed, and does well here, however bad its losses are.

    Args:
        summary: What perturbations did.
        scheduler: The one in question.
        by_measure: What to compare by; rows in which it is not known are left out.
    """

    def value(row: RobustnessRow) -> float:
        found: Median = getattr(row, by_measure)
        return found.value

    groups: dict[tuple[str, float], list[RobustnessRow]] = {}
    for row in summary.rows:
        if math.isfinite(value(row)):
            groups.setdefault((row.perturbations, row.multiplier), []).append(row)
    found = []
    for rows in groups.values():
        own = [row for row in rows if row.scheduler == scheduler]
        others = [row for row in rows if row.scheduler != scheduler]
        if own and others:
            best = min(others, key=value)
            found.append(Behind(own[0], best, value(own[0]) - value(best)))
    return sorted((one for one in found if one.behind > 0), key=lambda one: -one.behind)


def summarize_published(results: Iterable[Result]) -> tuple[PublishedRow, ...]:
    """Say what the published protocol measures: for each scheduler and perturbation, beside the runs without any.

    Args:
        results: Of the suite ``robustness-published``: runs and their twins, in any order, each once; kept in memory.

    Raises:
        ValueError: If a twin is not there.
    """
    known = {result.run: result for result in results}
    groups: dict[tuple[str, str], list[Result]] = {}
    for run, result in known.items():
        if twin_of(run) not in known:
            raise ValueError(f"results must hold the twin of every run, got none of {run}")
        groups.setdefault((run.scheduler, run.perturbation), []).append(result)
    rows = []
    for (scheduler, perturbation), its in groups.items():
        differences = [_difference(result, known[twin_of(result.run)]) for result in its]
        rows.append(
            PublishedRow(
                scheduler=scheduler,
                perturbation=perturbation,
                runs=len(its),
                identical=sum(difference == 0 for difference in differences),
                difference=max(differences),
                final=median([result.losses[-1] for result in its]),
                published_ratio=median(_known([published_ratio(result.record.losses) for result in its])),
            )
        )
    return tuple(rows)


@cache
def _together(perturbation: str, by: By) -> str:
    found = find(perturbation)
    if by == "perturbation" or found is None:
        return perturbation
    if by == "kind":
        return found.kind.name
    if by == "place":
        return found.kind.acts_on
    return "observation" if found.kind.acts_on == "observation" else "training"


def _row(key: _Key, recoveries: Sequence[Recovery]) -> RobustnessRow:
    measured = [one for one in recoveries if not one.twin_failed]
    disrupted = [one for one in measured if one.disrupted]
    of_training = any(one.missed is not None for one in recoveries)
    return RobustnessRow(
        *key,
        runs=len(recoveries),
        problems=len({one.run.problem for one in recoveries}),
        unmeasured=len(recoveries) - len(measured),
        failed=sum(one.failed for one in recoveries),
        final=_median([(one.run, one.validation if math.isfinite(one.validation) else math.inf) for one in recoveries]),
        validation_ratio=_median([(one.run, one.validation_ratio) for one in measured]),
        training_gap=_median([(one.run, one.training_gap) for one in measured]),
        disrupted=proportion(len(disrupted), len(measured)),
        steps=_median([(one.run, math.inf if one.steps is None else float(one.steps)) for one in disrupted]),
        recovered=proportion(sum(one.steps is not None for one in disrupted), len(disrupted)),
        excess=_median([(one.run, one.excess) for one in measured]),
        published_ratio=_median([(one.run, one.published_ratio) for one in recoveries]),
        false_alarms=_rate([(one.false_alarms, one.quiet_steps) for one in recoveries]),
        missed=proportion(sum(bool(one.missed) for one in disrupted), len(disrupted)) if of_training else None,
    )


def _twin_row(scheduler: str, multiplier: float, twins: Sequence[Result]) -> TwinRow:
    alarms = [(cuts(twin), twin.run.steps) for twin in twins]
    return TwinRow(
        scheduler,
        multiplier,
        runs=len(twins),
        failed=sum(twin.diverged for twin in twins),
        published_ratio=_median([(twin.run, published_ratio(twin.record.losses)) for twin in twins]),
        false_alarms=_rate([(None if steps is None else len(steps), of) for steps, of in alarms]),
    )


def _median(values: Iterable[tuple[Run, float]]) -> Median:
    """The median over problems of the medians of their runs; what is not known is left out."""
    of_problem: dict[str, list[float]] = {}
    for run, value in values:
        if not math.isnan(value):
            of_problem.setdefault(run.problem, []).append(value)
    medians = [median(its) for its in of_problem.values()]
    return Median(median(medians), median_interval(medians))


def _rate(counts: Iterable[tuple[int | None, int]]) -> float | None:
    """Number in 100 steps, over all runs together."""
    known = [(count, steps) for count, steps in counts if count is not None]
    steps = sum(of for _, of in known)
    return 100 * sum(count for count, _ in known) / steps if steps else None


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _difference(result: Result, twin: Result) -> float:
    """The largest difference of a loss, or of a learning rate; equal if both are not finite in the same way."""
    curves = [
        np.array([*clean_losses(one), *one.losses, *one.lrs, *one.validation_losses], float) for one in (result, twin)
    ]
    if len(curves[0]) != len(curves[1]):
        return math.inf
    unlike = ~((curves[0] == curves[1]) | (np.isnan(curves[0]) & np.isnan(curves[1])))
    if not unlike.any():
        return 0.0
    differences = np.abs(curves[0][unlike] - curves[1][unlike])
    return float(np.where(np.isnan(differences), math.inf, differences).max())
