"""The tables for the terminal."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.markup import escape

from greedylr.lab.analysis.statistics import RegretAt, StepsToTarget
from greedylr.lab.analysis.summary import TARGET, Comparison, Failures, Summary
from greedylr.lab.report import words
from greedylr.lab.report.disturbed import Disturbed
from greedylr.lab.report.robustness_tables import (
    beside,
    beside_protocol,
    beside_table,
    published_table,
    robustness_tables,
    worst_tables,
)
from greedylr.presentation.terminal import FittingTable
from greedylr.presentation.words import count

_WORST_CASES = 5


def show(console: Console, summary: Summary) -> None:
    """Print the verdicts, regret at each learning rate, steps to the target, the worst cases and the failures."""
    for stage, comparisons in _by_stage(summary):
        console.print(_verdicts(stage, comparisons))
    if summary.regret_by_multiplier:
        console.print(_regrets(summary))
    if summary.regrets.unfinished:
        lacking = len(summary.regrets.unfinished)
        console.print(f"[yellow]Fixed schedules lack runs in {count(lacking, 'place')}: regret may be too small.[/]\n")
    if summary.steps:
        console.print(_steps(summary.scheduler, summary.steps))
    if summary.worst(1):
        console.print(_worst(summary))
    elif summary.comparisons:
        console.print(f"{_title(summary.scheduler)} loses none of the cases at the end.\n")
    console.print(_failures(summary.failures))
    console.print("Every number is defined in docs/statistics.md.")


def show_disturbed(console: Console, disturbed: Disturbed) -> None:
    """Print where the scheduler loses most, what became of all, and the published figures."""
    if disturbed.measured.recoveries:
        for table in worst_tables(disturbed.robustness("kind"), disturbed.scheduler, _WORST_CASES):
            console.print(table)
        for table in robustness_tables(disturbed.robustness("place")):
            console.print(table)
        console.print(beside_table(beside(disturbed.robustness("side"), disturbed.scheduler)))
    if disturbed.published:
        console.print(published_table(disturbed.published))
        console.print(beside_table(beside_protocol(disturbed.published, disturbed.scheduler)))
    console.print("Every number is defined in docs/robustness.md.")


def _by_stage(summary: Summary) -> list[tuple[float, list[Comparison]]]:
    def stage(one: Comparison) -> float:
        return one.difference.stage

    return [(key, list(group)) for key, group in groupby(sorted(summary.comparisons, key=stage), stage)]


def _title(scheduler: str) -> str:
    return escape(words.title(scheduler))


def _verdicts(stage: float, comparisons: list[Comparison]) -> FittingTable:
    name = _title(comparisons[0].difference.first)
    table = FittingTable(
        f"{name} against each rival, after {stage:.0%} of training",
        "rival",
        "cases",
        "as good or better",
        "better",
        "clearly better",
        "worse",
        "median benefit",
        "p (Holm)",
        "failed, rival's",
    )
    for one in comparisons:
        difference, tally = one.difference, one.tally
        median = f"{words.benefit(difference.median)} [{words.benefit_range(difference.median_interval)}]"
        table.add_row(
            _title(difference.second),
            str(difference.units),
            words.share(tally.as_good_or_better),
            words.share(tally.better),
            words.share(tally.clearly_better),
            words.share(tally.worse),
            escape(median),
            words.p_value(difference.p_holm),
            f"{tally.failed_first}, {tally.failed_second}",
        )
    return table


def _regrets(summary: Summary) -> FittingTable:
    rows = summary.regret_by_multiplier
    multipliers = sorted({row.multiplier for row in rows})
    table = FittingTable(
        "Regret at each learning rate: median (worst) [95%]; 1.00: the best fixed schedule at its best rate",
        "scheduler",
        *(words.rate(multiplier, summary.absolute) for multiplier in multipliers),
    )
    found = {(row.scheduler, row.multiplier): row for row in rows}
    for scheduler in dict.fromkeys(row.scheduler for row in rows):
        cells = [found.get((scheduler, multiplier)) for multiplier in multipliers]
        table.add_row(_title(scheduler), *("–" if cell is None else _regret(cell) for cell in cells))
    return table


def _regret(cell: RegretAt) -> str:
    between = words.number_range(cell.interval)
    return escape(f"{cell.median:.2f} ({cell.largest:.2f})" + (f"\n[{between}]" if between else ""))


def _steps(scheduler: str, rows: tuple[StepsToTarget, ...]) -> FittingTable:
    table = FittingTable(
        f"Steps in which {_title(scheduler)} makes {TARGET:.0%} of the decrease that cosine makes in all",
        "rival",
        "cases",
        "sooner",
        "later",
        "times as fast",
        "p",
        "never, rival never",
    )
    for one in rows:
        table.add_row(
            _title(one.second),
            str(one.units),
            str(one.sooner),
            str(one.later),
            escape(f"{words.number(one.speedup, '.2f')} [{words.number_range(one.interval)}]"),
            words.p_value(one.p_value),
            f"{one.never_first}, {one.never_second}",
        )
    return table


def _worst(summary: Summary) -> FittingTable:
    table = FittingTable(
        f"Cases that {_title(summary.scheduler)} loses by most at the end, each against the rival furthest ahead",
        "problem",
        "optimizer",
        "LR",
        "rival",
        "benefit",
        "verdict",
        words=(0, 3, 5),
    )
    for verdict in summary.worst(_WORST_CASES):
        case = verdict.case
        table.add_row(
            escape(case.problem),
            escape(case.optimizer),
            words.rate(case.multiplier, summary.absolute),
            _title(verdict.second),
            words.benefit(verdict.mean),
            verdict.verdict.value.partition(":")[0],
        )
    return table


def _failures(failures: tuple[Failures, ...]) -> FittingTable:
    table = FittingTable(
        "Runs that failed: ended no better than they began", "scheduler", "failed", "of", "broke down", words=(0, 3)
    )
    for one in sorted(failures, key=lambda one: -one.failed / one.runs):
        reasons = "; ".join(f"{count} × {reason}" for reason, count in one.reasons.most_common())
        table.add_row(_title(one.scheduler), str(one.failed), str(one.runs), escape(reasons) or "–")
    return table
