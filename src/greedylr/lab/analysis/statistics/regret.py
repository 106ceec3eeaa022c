"""Regret: what a scheduler loses against the best fixed schedule at its best learning rate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import product
from typing import NamedTuple

from greedylr.lab.analysis.statistics import estimate
from greedylr.lab.analysis.statistics.estimate import Interval
from greedylr.lab.analysis.statistics.outcome import Outcome, common_start, ratio_makes_sense


class Task(NamedTuple):
    """Runs among which the best fixed schedule is sought: at any learning rate."""

    problem: str
    optimizer: str
    perturbation: str


class Entry(NamedTuple):
    """The runs of one scheduler at one learning rate, over seeds.

    Attributes:
        problem: Name of the problem.
        optimizer: Name of the optimizer.
        perturbation: Name of the perturbation.
        scheduler: Name of the scheduler.
        multiplier: Initial learning rate as a multiple of the tuned one.
        seeds: In order.
    """

    problem: str
    optimizer: str
    perturbation: str
    scheduler: str
    multiplier: float
    seeds: tuple[int, ...]


class _Name(NamedTuple):
    scheduler: str
    multiplier: float


class _Best(NamedTuple):
    loss: float
    entry: Entry


class Measure(Enum):
    """Unit of a regret; 1 is perfect in either."""

    RATIO = "ratio of the losses"
    SHARE = "1 + the share of the achievable decrease that was missed"


@dataclass(frozen=True)
class Regret:
    """Regret of one scheduler at one learning rate, over seeds.

    Attributes:
        entry: The runs.
        value: 1: as good as the best fixed schedule at its best learning rate. Above: worse.
        measure: What the value is: the ratio, unless the best loss is near zero or negative.
        loss: Mean final loss over seeds, failed runs counted with the start.
        best: The fixed schedule with the lowest such mean over the same seeds.
        best_loss: Its mean.
        failed: How many of the runs failed.
    """

    entry: Entry
    value: float
    measure: Measure
    loss: float
    best: Entry
    best_loss: float
    failed: int


@dataclass(frozen=True)
class Regrets:
    """All regrets, and what was in their way.

    Attributes:
        values: In the order of problem, optimizer, perturbation, scheduler and multiplier.
        without_baseline: Runs for which no fixed schedule has finished the same seeds: not judged.
        unfinished: Fixed schedules that lack ``seeds`` at a multiplier which others were run at. Where they
            are no candidates for the best, regrets may come out too small.
    """

    values: tuple[Regret, ...]
    without_baseline: tuple[Entry, ...]
    unfinished: tuple[Entry, ...]


@dataclass(frozen=True)
class RegretAt:
    """Regret of one scheduler at one learning-rate multiplier, over problems and optimizers.

    Attributes:
        scheduler: Name of the scheduler.
        multiplier: Initial learning rate as a multiple of the tuned one.
        median: Over problems, optimizers and perturbations.
        interval: Of the median; None for a single regret.
        largest: The worst.
        cases: How many regrets there are.
        ratios: How many of them are ratios of losses; the others are shares of the decrease.
        runs: How many runs they stand on.
        failed: How many of those failed; they count, with the start.
    """

    scheduler: str
    multiplier: float
    median: float
    interval: Interval | None
    largest: float
    cases: int
    ratios: int
    runs: int
    failed: int


def regrets(outcomes: Iterable[Outcome], fixed: Collection[str]) -> Regrets:
    """Regret of every scheduler at every learning rate, per problem, optimizer and perturbation.

    Args:
        outcomes: Finished runs, in any order.
        fixed: Names of the schedulers that follow a fixed schedule: what regret is measured against.

    Raises:
        ValueError: If a run is there twice, or runs of one problem and seed do not start alike.
    """
    tasks: dict[Task, dict[_Name, dict[int, Outcome]]] = {}
    for outcome in outcomes:
        task = Task(outcome.problem, outcome.optimizer, outcome.perturbation)
        seeds = tasks.setdefault(task, {}).setdefault(_Name(outcome.scheduler, outcome.multiplier), {})
        if seeds.setdefault(outcome.seed, outcome) is not outcome:
            raise ValueError(
                f"outcomes must hold each run once, got two of {outcome.scheduler}: {outcome.case}, seed {outcome.seed}"
            )
    judged = [_judge(task, tasks[task], fixed) for task in sorted(tasks)]
    return Regrets(
        values=tuple(regret for one in judged for regret in one.values),
        without_baseline=tuple(entry for one in judged for entry in one.without_baseline),
        unfinished=tuple(entry for one in judged for entry in one.unfinished),
    )


def regret_by_multiplier(values: Iterable[Regret], level: float = 0.95) -> list[RegretAt]:
    """Median regret with its interval for each scheduler and multiplier, in that order.

    Args:
        values: The regrets.
        level: Of the intervals.
    """
    groups: dict[_Name, list[Regret]] = {}
    for regret in values:
        groups.setdefault(_Name(regret.entry.scheduler, regret.entry.multiplier), []).append(regret)
    rows = []
    for (scheduler, multiplier), group in sorted(groups.items()):
        numbers = [regret.value for regret in group]
        rows.append(
            RegretAt(
                scheduler=scheduler,
                multiplier=multiplier,
                median=estimate.median(numbers),
                interval=estimate.median_interval(numbers, level),
                largest=max(numbers),
                cases=len(group),
                ratios=sum(regret.measure is Measure.RATIO for regret in group),
                runs=sum(len(regret.entry.seeds) for regret in group),
                failed=sum(regret.failed for regret in group),
            )
        )
    return rows


def _judge(task: Task, runs: Mapping[_Name, Mapping[int, Outcome]], fixed: Collection[str]) -> Regrets:
    by_seed: dict[int, list[Outcome]] = {}
    for mine in runs.values():
        for seed, outcome in mine.items():
            by_seed.setdefault(seed, []).append(outcome)
    starts = {seed: common_start(alike) for seed, alike in by_seed.items()}
    candidates = {name: theirs for name, theirs in runs.items() if name.scheduler in fixed}

    @cache
    def best(seeds: tuple[int, ...]) -> _Best | None:
        able = ((name, theirs) for name, theirs in candidates.items() if theirs.keys() >= set(seeds))
        return min(
            (_Best(_loss(theirs, seeds, starts), Entry(*task, *name, seeds)) for name, theirs in able), default=None
        )

    values, without_baseline = [], []
    for name, mine in sorted(runs.items()):
        entry = Entry(*task, *name, tuple(sorted(mine)))
        baseline = best(entry.seeds)
        if baseline is None:
            without_baseline.append(entry)
        else:
            values.append(_regret(entry, mine, baseline, starts))
    wanted = [_Name(*name) for name in product(sorted(set(fixed)), sorted({name.multiplier for name in runs}))]
    unfinished = [
        Entry(*task, *name, lacking)
        for name in wanted
        if (lacking := tuple(sorted(starts.keys() - candidates.get(name, {}).keys())))
    ]
    return Regrets(tuple(values), tuple(without_baseline), tuple(unfinished))


def _regret(entry: Entry, runs: Mapping[int, Outcome], baseline: _Best, starts: Mapping[int, float]) -> Regret:
    loss, best = _loss(runs, entry.seeds, starts), baseline.loss
    start = estimate.mean([starts[seed] for seed in entry.seeds])
    measure = Measure.RATIO if ratio_makes_sense(best, start) else Measure.SHARE
    value = loss / best if measure is Measure.RATIO else _missed(loss, best, start)
    failed = sum(outcome.failed for outcome in runs.values())
    return Regret(entry, value, measure, loss, baseline.entry, best, failed)


def _loss(runs: Mapping[int, Outcome], seeds: tuple[int, ...], starts: Mapping[int, float]) -> float:
    return estimate.mean([runs[seed].counted_loss(1.0, starts[seed]) for seed in seeds])


def _missed(loss: float, best: float, start: float) -> float:
    """Regret from 0, where only the scheduler made progress, over 1, the best's, to 2, where it made none."""
    decrease = start - min(loss, best)
    return 1 + (loss - best) / decrease if decrease > 0 else 1.0
