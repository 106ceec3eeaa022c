"""``greedylr demo``: what it says and shows; the work is done in :mod:`greedylr.lab`."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from greedylr.cli.progress import training
from greedylr.lab.content import versions
from greedylr.lab.demo import PROBLEMS, QUICK_SEEDS, SCHEDULERS, SEEDS, page, plan
from greedylr.lab.demo.folder import Folder
from greedylr.lab.demo.table import Row, compare, summary
from greedylr.lab.engines.pool import train_all
from greedylr.lab.engines.processes import worker_count
from greedylr.lab.problems import DataError
from greedylr.lab.runs import Result, Run
from greedylr.pages import check_writable, write_whole

_INTERRUPTED = 130  # What a shell reports after Ctrl-C: 128 + SIGINT.


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
    report = out / "report.html"
    try:
        check_writable(report, page.GENERATOR)
    except OSError as error:
        console.print(f"[red]Cannot write to {escape(str(out))}:[/] {escape(error.strerror or str(error))}")
        return 1
    runs = plan(seeds or (QUICK_SEEDS if quick else SEEDS), quick)
    folder = Folder(out / "runs")
    code = 0
    try:
        _train_missing(console, folder, runs)
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted.[/] What is finished is kept; the same command goes on from there.")
        code = _INTERRUPTED
    except BrokenProcessPool:
        console.print("[red]A training process was killed from outside[/], perhaps for want of memory.")
        code = 1
    except (OSError, DataError) as error:
        console.print(f"[red]Stopped:[/] {escape(str(error))}")
        code = 1
    results = folder.load(runs)
    if not results:
        console.print("No run is finished: there is nothing to show.")
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
        console.print(f"[red]The report could not be written:[/] {escape(str(error))}")
        return code or 1
    console.print(f"Report: {escape(str(report))}", soft_wrap=True)
    return code


def _train_missing(console: Console, folder: Folder, runs: list[Run]) -> None:
    finished = {result.run for result in folder.load(runs)}
    missing = [run for run in runs if run not in finished]
    others = folder.others(runs)
    if others:
        console.print(
            f"{escape(str(folder.path))} also holds {others} results of other settings or another version: "
            "they are left alone, and not shown."
        )
    if not missing:
        console.print(f"{escape(str(folder.path))} holds all {len(runs)} runs: nothing is left to train.")
        return
    if finished:
        console.print(
            f"{escape(str(folder.path))} holds {len(finished)} of the {len(runs)} runs, finished: "
            f"using them, and training the other {len(missing)}."
        )
    workers = worker_count(len(missing))
    sizes = [len(dict.fromkeys(values)) for values in zip(*(run[:4] for run in runs), strict=True)]
    console.print(
        "{} problems × {} learning rates × {} schedulers × {} {}: {} runs, on {} {}.".format(
            *sizes, "seeds" if sizes[3] > 1 else "seed", len(runs), workers, "processes" if workers > 1 else "process"
        )
    )
    with training(console) as progress:
        task = progress.add_task("", total=len(runs), completed=len(finished))

        def keep(result: Result) -> None:
            folder.save(result)
            progress.advance(task)

        train_all(missing, workers, keep)


def _table(title: str, rows: list[Row]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("LR")
    for cell in rows[0].cells:
        table.add_column(SCHEDULERS[cell.scheduler].title, justify="right")
    for row in rows:
        texts = [str(cell).replace(", ", "\n") for cell in row.cells]
        cells = [
            f"[bold green]★ {text}[/]" if cell is row.winner else text
            for cell, text in zip(row.cells, texts, strict=True)
        ]
        table.add_row(f"{row.multiplier:g}×", *cells)
    return table
