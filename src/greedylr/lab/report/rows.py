"""Rows to look up: every run of a case, or that failed, with its loss and its key in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from greedylr.lab.analysis.statistics import Case, Outcome
from greedylr.lab.analysis.statistics.estimate import mean
from greedylr.lab.analysis.summary import TARGET, Summary
from greedylr.lab.report import words
from greedylr.lab.runs import Run

Cases = Mapping[Case, Mapping[str, Mapping[int, Run]]]
"""The runs of each case, by scheduler and seed."""


class _Place(NamedTuple):
    case: Case
    scheduler: str


def case_rows(summary: Summary, cases: Cases, keys: Mapping[Run, str]) -> dict[Case, list[dict[str, str]]]:
    """A row for each scheduler of each case, the lowest mean loss first: cells, as they are to be shown.

    Args:
        summary: What came of the runs.
        cases: The runs.
        keys: What each run is stored under; empty for one that is not stored.
    """
    outcomes: dict[_Place, list[Outcome]] = {}
    for one in summary.outcomes:
        outcomes.setdefault(_Place(one.case, one.scheduler), []).append(one)
    judged = {
        _Place(verdict.case, verdict.second): verdict
        for one in summary.comparisons
        if one.difference.stage == 1.0
        for verdict in one.tally.verdicts
    }
    regret = {
        _Place(
            Case(one.entry.problem, one.entry.optimizer, one.entry.multiplier, one.entry.perturbation),
            one.entry.scheduler,
        ): one.value
        for one in summary.regrets.values
    }
    rows: dict[Case, list[dict[str, str]]] = {}
    for case, schedulers in cases.items():
        losses = {}
        made = {}
        for name, runs in schedulers.items():
            place = _Place(case, name)
            its = sorted(outcomes[place], key=lambda one: one.seed)
            losses[name] = mean([one.counted_loss(1.0, one.start) for one in its])
            verdict = judged.get(place)
            made[name] = {
                "scheduler": name,
                "mean": words.number(losses[name], ".4g"),
                "failed": f"{sum(one.failed for one in its)} of {len(its)}",
                "benefit": "" if verdict is None else words.benefit(verdict.mean),
                "verdict": "" if verdict is None else verdict.verdict.value.partition(":")[0],
                "regret": words.number(regret[place], ".3g") if place in regret else "–",
                "steps": ", ".join(_steps(one) for one in its),
                "runs": "\n".join(f"seed {one.seed}: {final_loss(one)} {keys[runs[one.seed]]}".strip() for one in its),
            }
        rows[case] = [made[name] for name in sorted(made, key=lambda name: losses[name])]
    return rows


def failed_runs(scheduler: str, summary: Summary, cases: Cases, keys: Mapping[Run, str]) -> list[tuple[Outcome, str]]:
    """The runs of a scheduler that failed, in order, with their keys."""
    failed = [one for one in summary.outcomes if one.scheduler == scheduler and one.failed]
    failed.sort(key=lambda one: (one.case, one.seed))
    return [(one, keys[cases[one.case][scheduler][one.seed]]) for one in failed]


def final_loss(outcome: Outcome) -> str:
    """The validation loss after the last step, as it was."""
    return f"{outcome.final:.6g}" if math.isfinite(outcome.final) else "not finite"


def _steps(outcome: Outcome) -> str:
    if outcome.steps_to is None:
        return "–"
    steps = outcome.steps_to[TARGET]
    return "never" if steps is None or outcome.failed else str(steps)
