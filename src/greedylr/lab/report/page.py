"""The page: one HTML file that needs nothing but itself, the worst first, every number with its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greedylr import presentation
from greedylr.lab.analysis.statistics import CaseVerdict, Outcome, Tally, regret_by_multiplier, tally
from greedylr.lab.analysis.summary import TARGET, Comparison, Summary
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.report import published, words
from greedylr.lab.report.curves import Curves, case_data
from greedylr.lab.report.disturbed import Disturbed
from greedylr.lab.report.robustness_section import section
from greedylr.lab.report.rows import Cases, case_rows, failed_runs, final_loss
from greedylr.lab.report.styles import styles
from greedylr.lab.runs import Run
from greedylr.presentation.words import count

GENERATOR = "greedylr lab report"
"""Named in the page's head, to tell it from pages of others."""

WORST = 15
"""Number of worst cases that are listed."""

_FEW = 4  # Schedulers that are all shown at first; of more, the one in question and this: more bands are mud.
_BESIDE = "cosine"


@dataclass(frozen=True)
class About:
    """Information about a set of runs, beside their results.

    Attributes:
        name: What it is called.
        note: What it is for, in a line.
        command: What makes them.
        planned: How many runs there are to be.
        versions: Name and version of what they were made with.
        keys: The names of runs in the store; None if they are in none.
    """

    name: str
    note: str
    command: str
    planned: int
    versions: Mapping[str, str]
    keys: Callable[[Iterable[Run]], Mapping[Run, str]] | None = None


def write(file: Path, about: About, summary: Summary, curves: Curves, disturbed: Disturbed | None = None) -> None:
    """Write the page, whole or not at all.

    Args:
        file: Where; its folder is made if need be. A page of ours that is there is replaced.
        about: What was run.
        summary: What came of it.
        curves: The curves of the same runs.
        disturbed: What is known of disturbed runs, if there are any; the other arguments are then of their twins.

    Raises:
        FileExistsError: If there is a file that greedylr did not write.
        OSError: If it cannot be written.
    """
    presentation.check_writable(file, GENERATOR)
    presentation.write_whole(file, render(about, summary, curves, disturbed))


def render(about: About, summary: Summary, curves: Curves, disturbed: Disturbed | None = None) -> str:
    """The page as a string.

    Args:
        about: What was run.
        summary: What came of it.
        curves: The curves of the same runs.
        disturbed: What is known of disturbed runs, if there are any; the other arguments are then of their twins.

    Returns:
        HTML in which every text is escaped, and which loads nothing from anywhere.
    """
    cases = curves.by_case()
    multipliers = sorted({row.multiplier for row in summary.regret_by_multiplier})
    names = _in_order(summary)
    beside = _BESIDE if _BESIDE in names[1:] else next(iter(names[1:]), "")
    shown = names[1:] if len(names) <= _FEW else [beside]
    distinct = sorted(names[1:], key=lambda name: name not in shown)  # What is shown together looks different.
    finals = _final_data(summary) if summary.absolute else {}
    keys = dict.fromkeys(curves.runs, "") | dict(about.keys(curves.runs) if about.keys else {})
    rows = case_rows(summary, cases, keys)
    tables = [
        {"case": _case_name(summary, *case), **case_data(curves, schedulers), "rows": rows[case]}
        for case, schedulers in cases.items()
    ]
    return presentation.render(
        Path(__file__).parent,
        "report.html.j2",
        GENERATOR,
        command=about.command,
        about=about,
        summary=summary,
        finished=len(summary.outcomes) if disturbed is None else disturbed.runs,
        robust=None if disturbed is None else section(disturbed, names),
        words=words,
        worst=[_worst_row(summary, one, cases, keys) for one in summary.worst(WORST)],
        winners=_winners(finals, summary),
        answers=_answers(summary) if disturbed is None else [],  # Of disturbed runs it knows the twins alone.
        failures=[
            (one, failed_runs(one.scheduler, summary, cases, keys))
            for one in sorted(summary.failures, key=lambda one: (-one.failed / one.runs, one.scheduler))
        ],
        stages=_stages(summary.comparisons),
        beside=[] if summary.absolute else _beside_the_published(summary),  # A comparison is the user's own.
        published=published,
        steps=sorted(summary.steps, key=lambda one: one.speedup),
        target=TARGET,
        multipliers=multipliers,
        rates=[words.rate(multiplier, summary.absolute) for multiplier in multipliers],
        # Of one problem, the final losses say all that regret would.
        regret={(row.scheduler, row.multiplier): row for row in summary.regret_by_multiplier if len(finals) != 1},
        names=names,
        notes={name: SCHEDULERS[name].note for name in names if name in SCHEDULERS},
        titles={name: words.title(name) for name in names},
        look={name: style._asdict() for name, style in styles(summary.scheduler, distinct).items()},
        shown={summary.scheduler, *shown},
        charts={"regret": _regret_data(summary), "final": finals, "absolute": summary.absolute},
        first=next((list(cases).index(verdict.case) for verdict in summary.worst(1)), 0),
        cases=tables,
        choices=_choices(table["case"] for table in tables),
    )


def _in_order(summary: Summary) -> list[str]:
    """All schedulers, the one in question first, the others as in the registry and those it does not know last."""
    order = list(SCHEDULERS)
    others = [one.scheduler for one in summary.failures if one.scheduler != summary.scheduler]
    others.sort(key=lambda name: order.index(name) if name in order else len(order))
    return [summary.scheduler, *others]


def _case_name(summary: Summary, problem: str, optimizer: str, multiplier: float, perturbation: str) -> dict[str, str]:
    """A case by what the reader selects it by."""
    name = {"problem": problem, "optimizer": optimizer, "learning rate": words.rate(multiplier, summary.absolute)}
    return name if perturbation == "none" else name | {"perturbation": perturbation}


def _choices(cases: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """Choices of the selection, in the order of the cases."""
    listed = list(cases)
    asked = max(listed, key=len, default={})
    return {what: list(dict.fromkeys(case.get(what, "none") for case in listed)) for what in asked}


def _worst_row(summary: Summary, verdict: CaseVerdict, cases: Cases, keys: Mapping[Run, str]) -> dict[str, Any]:
    runs = cases[verdict.case]
    both = [(one, one.scheduler) for pair in verdict.pairs for one in (pair.first, pair.second)]
    return {
        "verdict": verdict,
        "number": list(cases).index(verdict.case),
        "case": _case_name(summary, *verdict.case),
        "runs": [
            (name, one.seed, final_loss(one), keys[runs[name][one.seed]])
            for one, name in sorted(both, key=lambda pair: (pair[1] != verdict.first, pair[0].seed))
        ],
    }


def _stages(comparisons: Iterable[Comparison]) -> dict[float, list[Comparison]]:
    """The comparisons by stage, the end first, and in each the rival furthest ahead first."""
    stages: dict[float, list[Comparison]] = {}
    for one in sorted(comparisons, key=lambda one: (-one.difference.stage, one.difference.median)):
        stages.setdefault(one.difference.stage, []).append(one)
    return stages


def _beside_the_published(summary: Summary) -> list[tuple[float, Tally]]:
    """Verdicts by stage against all fixed schedules together, which the authors compared their method with."""
    if summary.scheduler not in published.METHOD:
        return []
    stages: dict[float, list[CaseVerdict]] = {}
    for stage, its in _stages(summary.comparisons).items():
        for one in its:
            if one.difference.second in summary.fixed:
                stages.setdefault(stage, []).extend(one.tally.verdicts)
    return [(stage, tally(verdicts)) for stage, verdicts in stages.items()]


Points = dict[str, list[list[float]]]
"""Final losses by scheduler and learning rate: that, the mean final loss, the lowest, the highest, how many failed, and
of how many."""


def _final_data(summary: Summary) -> dict[str, Points]:
    """Final losses by problem, failed runs counted with their start."""
    optimizers = {one.optimizer for one in summary.outcomes}
    grouped: dict[str, dict[str, dict[float, list[Outcome]]]] = {}
    for one in summary.outcomes:
        task = one.problem if len(optimizers) == 1 else f"{one.problem}, {one.optimizer}"
        grouped.setdefault(task, {}).setdefault(one.scheduler, {}).setdefault(one.multiplier, []).append(one)
    return {
        task: {
            name: [[rate, *_spread(its)] for rate, its in sorted(by_rate.items())] for name, by_rate in lines.items()
        }
        for task, lines in grouped.items()
    }


def _spread(outcomes: Sequence[Outcome]) -> list[float]:
    losses = [one.counted_loss(1.0, one.start) for one in outcomes]
    failed = sum(one.failed for one in outcomes)
    return [math.fsum(losses) / len(losses), min(losses), max(losses), failed, len(losses)]


def _winners(finals: Mapping[str, Points], summary: Summary) -> list[str]:
    """A sentence for each problem: who has the lowest mean at each learning rate, and where the one in question is."""
    lines = []
    for task, points in finals.items():
        by_rate: dict[float, list[tuple[float, str]]] = {}
        for name, its in points.items():
            for rate, mean, *_ in its:
                by_rate.setdefault(rate, []).append((mean, name))
        if len(points) < 2:
            continue
        parts = []
        for rate, ranked in sorted(by_rate.items()):
            loss, name = min(ranked)
            ours = next((mean for mean, other in ranked if other == summary.scheduler), None)
            part = f"at {words.rate(rate, summary.absolute)} {words.title(name)} ({loss:.4g})"
            if ours is not None and name != summary.scheduler:
                part += f", where {words.title(summary.scheduler)} has {ours:.4g}"
            parts.append(part)
        where = f"{task}: lowest " if len(finals) > 1 else "Lowest "
        lines.append(f"{where}{'; '.join(parts)}.")
    return lines


def _answers(summary: Summary) -> list[str]:
    """The verdict at the end, in sentences: against cosine, if it is a rival, and against who is hardest to beat."""
    at_end = {one.difference.second: one.tally for one in summary.comparisons if one.difference.stage == 1.0}

    def shares(one: Tally) -> str:
        good = one.as_good_or_better
        return (
            f"as good or better in {words.share(good)} of {count(good.of, 'case')} "
            f"[{words.share_range(good.interval)}], clearly better in {words.share(one.clearly_better)}, "
            f"clearly worse in {words.share(one.clearly_worse)}."
        )

    ours, lines = words.title(summary.scheduler), []
    if _BESIDE in at_end:
        lines.append(f"Beside {words.title(_BESIDE)}, at the end, {ours} is {shares(at_end[_BESIDE])}")
    if at_end and (hardest := min(at_end, key=lambda name: at_end[name].as_good_or_better.value)) != _BESIDE:
        lines.append(f"Hardest to beat is {words.title(hardest)}: beside it {ours} is {shares(at_end[hardest])}")
    return lines


def _regret_data(summary: Summary) -> dict[str, dict[str, list[list[float | None]]]]:
    """Regret by optimizer and scheduler: multiplier, median, low and high of its interval, worst, cases, failed."""
    optimizers = sorted({one.entry.optimizer for one in summary.regrets.values})
    chosen: dict[str, Any] = {"all optimizers": summary.regret_by_multiplier} if len(optimizers) != 1 else {}
    for optimizer in optimizers:
        its = [one for one in summary.regrets.values if one.entry.optimizer == optimizer]
        chosen[optimizer] = regret_by_multiplier(its)
    data: dict[str, dict[str, list[list[float | None]]]] = {}
    for name, rows in chosen.items():
        lines = data.setdefault(name, {})
        for row in rows:
            low, high = row.interval or (row.median, row.median)
            point = [row.multiplier, row.median, low, high, row.largest, row.cases, row.failed]
            lines.setdefault(row.scheduler, []).append(point)
    return data
