"""``greedylr report`` of a store of the lab: the table in the terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from greedylr.cli.pulse import fitting
from greedylr.cli.training import RefusedError, code_of, progress, say_damaged, without_collector
from greedylr.lab.execution.store import Store, is_store
from greedylr.lab.report import readiness_page as page
from greedylr.lab.report.readiness import Production, evaluate
from greedylr.lab.runs import Run
from greedylr.presentation import check_writable
from greedylr.presentation.terminal import as_markup
from greedylr.presentation.words import count


def report_store(console: Console, paths: Sequence[Path], out: Path | None) -> int:
    """Print what one would ask of the schedulers in a store before production, and write it as a page.

    Args:
        console: Where to print.
        paths: What the user named, a file among it.
        out: The page; None: beside the store.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """

    @without_collector()
    def work() -> None:
        path = _the_store(paths)
        file = path.with_suffix(".report.html") if out is None else out
        check_writable(file, page.GENERATOR)  # Before the work.
        with Store(path) as store:
            runs = store.present()
            others = store.others(runs)
            if not runs:
                raise RefusedError(_nothing(path, others))
            found = _read(console, store, runs)
            say_damaged(console, store)
        for line in page.about(found, others):
            console.print(as_markup(line), soft_wrap=True)
        console.print()
        console.print(fitting("All runs", found.table))
        rates = " and of each learning rate alone" if found.by_rate else ""
        console.print(
            f"Every row is defined in docs/pulse.md. Verdicts, cases and curves: greedylr lab report SUITE --store "
            f"{as_markup(path)} --out FOLDER",
            soft_wrap=True,
        )
        page.write(file, path.name, found, others)
        console.print(f"Page, with the table of all runs{rates}: {as_markup(file)}", soft_wrap=True)

    return code_of(console, work, interrupted="The store is as it was.")


def _the_store(paths: Sequence[Path]) -> Path:
    """The one store among what was named.

    Raises:
        RefusedError: If it is none, or there is more.
    """
    files = [path for path in paths if path.is_file()]
    for file in files:
        if not is_store(file):
            raise RefusedError(
                f"{file} is neither a folder that a greedylr.pulse.Recorder wrote nor a store, the file that "
                "greedylr lab run writes"
            )
    if len(files) < len(paths):
        folder = next(path for path in paths if path not in files)
        raise RefusedError(f"a store and recorded runs cannot share a table: {files[0]} is a store, {folder} is not")
    if len(files) > 1:
        raise RefusedError(f"one store at a time: got {len(files)}, {', '.join(map(str, files))}")
    return files[0]


def _nothing(path: Path, others: int) -> str:
    held = (
        f"none of the {count(others, 'result')} in {path} is of this version and code"
        if others
        else f"{path} holds no runs"
    )
    return f"{held}: greedylr lab run SUITE --store {path} trains them, and greedylr lab list names the suites"


def _read(console: Console, store: Store, runs: Sequence[Run]) -> Production:
    with progress(console, "reading") as bar:
        task = bar.add_task("", total=len(runs))
        return evaluate(store, runs, lambda: bar.advance(task))
