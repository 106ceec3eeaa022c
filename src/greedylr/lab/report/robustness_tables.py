"""The tables on robustness, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.markup import escape

from greedylr.lab.analysis.recovery import TOLERANCE
from greedylr.lab.analysis.robustness import Measure, Median, PublishedRow, Robustness, RobustnessRow, worst
from greedylr.lab.analysis.statistics import Proportion
from greedylr.lab.report import published, words
from greedylr.presentation.terminal import FittingTable

_PUBLISHED_RATIO = "max / last"
_ABOUT_RATIO = (
    f"{_PUBLISHED_RATIO}: largest over last training loss, published as “recovery ratio”; no disturbance needed."
)

COLUMNS = (
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
)
"""Columns of :func:`cells`."""

MEASURES: dict[Measure, str] = {"excess": "excess", "validation_ratio": "final loss / twin's"}
"""Measures that schedulers are compared by, with their names in the tables."""


class Beside(NamedTuple):
    """A row beside the published figures, as it is shown.

    Attributes:
        scheduler: Its title.
        rate: Learning rate.
        final: Median final loss.
        steps: Steps to recover.
        ratio: Largest over last training loss.
    """

    scheduler: str
    rate: str
    final: str
    steps: str
    ratio: str


def cells(row: RobustnessRow) -> list[str]:
    """A row as it is shown, without whose it is: one text for each of :data:`COLUMNS`.

    Args:
        row: What to show.
    """
    return [
        f"{row.runs - row.unmeasured} of {row.runs}",
        str(row.failed),
        median_text(row.validation_ratio, ".3f"),
        words.share(row.disrupted),
        median_text(row.steps, ".0f"),
        words.share(row.recovered),
        median_text(row.excess, ".2f"),
        _rate(row.false_alarms),
        _missed(row.missed),
        words.number(row.published_ratio.value),
    ]


def median_text(median: Median, form: str = ".3g") -> str:
    """A median, and its interval if there is one.

    Example:
        >>> from greedylr.lab.analysis.statistics import Interval
        >>> median_text(Median(1.5, Interval(1.0, 2.0)), ".1f")
        '1.5 [1.0 … 2.0]'
    """
    between = words.number_range(median.interval, form)
    return f"{words.number(median.value, form)} [{between}]" if between else words.number(median.value, form)


def worst_tables(summary: Robustness, scheduler: str, count: int) -> Iterator[FittingTable]:
    """Cases in which a scheduler is behind the best other one, by each measure; no table where there are none.

    Args:
        summary: What to look in.
        scheduler: The one in question.
        count: How many rows at most.
    """
    for measure, called in MEASURES.items():
        found = worst(summary, scheduler, measure)[:count]
        if found:
            table = FittingTable(
                f"Where {_title(scheduler)} loses most to a disturbance: {called}, beside the best other scheduler",
                "perturbation",
                "learning rate",
                called,
                "best other",
                "scheduler",
                words=(0, 4),
                caption="Each against its own twin: who learns little has little to lose.",
            )
            for one in found:
                own, best = (median_text(getattr(row, measure), ".3f") for row in (one.own, one.best))
                rate = words.rate(one.own.multiplier, absolute=False)
                table.add_row(
                    escape(one.own.perturbations), rate, escape(own), escape(best), _title(one.best.scheduler)
                )
            yield table


def beside_table(rows: Sequence[Beside]) -> FittingTable:
    """Medians of schedulers, beside those of the published study.

    Args:
        rows: Of :func:`beside` or :func:`beside_protocol`.
    """
    table = FittingTable(
        "Beside the published figures",
        "scheduler",
        "learning rate",
        "median final loss",
        "steps to recover",
        _PUBLISHED_RATIO,
        caption=escape(
            f"Medians [95%]. Published ({published.SOURCE}): {published.ROBUSTNESS_PROTOCOL}, of other problems."
        ),
    )
    for row in rows:
        table.add_row(*map(escape, row))
    table.add_section()
    for one in published.ROBUSTNESS:
        ratio = "–" if one.ratio is None else f"{one.ratio:g}"
        table.add_row(one.what, "0.01", f"{one.final:g}", "–" if one.steps is None else str(one.steps), ratio)
    return table


def beside(summary: Robustness, scheduler: str) -> list[Beside]:
    """Medians over all disturbances of the training, by learning rate, to stand beside the published figures.

    Args:
        summary: Put together by ``"side"``.
        scheduler: The one in question, which comes first.
    """
    order = _order(scheduler)
    rows = [row for row in summary.rows if row.scheduler in order and row.perturbations == "training"]
    return [
        Beside(
            words.title(row.scheduler),
            words.rate(row.multiplier, absolute=False),
            median_text(row.final),
            median_text(row.steps, ".0f"),
            median_text(row.published_ratio),
        )
        for row in sorted(rows, key=lambda row: (row.multiplier, order.index(row.scheduler)))
    ]


def beside_protocol(rows: Sequence[PublishedRow], scheduler: str) -> list[Beside]:
    """The same of the published protocol, without anything added to the loss: there is nothing to recover from.

    Args:
        rows: What the protocol measures.
        scheduler: The one in question, which comes first.
    """
    order = _order(scheduler)
    its = [row for row in rows if row.scheduler in order and row.perturbation == "none"]
    return [
        Beside(words.title(row.scheduler), "–", words.number(row.final), "–", words.number(row.published_ratio))
        for row in sorted(its, key=lambda row: order.index(row.scheduler))
    ]


def _order(scheduler: str) -> list[str]:
    """Schedulers whose figures belong beside the published ones, the scheduler in question first."""
    return [scheduler, *(name for name in (*published.METHOD, *published.ROBUSTNESS_BESIDE) if name != scheduler)]


def robustness_tables(summary: Robustness) -> Iterator[FittingTable]:
    """One table for each learning rate, and one of the twins.

    Args:
        summary: What to show.
    """
    for multiplier in sorted({row.multiplier for row in summary.rows}):
        yield _of_multiplier([row for row in summary.rows if row.multiplier == multiplier], multiplier)
    yield _of_twins(summary)


def published_table(rows: Sequence[PublishedRow]) -> FittingTable:
    """Measures of the published protocol, with the proof that it measures undisturbed training.

    Args:
        rows: What to show.
    """
    table = FittingTable(
        "The published protocol: a number is added to the loss, and training does not change",
        "scheduler",
        "perturbation",
        "runs",
        "bit-identical to the twin",
        "largest difference",
        "median final loss",
        _PUBLISHED_RATIO,
        words=(0, 1),
        caption=escape(_ABOUT_RATIO),
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


def _of_multiplier(rows: Sequence[RobustnessRow], multiplier: float) -> FittingTable:
    table = FittingTable(
        f"Robustness at {multiplier:g} times the good learning rate",
        "scheduler",
        *COLUMNS[:-1],
        caption=escape(
            "Medians over problems [95%]. Measured: the twin did not fail. Recovered: of the disrupted, within "
            f"{TOLERANCE:.0%} of the twin's decrease. Excess: area between the two, in steps. False alarms: in 100 "
            "quiet steps."
        ),
    )
    for name in dict.fromkeys(row.perturbations for row in rows):
        table.add_row(f"[bold]{escape(name)}[/]")
        for row in (row for row in rows if row.perturbations == name):
            # Intervals below medians: side by side they would need a terminal of 200 columns.
            texts = (text.replace(" [", "\n[").replace(" … ", "…") for text in cells(row)[:-1])
            table.add_row(_title(row.scheduler), *map(escape, texts))
        table.add_section()
    return table


def _of_twins(summary: Robustness) -> FittingTable:
    table = FittingTable(
        "The twins, which nothing disturbs",
        "learning rate",
        "scheduler",
        "runs",
        "failed",
        "false alarms",
        _PUBLISHED_RATIO,
        words=(0, 1),
        caption=escape(f"False alarms: in 100 steps. {_ABOUT_RATIO}"),
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


def _title(scheduler: str) -> str:
    return escape(words.title(scheduler))


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate:.2f}"


def _missed(missed: Proportion | None) -> str:
    return "–" if missed is None else f"{missed.count} of {missed.of}"
