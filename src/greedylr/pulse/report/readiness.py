"""Several runs in one table: what one would ask of a scheduler before putting it into production.

Recorded runs that were given the same ``meta`` but for their ``seed`` are one group, and a column of the table. What
else knows :class:`Facts` of its runs, as the lab does, makes the same table of them. ``docs/pulse.md`` defines each
row.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from greedylr.pulse.diagnosis.audit import Audit
from greedylr.pulse.diagnosis.findings import Kind
from greedylr.pulse.diagnosis.reading import Reading
from greedylr.pulse.diagnosis.windows import windows_of
from greedylr.pulse.record import Record
from greedylr.pulse.report import words

Row = tuple[str, list[str]]
"""Name of a row, and a cell for each group."""

_NEARLY = 0.01
_BUILT_IN = ("greedylr", "python", "host", "time", "seed")


class Table(NamedTuple):
    """The comparison.

    Attributes:
        columns: Names of the groups.
        rows: In the order in which they are defined.
    """

    columns: list[str]
    rows: list[Row]


class Facts(NamedTuple):
    """Values of the readiness table for one run; None where there is nothing to say.

    Attributes:
        final: Last validation, or the mean loss of the last window.
        efficiency: Share of the steps after which the validation was within 1% of all its gain from its best.
        failed: Whether it broke off, or ended no better than it began.
        recoveries: Steps from each marked or found disruption until the loss was back; None: never.
        sensitivity: Share of the loss's movement that composition explains.
        moves: Moves per 1,000 steps.
        reversals: Share of the moves that go the other way than the one before.
        refuted: Share of the moves that the audit refutes.
    """

    final: float | None
    efficiency: float | None
    failed: bool
    recoveries: list[int | None]
    sensitivity: float | None
    moves: float | None
    reversals: float | None
    refuted: float | None


def compare(readings: Sequence[Reading]) -> Table:
    """The table of several recorded runs.

    Args:
        readings: The runs, at least one.
    """
    groups: dict[str, list[Facts]] = {}
    for reading in readings:
        groups.setdefault(_group(reading), []).append(facts(reading))
    return table(groups)


def table(groups: Mapping[str, Sequence[Facts]], final: Sequence[Row] | None = None) -> Table:
    """The table of runs of which the facts are known.

    Args:
        groups: What is known of the runs of each column, by its name.
        final: The rows that say how the runs ended, and how much they differ; None: mean and deviation of
            :attr:`Facts.final`, which is for runs whose losses can be compared.
    """
    of = list(groups.values())
    if final is None:
        final = [
            ("final metric, mean", [mean([one.final for one in runs]) for runs in of]),
            ("its standard deviation across runs", [deviation([one.final for one in runs]) for runs in of]),
        ]
    rows = [
        ("runs", [str(len(runs)) for runs in of]),
        *final,
        # A run that never learnt is at its best at once: that is no efficiency.
        (
            "steps to within 1% of the best, share",
            [_share([one.efficiency for one in runs if not one.failed]) for runs in of],
        ),
        ("failed or abandoned", [f"{sum(one.failed for one in runs)} of {len(runs)}" for runs in of]),
        ("steps to recover from a disruption, median", [_recovery(runs) for runs in of]),
        ("movement explained by composition", [_share([one.sensitivity for one in runs]) for runs in of]),
        ("moves per 1,000 steps", [mean([one.moves for one in runs]) for runs in of]),
        ("reversals, share of the moves", [_share([one.reversals for one in runs]) for runs in of]),
        ("refuted, share of the moves", [_share([one.refuted for one in runs]) for runs in of]),
    ]
    return Table(list(groups), rows)


def facts(reading: Reading) -> Facts:
    """Values of the readiness table for one recorded run.

    Args:
        reading: The run.
    """
    known = facts_of_record(reading.trace, reading.audit)
    diverged = any(one.kind is Kind.DIVERGENCE for one in reading.findings)
    return known._replace(
        failed=known.failed or diverged or reading.trace.status in ("failed", "killed"),
        recoveries=_recoveries(reading),
        sensitivity=None if reading.composition is None else max(reading.composition.explained, 0.0),
    )


def facts_of_record(record: Record, judged: Audit) -> Facts:
    """Values of the readiness table for one run, as far as its record tells.

    Args:
        record: The run.
        judged: Its moves, judged.
    """
    windows = windows_of(record)
    start, end = windows.calm().mean[:2], windows.settled().mean[-2:]
    worse = min(len(start), len(end)) == 2 and len(windows.mean) >= 4 and float(end.mean()) >= float(start.mean())
    final = last_validation(record)
    if final is None and len(windows.mean):
        final = record.sign * float(windows.mean[-1])
    return Facts(
        final=final,
        efficiency=efficiency(record),
        failed=worse,
        recoveries=[],
        sensitivity=None,
        moves=moves(record),
        reversals=reversals(record),
        refuted=refuted(judged),
    )


def last_validation(record: Record) -> float | None:
    """The last validation; NaN if none was finite, None if there is none."""
    if record.validation is None:
        return None
    values = record.metrics[record.validation].values
    return float(values[-1]) if np.isfinite(values).any() else math.nan


def efficiency(record: Record) -> float | None:
    """Share of the steps after which the validation was nearly at its best; None if none was finite."""
    if record.validation is None:
        return None
    steps, values = record.metrics[record.validation]
    finite = np.isfinite(values)
    if not finite.any():
        return None
    lower = record.validation.lower()
    sign = 1.0 if any(word in lower for word in ("loss", "ppl", "perplexity", "error")) else -1.0
    steps, values = steps[finite], sign * values[finite]
    best = values.min()
    near = best + _NEARLY * (values[0] - best)
    return float(steps[int(np.argmax(values <= near))]) / max(record.last, 1)


def moves(record: Record) -> float:
    """Moves per 1,000 steps."""
    return 1000 * len(record.moves) / max(record.last, 1)


def reversals(record: Record) -> float | None:
    """Share of the moves that go the other way than the one before; None for fewer than two."""
    directions = [one.raised for one in record.moves]
    turns = sum(a != b for a, b in pairwise(directions))
    return turns / (len(directions) - 1) if len(directions) > 1 else None


def refuted(judged: Audit) -> float | None:
    """Share of the moves that the audit refutes; None if there are none."""
    shares = judged.shares
    return shares.refuted / shares.total if shares.total else None


def mean(values: Sequence[float | None]) -> str:
    """The mean of what is known."""
    known = _known(values)
    return words.number(statistics.fmean(known)) if known else "–"


def deviation(values: Sequence[float | None]) -> str:
    """The standard deviation of what is known."""
    known = _known(values)
    if len(known) < 2:
        return "–"
    return words.number(statistics.stdev(known)) if np.isfinite(known).all() else "not finite"


def _group(reading: Reading) -> str:
    own = {name: value for name, value in reading.trace.meta.items() if name not in _BUILT_IN}
    return ", ".join(f"{name} {value}" for name, value in own.items()) or reading.name


def _recoveries(reading: Reading) -> list[int | None]:
    trace = reading.trace
    windows = windows_of(trace)
    calm = windows.calm()
    # Of each the last step before it.
    starts = [mark.step for mark in trace.marks if mark.name.startswith("disruption")]
    if not starts:
        starts = [one.first - 1 for one in reading.findings if one.kind in (Kind.DISRUPTION, Kind.NO_RECOVERY)]
    found: list[int | None] = []
    for start in starts:
        before = np.flatnonzero(calm.last <= start)[-3:]
        after = np.flatnonzero(windows.first > start)
        if not len(before) or not len(after):
            continue
        line = float(calm.mean[before].mean() + calm.spread[before].mean())
        back = after[windows.mean[after] <= line]
        found.append(int(windows.last[back[0]]) - start if len(back) else None)
    return found


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _share(values: Sequence[float | None]) -> str:
    known = _known(values)
    return f"{statistics.fmean(known):.0%}" if known else "–"


def _recovery(runs: Sequence[Facts]) -> str:
    """The median, in which never is later than any number of steps, and how often it is never."""
    steps = sorted(math.inf if one is None else one for run in runs for one in run.recoveries)
    if not steps:
        return "–"
    middle = statistics.median(steps)
    never = steps.count(math.inf)
    said = [f"{middle:.0f}"] if math.isfinite(middle) else []
    return ", ".join(said + ([f"never in {never} of {len(steps)}"] if never else []))
