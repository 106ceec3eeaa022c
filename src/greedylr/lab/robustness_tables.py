"""The tables on robustness, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich import box
from rich.markup import escape
from rich.table import Table

from greedylr.lab.recovery import TOLERANCE
from greedylr.lab.report import words
from greedylr.lab.robustness import Median, PublishedRow, Robustness, RobustnessRow
from greedylr.lab.statistics import Proportion

_PUBLISHED_RATIO = "max / last"
_ABOUT_RATIO = (
    f"{_PUBLISHED_RATIO}: largest over last training loss, published as “recovery ratio”; no disturbance needed."
)


def robustness_tables(summary: Robustness) -> Iterator[Table]:
    """One table for each learning rate, and one of the twins.

    Args:
        summary: What to show.
    """
    for multiplier in sorted({row.multiplier for row in summary.rows}):
        yield _of_multiplier([row for row in summary.rows if row.multiplier == multiplier], multiplier)
    yield _of_twins(summary)


def published_table(rows: Sequence[PublishedRow]) -> Table:
    """What the published protocol measures, with the proof that it measures undisturbed training.

    Args:
        rows: What to show.
    """
    table = _table(
        "The published protocol: a number is added to the loss, and training does not change",
        "scheduler",
        "perturbation",
        "runs",
        "bit-identical to the twin",
        "largest difference",
        "median final loss",
        _PUBLISHED_RATIO,
        caption=_ABOUT_RATIO,
    )
    for scheduler, its in groupby(sorted(rows, key=lambda row: row.scheduler), lambda row: row.scheduler):
        for row in its:
            table.add_row(
                _title(scheduler),
                row.perturbation,
                str(row.runs),
                "" if row.perturbation == "none" else f"{row.identical} of {row.runs}",
                "" if row.perturbation == "none" else f"{row.difference:g}",
                words.number(row.final),
                words.number(row.published_ratio),
            )
        table.add_section()
    return table


def _of_multiplier(rows: Sequence[RobustnessRow], multiplier: float) -> Table:
    table = _table(
        f"Robustness at {multiplier:g} times the good learning rate",
        "acted on",
        "scheduler",
        "measured",
        "failed",
        "final loss / twin's",
        "disrupted",
        "steps to recover",
        "recovered",
        "excess",
        "false alarms",
        "missed",
        _PUBLISHED_RATIO,
        caption="Medians over problems [95%]. Measured: the twin did not fail. Recovered: of the disrupted, within "
        f"{TOLERANCE:.0%} of the twin's decrease. Excess: area between the two, in steps. False alarms: in 100 quiet "
        f"steps. {_ABOUT_RATIO}",
    )
    for name in dict.fromkeys(row.perturbations for row in rows):
        for row in (row for row in rows if row.perturbations == name):
            table.add_row(
                escape(name),
                _title(row.scheduler),
                f"{row.runs - row.unmeasured} of {row.runs}",
                str(row.failed),
                _median(row.validation_ratio, ".3f"),
                words.share(row.disrupted),
                _median(row.steps, ".0f"),
                words.share(row.recovered),
                _median(row.excess, ".2f"),
                _rate(row.false_alarms),
                _missed(row.missed),
                words.number(row.published_ratio.value),
            )
        table.add_section()
    return table


def _of_twins(summary: Robustness) -> Table:
    table = _table(
        "The twins, which nothing disturbs",
        "learning rate",
        "scheduler",
        "runs",
        "failed",
        "false alarms",
        _PUBLISHED_RATIO,
        caption=f"False alarms: in 100 steps. {_ABOUT_RATIO}",
    )
    for row in sorted(summary.twins, key=lambda row: row.multiplier):
        table.add_row(
            words.rate(row.multiplier, absolute=False),
            _title(row.scheduler),
            str(row.runs),
            str(row.failed),
            _rate(row.false_alarms),
            words.number(row.published_ratio.value),
        )
    return table


def _table(title: str, *columns: str, caption: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=escape(caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("acted on", "scheduler", "perturbation") else "right")
    return table


def _title(scheduler: str) -> str:
    return escape(words.title(scheduler))


def _median(median: Median, form: str) -> str:
    between = words.number_range(median.interval, form)
    return escape(f"{words.number(median.value, form)} [{between}]" if between else words.number(median.value, form))


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.2f}"


def _missed(missed: Proportion | None) -> str:
    return "–" if missed is None else f"{missed.count} of {missed.of}"
