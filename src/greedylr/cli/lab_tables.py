"""The tables of ``greedylr lab report``."""

from __future__ import annotations

from itertools import groupby

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from greedylr.lab.results import Comparison, Failures, Summary
from greedylr.lab.schedulers import SCHEDULERS
from greedylr.lab.statistics import Proportion, RegretAt

_WORST_CASES = 5


def show(console: Console, summary: Summary) -> None:
    """Print the verdicts, the regret at each learning rate, the worst cases and the failures."""
    for stage, comparisons in _by_stage(summary):
        console.print(_verdicts(stage, comparisons))
    console.print(_regrets(summary.regret_by_multiplier))
    if summary.regrets.unfinished:
        lacking = len(summary.regrets.unfinished)
        console.print(f"[yellow]Fixed schedules lack runs in {lacking} places: regret may be too small.[/]\n")
    console.print(_worst(summary.comparisons))
    console.print(_failures(summary.failures))
    console.print("Every number is defined in docs/statistics.md.")


def _by_stage(summary: Summary) -> list[tuple[float, list[Comparison]]]:
    def stage(one: Comparison) -> float:
        return one.difference.stage

    return [(key, list(group)) for key, group in groupby(sorted(summary.comparisons, key=stage), stage)]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _title(scheduler: str) -> str:
    return escape(SCHEDULERS[scheduler].title)


def _verdicts(stage: float, comparisons: list[Comparison]) -> Table:
    name = _title(comparisons[0].difference.first)
    table = _table(
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
        interval = difference.median_interval
        median = f"{difference.median:+.1%}"
        if interval is not None:
            median += f" [{interval.low:+.1%}, {interval.high:+.1%}]"
        table.add_row(
            _title(difference.second),
            str(difference.units),
            _share(tally.as_good_or_better),
            _share(tally.better),
            _share(tally.clearly_better),
            _share(tally.worse),
            escape(median),
            f"{difference.p_holm:.2g}",
            f"{tally.failed_first}, {tally.failed_second}",
        )
    return table


def _share(proportion: Proportion) -> str:
    return f"{proportion.value:.0%}"


def _regrets(rows: tuple[RegretAt, ...]) -> Table:
    multipliers = sorted({row.multiplier for row in rows})
    table = _table(
        "Regret at each learning rate: median (worst); 1.00 is the best fixed schedule at its best learning rate",
        "scheduler",
        *(f"{multiplier:g}×" for multiplier in multipliers),
    )
    found = {(row.scheduler, row.multiplier): row for row in rows}
    for scheduler in dict.fromkeys(row.scheduler for row in rows):
        cells = [found.get((scheduler, multiplier)) for multiplier in multipliers]
        table.add_row(
            _title(scheduler), *("–" if cell is None else f"{cell.median:.2f} ({cell.largest:.2f})" for cell in cells)
        )
    return table


def _worst(comparisons: tuple[Comparison, ...]) -> Table:
    """The cases in which the scheduler is furthest behind a rival, in the end."""
    verdicts = [verdict for one in comparisons if one.difference.stage == 1.0 for verdict in one.tally.verdicts]
    table = _table("Worst cases at the end", "problem", "optimizer", "LR", "rival", "benefit", "verdict")
    for verdict in sorted(verdicts, key=lambda one: one.mean)[:_WORST_CASES]:
        case = verdict.case
        table.add_row(
            escape(case.problem),
            escape(case.optimizer),
            f"{case.multiplier:g}×",
            _title(verdict.second),
            f"{verdict.mean:+.1%}",
            verdict.verdict.value.partition(":")[0],
        )
    return table


def _failures(failures: tuple[Failures, ...]) -> Table:
    table = _table("Runs that failed: ended no better than they began", "scheduler", "failed", "of", "broke down")
    for one in sorted(failures, key=lambda one: -one.failed / one.runs):
        reasons = "; ".join(f"{count} × {reason}" for reason, count in one.reasons.most_common())
        table.add_row(_title(one.scheduler), str(one.failed), str(one.runs), escape(reasons) or "–")
    return table
