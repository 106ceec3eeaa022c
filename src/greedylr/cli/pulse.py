"""``greedylr report`` and ``greedylr watch``: recorded runs, in the terminal and as a page."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from greedylr.presentation.terminal import FittingTable, as_markup, plain
from greedylr.presentation.words import count
from greedylr.pulse import Trace
from greedylr.pulse.diagnosis.findings import Finding, Kind
from greedylr.pulse.diagnosis.health import examine
from greedylr.pulse.diagnosis.peak import peak
from greedylr.pulse.diagnosis.reading import Reading, Watched, read
from greedylr.pulse.record import Floats
from greedylr.pulse.report import readiness, words, write
from greedylr.pulse.report.readiness import compare

_LAST_DECISIONS = 6
_NARROW = 60  # Characters in a line from which on there is room for words beside words.
_BARS = "▁▂▃▄▅▆▇█"


def report(console: Console, runs: Sequence[Path], out: Path | None) -> int:
    """Print what recorded runs say, and write it as a page.

    Args:
        console: Where to print.
        runs: Their folders.
        out: The page; None: ``report.html`` in the folder of the first run.

    Returns:
        The exit code: 0, or 1 after an error.
    """
    file = runs[0] / "report.html" if out is None else out
    try:
        for run in runs:
            if not run.exists():
                raise FileNotFoundError(f"there is no folder and no store {run}")
        readings = read(list(runs))
        for reading in readings:
            console.print(summary(reading, console.width))
        if len(readings) > 1:
            console.print(fitting("All runs", compare(readings)))
        write(file, readings)
    except (OSError, ValueError) as error:
        console.print(f"[red]Stopped:[/] {as_markup(error)}", soft_wrap=True)
        return 1
    console.print(f"Page: {as_markup(file)}", soft_wrap=True)
    return 0


def probe(console: Console, runs: Sequence[Path]) -> int:
    """Print the learning rate at which a schedule for the next run should peak, from recorded runs.

    Args:
        console: Where to print.
        runs: Their folders.

    Returns:
        The exit code: 0, or 1 after an error.
    """
    try:
        peaks = [_peak_of(Trace.load(run)) for run in runs]
    except (OSError, ValueError) as error:
        console.print(f"[red]Stopped:[/] {as_markup(error)}", soft_wrap=True)
        return 1
    for run, value in zip(runs, peaks):
        console.print(f"{as_markup(run)}: {value:.2g}", soft_wrap=True)
    low, high = min(peaks), max(peaks)
    spread = (
        f", runs alone from {low:.2g} to {high:.2g}" if len(runs) > 1 else "; one run does not say how sure that is"
    )
    console.print(f"A cosine or linear schedule should peak at {np.median(peaks):.2g}{spread}.", soft_wrap=True)
    return 0


def _peak_of(trace: Trace) -> float:
    name = trace.path
    if trace.status != "finished":
        raise ValueError(f"{name} is {trace.status}: only a run that has finished has a learning rate to take")
    spoilt = [one for one in examine(trace) if one.kind is Kind.DIVERGENCE]
    if spoilt:
        raise ValueError(f"{name} diverged from step {spoilt[0].first} on: no learning rate can be taken from it")
    try:
        return peak(trace)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def watch(console: Console, run: Path, every: float, once: bool) -> int:
    """Show a run live, from before it begins, until it ends or Ctrl-C.

    Args:
        console: Where to show it.
        run: Its folder.
        every: Seconds between two looks.
        once: Whether to show it once only.

    Returns:
        The exit code: 0, or 1 after an error, or if there is nothing to show once.
    """
    try:
        watched = Watched(run)
        if once:
            reading = _begun(run, watched)
            console.print(_nothing(run) if reading is None else live(reading, console.width))
            return int(reading is None)
        with Live(console=console, auto_refresh=False) as shown:
            while True:
                reading = _begun(run, watched)
                if reading is None:
                    shown.update(Text.assemble(_nothing(run), ": waiting for it, Ctrl-C ends"), refresh=True)
                else:
                    shown.update(live(reading, console.width), refresh=True)
                    if reading.trace.status != "running":
                        return 0
                time.sleep(every)
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        console.print(f"[red]Stopped:[/] {as_markup(error)}", soft_wrap=True)
        return 1


def _begun(run: Path, watched: Watched) -> Reading | None:
    """The run; None while nothing is recorded there.

    Raises:
        NotADirectoryError: If it is a file.
    """
    if run.exists() and not run.is_dir():
        raise NotADirectoryError(f"{run} is a file: name the folder that was given to Recorder")
    try:
        return watched.look()
    except FileNotFoundError:
        return None


def _nothing(run: Path) -> Text:
    return Text(plain(f"There is no trace in {run} yet"))


def summary(reading: Reading, width: int) -> RenderableType:
    """A run in the terminal of so many characters in a line: its state, its findings, its audit."""
    shown: list[RenderableType] = [_head(reading), _findings(reading, width)]
    if reading.audit.moves:
        shares = {"all": reading.audit.shares, **reading.audit.by_action(), **reading.audit.by_phase()}
        rows = [(name.lower().replace("_", " "), cells) for name, *cells in words.shares(shares)]
        judged = readiness.Table(["moves", "confirmed", "refuted", "undecidable"], rows)
        shown.append(fitting("Was the loss telling the truth?", judged))
        shown += [Text(plain(f"{line}\n")) for line in words.together(reading)]
    else:
        shown.append(Text("The loss made no raise and no cut.\n"))
    if reading.composition is not None:
        style = "yellow" if reading.composition.much else ""
        shown.append(Text(plain(f"{reading.composition.sentence}\n"), style=style))
        for one in reading.composition.sources[:5]:
            shown.append(Text(plain(f"{words.source(one)}\n")))
    return Group(*shown)


def fitting(title: str, compared: readiness.Table) -> FittingTable:
    """Several runs in one table.

    Args:
        title: What they are.
        compared: What there is to show.
    """
    table = FittingTable(title, "", *map(as_markup, compared.columns))
    for name, cells in compared.rows:
        table.add_row(as_markup(name), *map(as_markup, cells))
    return table


def live(reading: Reading, width: int) -> RenderableType:
    """A run that is going on: curves, last decisions, state of health."""
    trace = reading.trace
    columns = max(10, min(width - 30, 100))
    shown: list[RenderableType] = [_head(reading)]
    curves = Table.grid(padding=(0, 1))
    for name, values in (("loss", trace.losses), ("LR", trace.lrs[:, 0])):
        curve = _means(values, 10 * columns)
        if curve:
            curves.add_row(name, spark(curve, columns), words.number(curve[-1]))
    validation = trace.validation
    if validation is not None:
        metric = trace.metrics[validation].values.tolist()
        curves.add_row(as_markup(validation), spark(metric, columns), words.number(metric[-1]))
    shown.append(curves)
    verdicts = {one.decision.step: one for one in reading.audit.moves}
    moves = trace.moves[-_LAST_DECISIONS:]
    shown.append(Text(""))
    for one in moves:
        judged = verdicts.get(one.step)
        style = {"confirmed": "green", "refuted": "red"}.get("" if judged is None else judged.verdict.short, "")
        verdict = "" if judged is None else f" {judged.verdict.short.capitalize()}."
        shown.append(Text(plain(f"{words.reason(one)}{verdict}"), style=style))
    if not moves:
        shown.append(Text("No raise and no cut by the loss yet."))
    shown.append(_findings(reading, width))
    return Group(*shown)


def _means(values: Floats, points: int) -> list[float]:
    """Means of the finite ones of so many parts, one after the other."""
    edges = np.unique(np.linspace(0, len(values), min(points, len(values)) + 1).astype(int))
    if len(edges) < 2:
        return []
    finite = np.isfinite(values)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        sums = np.add.reduceat(values if finite.all() else np.where(finite, values, 0.0), edges[:-1])
        means: list[float] = (sums / np.add.reduceat(finite, edges[:-1], dtype=np.int64)).tolist()
    return means


def spark(values: Sequence[float], columns: int) -> str:
    """A curve in one line of characters; of numbers above zero that span a decade or more, in logarithms.

    Example:
        >>> spark([0.0, 1.0, 2.0, 3.0], 2), spark([1.0, 1.0], 4), spark([1e-4, 1e-3, 1e-2], 3)
        ('▁█', '▁▁', '▁▅█')
    """
    edges = [len(values) * number // columns for number in range(columns + 1)] if len(values) > columns else None
    if edges is not None:
        parts = [values[first:last] for first, last in pairwise(edges)]
        values = [sum(part) / len(part) for part in parts]
    finite = [value for value in values if abs(value) < float("inf")]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    if 0 < 10 * low <= high:
        values = [math.log10(value) if abs(value) < float("inf") else value for value in values]
        low, high = math.log10(low), math.log10(high)
    span = high - low or 1.0
    levels = len(_BARS) - 1
    return "".join(
        _BARS[round(levels * (value - low) / span)] if abs(value) < float("inf") else "×" for value in values
    )


def _head(reading: Reading) -> Text:
    trace = reading.trace
    style = {"running": "cyan", "finished": "green"}.get(trace.status, "red")
    lines = words.course(trace)
    course = "".join(f"{name[0].upper()}{name[1:]} {what}.\n" for name, what in lines)
    return Text.assemble(
        (plain(reading.name), "bold"),
        "  ",
        (trace.status, style),
        f", step {trace.last}, {words.duration(trace.seconds)}, {count(len(trace.moves), 'move')} by the loss\n",
        course,
    )


def _findings(reading: Reading, width: int) -> RenderableType:
    title = "Health" if reading.judged == reading.trace.last else f"Health at step {reading.judged}"
    if not reading.findings:
        return Text(f"{title}: nothing found.\n")
    if width < _NARROW:
        return Group(Text(title, style="bold"), *map(_paragraph, reading.findings))
    table = FittingTable(title, "finding", "steps", "what was seen, and what to do", words=(0, 2))
    for one in reading.findings:
        seen = Text.assemble(plain(f"{one.numbers}. "), (plain(one.advice), "dim"))
        table.add_row(Text(one.kind.value, style=_style(one)), words.steps(one.first, one.last), seen)
    return table


def _paragraph(one: Finding) -> Text:
    name = (f"{one.kind.value}, step {words.steps(one.first, one.last)}: ", _style(one))
    return Text.assemble(name, plain(f"{one.numbers}. "), (plain(f"{one.advice}\n"), "dim"))


def _style(one: Finding) -> str:
    return "red" if one.serious else "yellow"
