"""A store as ``greedylr report`` reads it: what one would ask of each scheduler before putting it into production.

The rows are those of recorded runs, and are computed by the same code. What the lab knows better than a trace can
tell is taken from the lab: what failed, what a final loss is worth beside others, and how far a disturbed run is from
its twin. ``docs/pulse.md`` defines each row.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from typing import Any, NamedTuple

from greedylr.lab.analysis.recovery import recovery, twin_of
from greedylr.lab.analysis.statistics import Entry, Outcome, Regret, regrets
from greedylr.lab.analysis.statistics.estimate import median
from greedylr.lab.analysis.summary import outcome
from greedylr.lab.catalogue.perturbations import find
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.execution.store import Store
from greedylr.lab.report import words
from greedylr.lab.results import Result
from greedylr.lab.runs import Run
from greedylr.pulse.diagnosis.audit import Audit, audits
from greedylr.pulse.report import readiness
from greedylr.pulse.report.readiness import Facts, Row, Table

_TOGETHER = 500
"""Runs whose moves are judged together: fewer take longer, and of more the curves take memory."""


@dataclass(frozen=True)
class Production:
    """Readiness tables of a store, with a column for each scheduler.

    Attributes:
        runs: How many runs there are.
        schedulers: How many schedulers.
        cases: How many cases: problem, optimizer, learning rate, perturbation, number of steps.
        seeds: How many seeds.
        table: Of all runs.
        by_rate: Of the runs at each learning rate, a multiple of the good one, if there are several; without those
            rates that only some of the problems were run at.
        unfinished: In how many places a fixed schedule lacks runs, so that regrets may be too small.
        without_twin: How many disturbed runs have no twin to say whether they recovered.
    """

    runs: int
    schedulers: int
    cases: int
    seeds: int
    table: Table
    by_rate: dict[float, Table]
    unfinished: int
    without_twin: int


class _Case(NamedTuple):
    """Group of runs whose losses can be compared with each other."""

    problem: str
    optimizer: str
    multiplier: float
    perturbation: str
    steps: int

    @classmethod
    def of(cls, run: Run) -> _Case:
        return cls(run.problem, run.optimizer, run.multiplier, run.perturbation, run.steps)


class _Known(NamedTuple):
    """All that is kept of a run."""

    run: Run
    outcome: Outcome
    facts: Facts


class _Ended(NamedTuple):
    """Final losses of the runs of one scheduler in one case; no deviation for a single seed."""

    scheduler: str
    multiplier: float
    regret: float
    deviation: float | None


def evaluate(store: Store, runs: Sequence[Run], done: Callable[[], None] = lambda: None) -> Production:
    """Read what a store has of some runs, and judge it.

    Args:
        store: Where the results are; gone through once, and curves are not kept, but those of the twins of disturbed
            runs.
        runs: Which of them, at least one, those without a disturbance first, as :meth:`Store.present` has them.
        done: Called after each.

    Raises:
        StoreError: If the store cannot be read.
        ValueError: If runs of one problem and seed do not start from the same loss.
    """
    wanted = {twin_of(run) for run in runs if _changes_training(run)}
    twins: dict[Run, Result] = {}
    known: list[_Known] = []
    without_twin = 0
    results = store.load(runs)
    while some := list(islice(results, _TOGETHER)):
        for result, judged in zip(some, _audits(some), strict=True):
            twin = twins.get(twin_of(result.run))
            its = outcome(result)
            known.append(_Known(result.run, its, _facts(result, its, judged, twin)))
            without_twin += twin is None and _changes_training(result.run)
            if result.run in wanted:
                twins[result.run] = result
            done()
    ended, unfinished = _endings(known)
    rates = _rates(one.run for one in known)
    return Production(
        runs=len(known),
        schedulers=len({one.run.scheduler for one in known}),
        cases=len({_Case.of(one.run) for one in known}),
        seeds=len({one.run.seed for one in known}),
        table=_table(known, ended, rates),
        by_rate={
            rate: _table(
                [one for one in known if one.run.multiplier == rate],
                [one for one in ended if one.multiplier == rate],
            )
            for rate in rates
        },
        unfinished=unfinished,
        without_twin=without_twin,
    )


def facts_of(result: Result, twin: Result | None = None) -> Facts:
    """Values of the readiness table for one run.

    Args:
        result: What the run left.
        twin: What its twin did, if it is disturbed and there is one.

    Raises:
        ValueError: If ``twin`` is not the twin.
    """
    return _facts(result, outcome(result), _audits([result])[0], twin)


def _audits(results: Sequence[Result]) -> list[Audit]:
    """The moves of some runs, judged, as far as the loss can say whether they were right."""
    # It cannot where it was not what the scheduler was given.
    told = [PROBLEMS[one.run.problem].task.observe is None and bool(one.record.moves) for one in results]
    judged = iter(audits(one.record for one in compress(results, told)))
    return [next(judged) if its else Audit(()) for its in told]


def _facts(result: Result, ended: Outcome, judged: Audit, twin: Result | None) -> Facts:
    record = result.record
    recoveries: list[int | None] = []
    if twin is not None and (measured := recovery(result, twin)).disrupted:
        recoveries = [measured.steps]
    return Facts(
        final=ended.counted_loss(1.0, ended.start),
        efficiency=readiness.efficiency(record),
        failed=ended.failed,
        recoveries=recoveries,
        sensitivity=None,
        # Of others it is not known what they do for the loss, and what by the step.
        moves=readiness.moves(record) if SCHEDULERS[result.run.scheduler].moves_for_the_loss else None,
        reversals=readiness.reversals(record),
        refuted=readiness.refuted(judged),
    )


def _changes_training(run: Run) -> bool:
    """True if a run is disturbed by more than a number that changes nothing."""
    found = find(run.perturbation)
    return found is not None and found.kind.acts_on != "nothing"


def _endings(known: Iterable[_Known]) -> tuple[list[_Ended], int]:
    """Final losses beside the best fixed schedule, and the number of places in which that lacks runs."""
    fixed = [name for name, entry in SCHEDULERS.items() if entry.kind == "fixed"]
    ended: list[_Ended] = []
    unfinished = 0
    # A store may have runs of one problem in two lengths, of two suites: they are not compared.
    for alike in _by(known, lambda one: one.run.steps).values():
        present = {one.run.scheduler for one in alike}
        found = regrets([one.outcome for one in alike], [name for name in fixed if name in present])
        # Where no fixed schedule can be run at all, as with disturbed observations, none is unfinished.
        judged = {_task(one.entry) for one in found.values}
        unfinished += sum(_task(one) in judged for one in found.unfinished)
        seeds = _by(alike, lambda one: (_Case.of(one.run), one.run.scheduler))
        for regret in found.values:
            case = _Case(*regret.entry[:2], regret.entry.multiplier, regret.entry.perturbation, alike[0].run.steps)
            spread = _deviation(regret, [one.outcome for one in seeds[case, regret.entry.scheduler]])
            ended.append(_Ended(regret.entry.scheduler, regret.entry.multiplier, regret.value, spread))
    return ended, unfinished


def _task(entry: Entry) -> tuple[str, ...]:
    return entry.problem, entry.optimizer, entry.perturbation


def _deviation(regret: Regret, its: Sequence[Outcome]) -> float | None:
    """Standard deviation of the counted final losses, in units of the decrease that the best fixed schedule made."""
    decrease = statistics.fmean(one.start for one in its) - regret.best_loss
    if len(its) < 2 or not decrease > 0:
        return None
    return statistics.stdev(one.counted_loss(1.0, one.start) for one in its) / decrease


def _rates(runs: Iterable[Run]) -> list[float]:
    """The learning rates that most problems were run at, if there are several: the others say little of all."""
    at = _by(runs, lambda run: run.multiplier)
    problems = {rate: {run.problem for run in its} for rate, its in at.items()}
    every = set().union(*problems.values())
    rates = sorted(rate for rate, its in problems.items() if 2 * len(its) > len(every))
    return rates if len(at) > 1 else []


def _table(known: Sequence[_Known], ended: Sequence[_Ended], rates: Sequence[float] = ()) -> Table:
    """The table of some runs, with regret at some learning rates apart."""
    order = list(SCHEDULERS)
    by_name = _by(known, lambda one: one.run.scheduler)
    names = sorted(by_name, key=order.index)
    cases = {_Case.of(one.run) for one in known}
    groups = {words.title(name): [one.facts for one in by_name[name]] for name in names}
    if len(cases) == 1:
        final = _plain_rows(next(iter(cases)).problem, [by_name[name] for name in names])
    else:
        by_ended = _by(ended, lambda one: one.scheduler)
        final = _regret_rows([by_ended.get(name, []) for name in names], rates)
    return readiness.table(groups, final)


def _plain_rows(problem: str, of: Sequence[Sequence[_Known]]) -> list[Row]:
    """Final losses of runs of one case: they can be compared as they are."""
    finals = [[one.facts.final for one in runs] for runs in of]
    metrics = [[one.outcome.metric for one in runs] for runs in of]
    return [
        ("final validation loss, mean", [readiness.mean(values) for values in finals]),
        ("its standard deviation across seeds", [readiness.deviation(values) for values in finals]),
        (f"{PROBLEMS[problem].task.metric_name}, mean", [readiness.mean(values) for values in metrics]),
    ]


def _regret_rows(of: Sequence[Sequence[_Ended]], rates: Sequence[float]) -> list[Row]:
    """Final losses of runs of several cases: each beside the best fixed schedule of its own case."""

    def at(rate: float) -> list[str]:
        return [_median([one.regret for one in its if one.multiplier == rate], ".2f") for its in of]

    return [
        ("regret of the final loss, median", [_median([one.regret for one in its], ".2f") for its in of]),
        *((f"… at learning rate {words.rate(rate, False)}", at(rate)) for rate in rates),
        (
            "deviation across seeds, share of the decrease",
            [_median([one.deviation for one in its if one.deviation is not None], ".1%") for its in of],
        ),
    ]


def _median(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}}" if values else "–"


def _by(values: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups
