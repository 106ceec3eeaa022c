"""Claims from results: what the statistics are given, and what they say, put together."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from greedylr.lab.analysis.statistics import (
    Case,
    CaseVerdict,
    Difference,
    Outcome,
    RegretAt,
    Regrets,
    StepsToTarget,
    Tally,
    Verdict,
    differences,
    first_step,
    pair_all,
    regret_by_multiplier,
    regrets,
    steps_to_target,
    tally,
    target_loss,
    verdicts,
)
from greedylr.lab.analysis.statistics.differences import STAGES
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.results import Result

TARGET = 0.9
"""Share of the decrease made by the baseline, cosine at the good learning rate, that others are timed to."""

_BASELINE = "cosine"


@dataclass(frozen=True)
class Comparison:
    """One scheduler against one rival, at one stage.

    Attributes:
        difference: Over all cases: how large, how sure.
        tally: The verdicts on the cases, and how often each was given.
    """

    difference: Difference
    tally: Tally


@dataclass(frozen=True)
class Failures:
    """Failures among the runs of one scheduler.

    Attributes:
        scheduler: Its name.
        runs: How many there are.
        failed: How many ended no better than they began, or never did.
        reasons: Why runs broke down, with the number of those that did; the others among the failed trained to the end.
    """

    scheduler: str
    runs: int
    failed: int
    reasons: Counter[str]


_LOST = (Verdict.WORSE, Verdict.CLEARLY_WORSE)


@dataclass(frozen=True)
class Summary:
    """Summary of a set of results.

    Attributes:
        scheduler: The scheduler in question.
        fixed: The schedulers that follow a fixed schedule, in the order in which they were met.
        absolute: Whether what is called multiplier is a learning rate, and not a multiple of one that is known to be
            good.
        outcomes: What the statistics know of each run.
        comparisons: One for each rival and stage.
        steps: How much sooner the target is reached than by each rival; empty where there is no target.
        regrets: Of every scheduler, against the best fixed schedule.
        regret_by_multiplier: The same over problems and optimizers.
        failures: Of every scheduler.
    """

    scheduler: str
    fixed: tuple[str, ...]
    absolute: bool
    outcomes: tuple[Outcome, ...]
    comparisons: tuple[Comparison, ...]
    steps: tuple[StepsToTarget, ...]
    regrets: Regrets
    regret_by_multiplier: tuple[RegretAt, ...]
    failures: tuple[Failures, ...]

    def worst(self, count: int) -> list[CaseVerdict]:
        """The cases that the scheduler loses by most at the end, each against the rival furthest ahead.

        Those in which it is as good are none of them.

        Args:
            count: How many at most.
        """
        found: dict[Case, CaseVerdict] = {}
        for one in self.comparisons:
            if one.difference.stage == 1.0:
                lost = [verdict for verdict in one.tally.verdicts if verdict.verdict in _LOST]
                for verdict in lost:
                    known = found.setdefault(verdict.case, verdict)
                    if verdict.mean < known.mean:
                        found[verdict.case] = verdict
        return sorted(found.values(), key=lambda verdict: (verdict.mean, verdict.case))[:count]


class _Task(NamedTuple):
    problem: str
    optimizer: str
    perturbation: str


class _Curve(NamedTuple):
    steps: list[int]
    losses: list[float]


def summarize(
    results: Iterable[Result],
    scheduler: str = "greedylr",
    *,
    fixed: Collection[str] | None = None,
    stages: Sequence[float] = STAGES,
) -> Summary:
    """Compare a scheduler with every other there is, and say what became of all.

    Args:
        results: Finished runs, in any order, each once; gone through once, and not kept. Of all the learning rate is a
            multiple of the good one, or of none: where it is not, cosine sets the target at that with the lowest loss.
        scheduler: The one in question.
        fixed: Names of the schedulers that follow a fixed schedule; None: all are in the registry, which knows.
        stages: Shares of training at which to compare; every run was validated soon after each.

    Raises:
        ValueError: If the learning rate of some is a multiple and that of others is none, or runs that are compared do
            not start from the same loss.
    """
    reasons: dict[str, Counter[str]] = {}
    made: list[Outcome] = []
    curves: list[_Curve] = []
    absolute: set[bool] = set()
    for result in results:
        absolute.add(result.run.absolute)
        made.append(outcome(result, stages))
        curves.append(_Curve(result.validation_steps, result.validation_losses))
        counter = reasons.setdefault(result.run.scheduler, Counter())
        if result.failure is not None:
            counter[result.failure] += 1
    if len(absolute) > 1:
        raise ValueError("results must give the learning rate alike: as itself, or as a multiple of the good one")
    made = _timed(made, curves, True in absolute)
    judged = differences(made, scheduler, stages=stages)
    pairings = pair_all(made, scheduler)
    tallies = [tally(verdicts(pairing, stage)) for pairing in pairings for stage in stages]
    if fixed is None:
        fixed = [name for name in reasons if SCHEDULERS[name].kind == "fixed"]
    against_best = regrets(made, fixed)
    steps = [steps_to_target(pairing, TARGET) for pairing in pairings]
    return Summary(
        scheduler=scheduler,
        fixed=tuple(name for name in reasons if name in fixed),
        absolute=True in absolute,
        outcomes=tuple(made),
        comparisons=tuple(Comparison(*both) for both in zip(judged, tallies, strict=True)),
        steps=tuple(one for one in steps if one.pairs),
        regrets=against_best,
        regret_by_multiplier=tuple(regret_by_multiplier(against_best.values)),
        failures=tuple(_failures(name, made, reasons[name]) for name in sorted(reasons)),
    )


def outcome(result: Result, stages: Sequence[float] = STAGES) -> Outcome:
    """Outcome of a run, for the statistics.

    The loss of a stage is that of the first validation at or after it, which is the same step for every scheduler;
    NaN if the run broke down before.
    """
    run, steps, losses = result.run, result.validation_steps, result.validation_losses
    places = {stage: bisect_left(steps, stage * run.steps) for stage in stages}
    at_stages = {stage: losses[place] if place < len(losses) else math.nan for stage, place in places.items()}
    return Outcome(
        problem=run.problem,
        optimizer=run.optimizer,
        scheduler=run.scheduler,
        multiplier=run.multiplier,
        seed=run.seed,
        stages=at_stages | {1.0: result.final_loss},
        start=result.start_loss,
        perturbation=run.perturbation,
        metric=result.metric,
    )


def _timed(made: Sequence[Outcome], curves: Sequence[_Curve], absolute: bool) -> list[Outcome]:
    """The outcomes, with the steps to the target where the baseline sets one."""
    baselines: dict[_Task, dict[float, list[Outcome]]] = {}
    for one in made:
        if one.scheduler == _BASELINE and (absolute or one.multiplier == 1.0):
            baselines.setdefault(_task(one), {}).setdefault(one.multiplier, []).append(one)
    targets = {
        task: min(target_loss(runs, TARGET) for runs in learnt)
        for task, rates in baselines.items()
        if (learnt := [runs for runs in rates.values() if not all(one.failed for one in runs)])
    }
    return [
        replace(one, steps_to={TARGET: first_step(*curve, targets[_task(one)])}) if _task(one) in targets else one
        for one, curve in zip(made, curves, strict=True)
    ]


def _task(one: Outcome) -> _Task:
    return _Task(one.problem, one.optimizer, one.perturbation)


def _failures(scheduler: str, made: Iterable[Outcome], reasons: Counter[str]) -> Failures:
    its = [one for one in made if one.scheduler == scheduler]
    return Failures(scheduler, len(its), sum(one.failed for one in its), reasons)
