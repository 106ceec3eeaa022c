"""From results to claims: what the statistics are given, and what they say, put together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from greedylr.lab.runs import Result
from greedylr.lab.schedulers import SCHEDULERS
from greedylr.lab.statistics import (
    Difference,
    Outcome,
    RegretAt,
    Regrets,
    Tally,
    differences,
    first_step,
    pair_all,
    regret_by_multiplier,
    regrets,
    tally,
    target_loss,
    verdicts,
)
from greedylr.lab.statistics.differences import STAGES

TARGET = 0.9
"""Share of the decrease made by the baseline, cosine at its tuned learning rate, that others are timed to."""

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
    """What became of the runs of one scheduler.

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


@dataclass(frozen=True)
class Summary:
    """What a set of results says.

    Attributes:
        outcomes: What the statistics know of each run.
        comparisons: One for each rival and stage.
        regrets: Of every scheduler, against the best fixed schedule.
        regret_by_multiplier: The same over problems and optimizers.
        failures: Of every scheduler.
    """

    outcomes: tuple[Outcome, ...]
    comparisons: tuple[Comparison, ...]
    regrets: Regrets
    regret_by_multiplier: tuple[RegretAt, ...]
    failures: tuple[Failures, ...]


class _Task(NamedTuple):
    problem: str
    optimizer: str
    perturbation: str


class _Curve(NamedTuple):
    steps: list[int]
    losses: list[float]


def summarize(results: Iterable[Result], scheduler: str = "greedylr") -> Summary:
    """Compare a scheduler with every other there is, and say what became of all.

    Args:
        results: Finished runs, in any order, each once.
        scheduler: The one in question.
    """
    reasons: dict[str, Counter[str]] = {}
    made: list[Outcome] = []
    curves: list[_Curve] = []
    for result in results:
        made.append(outcome(result))
        curves.append(_Curve(result.validation_steps, result.validation_losses))
        counter = reasons.setdefault(result.run.scheduler, Counter())
        if result.failure is not None:
            counter[result.failure] += 1
    made = _timed(made, curves)
    judged = differences(made, scheduler)
    tallies = [tally(verdicts(pairing, stage)) for pairing in pair_all(made, scheduler) for stage in STAGES]
    fixed = [name for name in reasons if SCHEDULERS[name].kind == "fixed"]
    against_best = regrets(made, fixed)
    return Summary(
        outcomes=tuple(made),
        comparisons=tuple(Comparison(*both) for both in zip(judged, tallies, strict=True)),
        regrets=against_best,
        regret_by_multiplier=tuple(regret_by_multiplier(against_best.values)),
        failures=tuple(_failures(name, made, reasons[name]) for name in sorted(reasons)),
    )


def outcome(result: Result) -> Outcome:
    """What the statistics know of a run.

    The loss of a stage is that of the first validation at or after it, which is the same step for every scheduler;
    NaN if the run broke down before.
    """
    run = result.run
    return Outcome(
        problem=run.problem,
        optimizer=run.optimizer,
        scheduler=run.scheduler,
        multiplier=run.multiplier,
        seed=run.seed,
        stages={stage: _loss_at(result, stage) for stage in STAGES} | {1.0: result.final_loss},
        start=result.validation_losses[0],
        perturbation=run.perturbation,
        metric=result.metric,
    )


def _loss_at(result: Result, stage: float) -> float:
    step = stage * result.run.steps
    pairs = zip(result.validation_steps, result.validation_losses, strict=True)
    return next((loss for done, loss in pairs if done >= step), math.nan)


def _timed(made: Sequence[Outcome], curves: Sequence[_Curve]) -> list[Outcome]:
    """The outcomes, with the steps to the target where the baseline sets one."""
    baselines: dict[_Task, list[Outcome]] = {}
    for one in made:
        if (one.scheduler, one.multiplier) == (_BASELINE, 1.0):
            baselines.setdefault(_task(one), []).append(one)
    targets = {task: target_loss(runs, TARGET) for task, runs in baselines.items() if not all(r.failed for r in runs)}
    return [
        replace(one, steps_to={TARGET: first_step(*curve, targets[_task(one)])}) if _task(one) in targets else one
        for one, curve in zip(made, curves, strict=True)
    ]


def _task(one: Outcome) -> _Task:
    return _Task(one.problem, one.optimizer, one.perturbation)


def _failures(scheduler: str, made: Iterable[Outcome], reasons: Counter[str]) -> Failures:
    its = [one for one in made if one.scheduler == scheduler]
    return Failures(scheduler, len(its), sum(one.failed for one in its), reasons)
