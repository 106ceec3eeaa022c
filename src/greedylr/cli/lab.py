"""``greedylr lab``: what it says; the work is done in :mod:`greedylr.lab`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from greedylr.cli.training import RefusedError, code_of, say_damaged, train_missing, without_collector
from greedylr.lab.analysis.summary import summarize
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.perturbations import KINDS, Disturbance
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.selection import select
from greedylr.lab.catalogue.suites import SUITES, Suite
from greedylr.lab.execution.engines import ENGINES, assign
from greedylr.lab.execution.export import export
from greedylr.lab.execution.fingerprint import made_with
from greedylr.lab.execution.store import PREFERRED, Store
from greedylr.lab.report import page
from greedylr.lab.report.curves import Curves
from greedylr.lab.report.disturbed import are_disturbed, gather
from greedylr.lab.report.terminal import show, show_disturbed
from greedylr.lab.runs import Run
from greedylr.presentation import check_writable
from greedylr.presentation.terminal import FittingTable, as_markup
from greedylr.presentation.words import count

_PAGE = "report.html"


def run_suite(
    console: Console, name: str, path: Path, engine: str | None, jobs: int | None, only: Sequence[str] = ()
) -> int:
    """Train what the store lacks of a suite.

    Args:
        console: Where to print.
        name: Of the suite.
        path: Of the store.
        engine: Name of an engine; None: for each run the one to be preferred.
        jobs: Number of cores; None: all.
        only: Conditions that the runs must meet, as :func:`greedylr.lab.catalogue.selection.select` takes them.

    Returns:
        The exit code: 0, 1 after an error, 130 after Ctrl-C.
    """

    def work() -> None:
        runs = _runs(_suite(name), only)
        _check_engine(engine, runs)
        made_with(runs)  # A package that is missing is missed before a store is made.
        with Store(path) as store:
            train_missing(console, store, runs, name, jobs, engine)
        apart = engine if engine is not None and ENGINES[engine].arithmetic not in PREFERRED else None
        command = f"greedylr lab report {name}{_options(only, apart)} --store {path}"
        console.print(f"What came of it: {as_markup(command)}", soft_wrap=True)

    return code_of(console, work)


def report(
    console: Console, name: str, path: Path, out: Path | None, only: Sequence[str] = (), engine: str | None = None
) -> int:
    """Print what the finished runs of a suite say, and write it as a page.

    Args:
        console: Where to print.
        name: Of the suite.
        path: Of the store.
        out: Folder for the page; None: no page.
        only: Conditions that the runs must meet, as :func:`greedylr.lab.catalogue.selection.select` takes them.
        engine: Name of an engine, for results of its arithmetic alone; None: those of the processor.

    Returns:
        The exit code: 0, or 1 after an error.
    """

    @without_collector()
    def work() -> None:
        suite = _suite(name)
        runs = _runs(suite, only)
        _check_engine(engine, runs)
        arithmetic = None if engine is None else ENGINES[engine].arithmetic
        curves = Curves()
        with _existing(path) as store:
            if out is not None:
                check_writable(out / _PAGE, page.GENERATOR)  # Before the work.
            if are_disturbed(runs):
                # Disturbed cases by the thousand would fill the page: verdicts and curves are of the twins.
                twins_first = sorted(runs, key=lambda run: run.perturbation != "none")
                disturbed = gather(store.load(twins_first, arithmetic))
                finished, summary = disturbed.runs, summarize(curves.watch(disturbed.measured.twins))
            else:
                disturbed, summary = None, summarize(curves.watch(store.load(runs, arithmetic)))
                finished = len(summary.outcomes)
            say_damaged(console, store)
            if not finished:
                command = f"greedylr lab run {name}{_options(only, engine)}"
                raise RefusedError(f"{path} holds none of the {len(runs)} runs of {name}: {command}")
            if finished < len(runs):
                console.print(f"[yellow]{finished} of {len(runs)} runs are finished.[/]")
            if disturbed is None:
                show(console, summary)
            else:
                show_disturbed(console, disturbed)
            if out is not None:
                command = f"greedylr lab run {name}{_options(only, engine)} --store {path}"
                about = page.About(
                    name, suite.note, command, len(runs), made_with(runs), partial(store.keys, arithmetic=arithmetic)
                )
                page.write(out / _PAGE, about, summary, curves, disturbed)
                console.print(f"Page: {as_markup(out / _PAGE)}", soft_wrap=True)

    return code_of(console, work)


def export_store(console: Console, path: Path, file: Path) -> int:
    """Write everything in a store to a file for other programs.

    Args:
        console: Where to print.
        path: Of the store.
        file: ``.parquet`` or ``.csv``.

    Returns:
        The exit code: 0, or 1 after an error.
    """

    def work() -> None:
        if file.suffix not in (".csv", ".parquet"):
            raise RefusedError(f"the name of the file must end in .csv or .parquet, got {file.name}")
        with _existing(path) as store:
            rows = export(store, file)
            say_damaged(console, store)
        console.print(f"{as_markup(file)}: {count(rows, 'run')}.", soft_wrap=True)

    return code_of(console, work)


def show_registries(console: Console, as_json: bool) -> int:
    """Print what there is: suites, problems, optimizers, schedulers, perturbations and engines.

    Args:
        console: Where to print.
        as_json: Whether for a program rather than a person.

    Returns:
        The exit code, 0.
    """
    if as_json:
        suites = {name: {"runs": len(suite.runs()), **asdict(suite)} for name, suite in SUITES.items()}
        problems = {one.name: {"title": one.title, "kind": one.kind, "steps": one.steps} for one in PROBLEMS.values()}
        schedulers = {
            one.name: {"title": one.title, "kind": one.kind, "package": one.package, "note": one.note}
            for one in SCHEDULERS.values()
        }
        perturbations = {
            name: {
                "title": kind.title,
                "acts_on": kind.acts_on,
                "cause": kind.cause,
                "strength": kind.meaning,
                "strengths": kind.strengths,
            }
            for name, kind in KINDS.items()
        }
        contents = {
            "suites": suites,
            "problems": problems,
            "schedulers": schedulers,
            "perturbations": perturbations,
        }
        console.print(json.dumps(contents, indent=2), markup=False, soft_wrap=True)
        return 0
    listed: dict[str, dict[str, str]] = {
        "Suites": {name: _sizes(suite) for name, suite in SUITES.items()},
        "Problems": {one.name: f"{one.title} ({one.kind}, {count(one.steps, 'step')})" for one in PROBLEMS.values()},
        "Optimizers": {name: entry.title for name, entry in OPTIMIZERS.items()},
        "Schedulers": {one.name: f"{one.title}: {one.note}" for one in SCHEDULERS.values()},
        "Perturbations, by kind": {name: _disturbance(kind) for name, kind in KINDS.items()},
        "Engines": {name: engine.note for name, engine in ENGINES.items()},
    }
    for title, lines in listed.items():
        table = FittingTable(title, words=(0, 1))
        for name, line in lines.items():
            table.add_row(f"[bold]{escape(name)}[/]", escape(line))
        console.print(table)
    return 0


def _suite(name: str) -> Suite:
    if name not in SUITES:
        raise RefusedError(f"there is no suite {name}: the suites are {', '.join(SUITES)}")
    return SUITES[name]


def _runs(suite: Suite, only: Sequence[str]) -> list[Run]:
    try:
        return select(suite.runs(), only)
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _check_engine(engine: str | None, runs: Sequence[Run]) -> None:
    if engine is None:
        return
    if engine not in ENGINES:
        raise RefusedError(f"there is no engine {engine}: the engines are {', '.join(ENGINES)}")
    try:
        assign(runs, engine)
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _options(only: Sequence[str], engine: str | None) -> str:
    """The options of a command that asks for the same part of a suite, and of the same engine."""
    chosen = "" if engine is None else f" --engine {engine}"
    return "".join(f" --only {shlex.quote(condition)}" for condition in only) + chosen


def _existing(path: Path) -> Store:
    """The store, which is not made if it is not there."""
    if not path.exists():
        raise RefusedError(f"there is no store {path}: greedylr lab run makes one")
    return Store(path)


def _disturbance(kind: type[Disturbance]) -> str:
    strengths = ", ".join(f"{strength:g}" for strength in kind.strengths)
    return f"{kind.title} (acts on {kind.acts_on}; strengths {strengths}): {kind.cause}"


def _sizes(suite: Suite) -> str:
    plural = {name: len(value) for name, value in asdict(suite).items() if isinstance(value, tuple)}
    sizes = ", ".join(count(many, name[:-1]) for name, many in (plural | {"seeds": suite.seeds}).items())
    return f"{suite.note}. {count(len(suite.runs()), 'run')}: {sizes}"
