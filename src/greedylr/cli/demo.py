"""``greedylr demo``: what it says and shows; the work is done in :mod:`greedylr.lab`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from greedylr.cli.training import code_of, train_missing
from greedylr.lab.execution.fingerprint import versions
from greedylr.lab.execution.store import Store
from greedylr.lab.report.demo import PROBLEMS, SCHEDULERS, page, plan
from greedylr.lab.report.demo.table import Row, compare, summary
from greedylr.lab.results import Result
from greedylr.lab.runs import Run
from greedylr.presentation import check_writable, write_whole
from greedylr.presentation.terminal import FittingTable, as_markup
from greedylr.presentation.words import count

_STORE = "results.sqlite"
_PAGE = "report.html"


def run_demo(console: Console, out: Path, seeds: int | None, quick: bool) -> int:
    """Train what is missing, print the table and write the page.

    Args:
        console: Where to print.
        out: Folder for the results and the page.
        seeds: Number of seeds; None for as many as suit.
        quick: Whether to make it a smoke run.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """
    report = out / _PAGE
    refused = code_of(console, lambda: check_writable(report, page.GENERATOR))
    if refused:
        return refused
    runs = plan(seeds, quick)
    results: list[Result] = []

    def work() -> None:
        out.mkdir(parents=True, exist_ok=True)
        with Store(out / _STORE) as store:
            try:
                _train_missing(console, store, runs)
            finally:  # What is finished is shown also after Ctrl-C and after an error.
                results.extend(store.load(runs))

    code = code_of(console, work)
    if not results:
        console.print("There is nothing to show yet.")
        return code
    rows = compare(runs, results)
    console.print("\nFinal validation loss (nats, lower is better): mean ± deviation over seeds\n")
    for name, line in summary(rows).items():
        title = f"{escape(PROBLEMS[name].title)}, good LR {PROBLEMS[name].lr:g}"
        console.print(_table(title, [row for row in rows if row.problem == name]))
        console.print(escape(line) + "\n")
    if len(results) < len(runs):
        console.print(f"{len(results)} of {len(runs)} runs are finished; a row that is not complete has no winner.")
    if quick:
        console.print("This was a smoke run, far too short to judge a scheduler by.")
    try:
        write_whole(report, page.render(runs, results, versions()))
    except OSError as error:
        console.print(f"[red]The report could not be written:[/] {as_markup(error)}")
        return code or 1
    console.print(f"Report: {as_markup(report)}", soft_wrap=True)
    return code


def _train_missing(console: Console, store: Store, runs: Sequence[Run]) -> None:
    sizes = [len(dict.fromkeys(values)) for values in zip(*(run[:4] for run in runs), strict=True)]
    things = ("problem", "learning rate", "scheduler", "seed")
    console.print(f"{' × '.join(map(count, sizes, things))}: {count(len(runs), 'run')}.")
    others = store.others(runs)
    if others:
        console.print(
            f"{as_markup(store.path)} also holds {count(others, 'result')} of other settings or another version: "
            f"{'it is' if others == 1 else 'they are'} left alone, and not shown.",
            soft_wrap=True,
        )
    # One run at a time: results come one by one, so that Ctrl-C loses little, and are the same on any number of cores.
    train_missing(console, store, runs, "the demonstration", engine="pool")


def _table(title: str, rows: list[Row]) -> FittingTable:
    table = FittingTable(title, "LR", *(SCHEDULERS[cell.scheduler].title for cell in rows[0].cells))
    for row in rows:
        texts = [str(cell).replace(", ", "\n") for cell in row.cells]
        cells = [
            f"[bold green]★ {text}[/]" if cell is row.winner else text
            for cell, text in zip(row.cells, texts, strict=True)
        ]
        table.add_row(f"{row.multiplier:g}×", *cells)
    return table
