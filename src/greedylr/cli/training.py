"""Shared parts of the commands that train: training of missing runs, and error messages."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from greedylr.lab.catalogue.problems import DataError
from greedylr.lab.execution.complete import complete, finished
from greedylr.lab.execution.engines.processes import worker_count
from greedylr.lab.execution.store import Store, StoreError
from greedylr.lab.runs import Run
from greedylr.presentation.terminal import as_markup
from greedylr.presentation.words import count

INTERRUPTED = 130
"""Exit code that a shell reports after Ctrl-C: 128 + SIGINT."""


class RefusedError(Exception):
    """A request that cannot be carried out; the message tells the user why."""


_GOES_ON = "What is finished is kept; the same command goes on from there."


def code_of(console: Console, work: Callable[[], None], interrupted: str = _GOES_ON) -> int:
    """Do something; what goes wrong is said.

    Args:
        console: Where to say it.
        work: What to do.
        interrupted: What is said after Ctrl-C.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """
    try:
        work()
    except KeyboardInterrupt:
        console.print(f"[yellow]Interrupted.[/] {interrupted}")
        return INTERRUPTED
    except BrokenProcessPool:
        console.print("[red]A training process was killed from outside[/], perhaps for want of memory.")
        return 1
    except (RefusedError, StoreError, DataError, OSError) as error:
        console.print(f"[red]Stopped:[/] {as_markup(error)}", soft_wrap=True)
        return 1
    return 0


@contextmanager
def without_collector() -> Iterator[None]:
    """Leave garbage where it is: among the results of a store there is hardly any, and looking for it takes a fifth."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def say_damaged(console: Console, store: Store) -> None:
    """Say once what was left out of what was read."""
    damaged = len(store.damaged)
    if damaged:
        console.print(
            f"[yellow]{count(damaged, 'row')} of {as_markup(store.path)} {'is' if damaged == 1 else 'are'} "
            f"damaged and left out;[/] greedylr lab run trains {'it' if damaged == 1 else 'them'} again.",
            soft_wrap=True,
        )


def train_missing(
    console: Console,
    store: Store,
    runs: Sequence[Run],
    name: str,
    jobs: int | None = None,
    engine: str | None = None,
) -> None:
    """Train what a store lacks, and show how far that has come.

    Args:
        console: Where to show it.
        store: Where the results are, and are to be.
        runs: What is to be in the store.
        name: What they are the runs of.
        jobs: Number of cores; None: all.
        engine: Name of an engine; None: for each run the one to be preferred.

    Raises:
        KeyboardInterrupt: On Ctrl-C. Runs under way are given up, all others are in the store.
        concurrent.futures.process.BrokenProcessPool: If a training process was killed.
        ValueError: If the engine does not support a run.
        greedylr.lab.catalogue.problems.DataError: If the data of a problem cannot be read.
        greedylr.lab.execution.store.StoreError: If the store cannot be read or written.
    """
    kept = len(finished(runs, store, engine))
    missing = len(runs) - kept
    say_damaged(console, store)
    held = f"{as_markup(store.path)} holds {kept} of the {count(len(runs), 'run')} of {escape(name)}"
    if not missing:
        console.print(f"{held}: nothing is left to train.", soft_wrap=True)
        return
    cores = jobs or worker_count(missing)
    console.print(f"{held}; training {missing} on {count(cores, 'core')}.", soft_wrap=True)
    with progress(console, "training") as bar:
        task = bar.add_task("", total=len(runs), completed=kept)

        def done(run: Run) -> None:
            bar.advance(task)

        complete(runs, store, cores, engine, done)


def progress(console: Console, what: str) -> Progress:
    """A bar that counts runs, with the time that has passed and that is left.

    Args:
        console: Where to show it.
        what: What is done with the runs.
    """
    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=600,  # Runs take from a moment to minutes: an average over many.
    )
