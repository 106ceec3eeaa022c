"""The store: every finished run in one SQLite file, which may be shared by processes, and killed at any time.

A run is in the store as a whole or not at all. Its key is made of all that it depends on, so that runs of another
version or of other code are never taken for it; they stay in the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice, pairwise
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np

import greedylr
from greedylr import Decision
from greedylr.lab.execution.fingerprint import Texts, key_of, key_of_text, settings, text_of
from greedylr.lab.results import Result, from_plain, is_notable, record, to_plain
from greedylr.lab.runs import ON_CPU, STACKED, Run
from greedylr.pulse.record import Floats

_APPLICATION = 0x67726C72  # "grlr", in the file's head: what tells a store from other SQLite files.
_LAYOUT = 4
_PORTION = 100  # Rows that are read together, for curves are large.
_PATIENCE = 60.0  # Seconds to wait while another process writes, which takes it milliseconds.

_TABLE = """
CREATE TABLE IF NOT EXISTS run (
    key TEXT NOT NULL PRIMARY KEY,
    version TEXT NOT NULL,     -- of this package
    problem TEXT NOT NULL,
    optimizer TEXT NOT NULL,
    multiplier REAL NOT NULL,
    absolute INTEGER NOT NULL, -- 1 if that is the learning rate itself
    scheduler TEXT NOT NULL,
    perturbation TEXT NOT NULL,
    seed INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    failure TEXT,              -- why the run broke down, if it did
    settings TEXT NOT NULL,    -- JSON, what the key is made of
    curves BLOB NOT NULL,      -- deflated 64-bit floats: the losses, then the learning rates
    validations BLOB NOT NULL, -- deflated 64-bit floats: the steps, then the losses
    details BLOB NOT NULL,     -- deflated JSON: metric, settings, last learning rate, decisions, clean losses
    digest BLOB NOT NULL       -- SHA-256 of all that stands before it
)
"""
_INSERT = f"INSERT OR REPLACE INTO run VALUES ({', '.join('?' * 16)})"
_SQLITE = b"SQLite format 3\0"

_T = TypeVar("_T")

PREFERRED = (STACKED, ON_CPU)
"""Arithmetic of the results that are taken if nobody asks for others, the first before the second."""


class StoreError(Exception):
    """The file is not a store, or cannot be read or written; the message names it and says why."""


class Stored(NamedTuple):
    """A run of any version that is in a store.

    Attributes:
        key: What it is stored under.
        settings: All that the run depended on; the key is made of it.
        result: What it left.
    """

    key: str
    settings: dict[str, Any]
    result: Result


def is_store(file: Path) -> bool:
    """True if a file is a store, of any version; the file is read only.

    Raises:
        OSError: If it cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(72)  # SQLite's format has the application's number at byte 68.
    return head.startswith(_SQLITE) and head[68:] == _APPLICATION.to_bytes(4, "big")


class Store:
    """Results in a file, made if it is not there; to be used in a ``with`` statement, or closed.

    A row of which anything was changed since it was written, or is of another kind than it should be, is damaged: it
    is left out, counted in :attr:`damaged`, and trained again. A file that may not be written to can be read.

    Args:
        path: The file, on a local disk: SQLite's log is not made for network drives.

    Raises:
        StoreError: As every method does, if the file is something else, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: set[str] = set()
        """The keys of the rows that were found damaged so far."""
        if path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
            self._open_to_read()
            return
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
        try:
            self._prepare()
        except StoreError as error:
            self.close()
            # A file system that is mounted to be read alone, or a file that is marked so, shows at the first write.
            if ("readonly" not in str(error) and "unable to open" not in str(error)) or not path.exists():
                raise
            self._open_to_read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; SQLite's log beside it goes away with the last process that has it open."""
        self._connection.close()

    def save(self, result: Result, about: dict[str, Any] | None = None) -> None:
        """Write a result; once this returns it survives whatever happens to the process.

        Args:
            result: Of a run.
            about: All that it depends on, as plain data; None: the run is the catalogue's, which knows.
        """
        if about is None:
            about = settings(result.run, arithmetic=result.arithmetic)
        run = Run(**about["run"]) if "run" in about else result.run
        details = {
            "metric": result.metric,
            "config": result.record.config,
            "last_lr": float(result.record.lrs[-1, 0]) if len(result.losses) else None,
            "decisions": [to_plain(one) for one in result.decisions],
            "clean_losses": result.clean_losses,
        }
        row = (
            key_of(about),
            greedylr.__version__,
            run.problem,
            run.optimizer,
            run.multiplier,
            int(run.absolute),
            run.scheduler,
            run.perturbation,
            run.seed,
            run.steps,
            result.failure,
            text_of(about),
            _pack(result.losses, result.lrs),
            _pack(result.validation_steps, result.validation_losses),
            zlib.compress(json.dumps(details).encode()),
        )
        with self._errors():
            self._connection.execute(_INSERT, (*row, _digest(row)))

    def find(self, about: dict[str, Any]) -> Result | None:
        """The result that was saved with what it depends on; None if there is none."""
        name = key_of(about)
        stored = self._rows([name]).get(name)
        return None if stored is None else stored.result

    def load(self, runs: Iterable[Run], arithmetic: str | None = None) -> Iterator[Result]:
        """The results of those of ``runs`` that are finished, in their order; one at a time, for curves are large.

        Args:
            runs: Which.
            arithmetic: Only what was computed so, as :attr:`Result.arithmetic` says; None: what the processor computed,
                in a stack rather than not.
        """
        texts = Texts()
        for some in _in_portions(runs):
            stored = self._stored(some, arithmetic, texts)
            yield from (stored[run].result for run in some if run in stored)

    def finished(self, runs: Iterable[Run], arithmetic: str | None = None) -> set[Run]:
        """Runs, of ``runs``, whose results are there and can be read; arguments as for :meth:`load`."""
        return {result.run for result in self.load(runs, arithmetic)}

    def keys(self, runs: Iterable[Run], arithmetic: str | None = None) -> dict[Run, str]:
        """Keys of the results that :meth:`load` gave, by their runs; arguments as for that."""
        with self._errors():
            there = {name for (name,) in self._connection.execute("SELECT key FROM run")} - self.damaged
        texts, keys = Texts(), {}
        for run in runs:
            its = (key_of_text(texts.of(run, arithmetic=one)) for one in _preferred(arithmetic))
            name = next((one for one in its if one in there), None)
            if name is not None:
                keys[run] = name
        return keys

    def present(self) -> list[Run]:
        """The runs whose results are of the present version and code, those without a disturbance first.

        What cannot be run here, as its package is not installed, has no present version.
        """
        parts = "problem, multiplier, scheduler, seed, steps, optimizer, perturbation, absolute"
        order = "perturbation != 'none', problem, optimizer, multiplier, scheduler, perturbation, seed, steps"
        with self._errors():
            rows = self._connection.execute(f"SELECT key, settings, {parts} FROM run ORDER BY {order}").fetchall()
        present: dict[Run, None] = {}  # In order; a run may be there twice, trained in a stack and not.
        texts = Texts()
        for name, about, *cells in rows:
            run = _run(*cells)
            if not _is_of(_told(about, name), run):
                self.damaged.add(str(name))
            elif about in _texts(texts, run):
                present[run] = None
        return list(present)

    def others(self, runs: Iterable[Run]) -> int:
        """Number of stored runs that are not in ``runs``, of other settings or another version."""
        texts = Texts()
        wanted = {key_of_text(text) for run in runs for text in _texts(texts, run)}
        with self._errors():
            rows = self._connection.execute("SELECT key, settings FROM run").fetchall()
        others = [(name, about) for name, about in rows if name not in wanted]
        damaged = {str(name) for name, about in others if _told(about, name) is None}
        self.damaged |= damaged
        return len(others) - len(damaged)

    def everything(self) -> Iterator[Stored]:
        """All that can be read, also of other versions, in the order of problem, optimizer, multiplier and so on."""
        with self._errors():
            order = "problem, optimizer, multiplier, scheduler, perturbation, seed, steps, key"
            keys = self._connection.execute(f"SELECT key FROM run ORDER BY {order}").fetchall()
        for some in _in_portions(name for (name,) in keys):
            rows = self._rows(some)
            yield from (rows[name] for name in some if name in rows)

    def _stored(self, runs: Sequence[Run], arithmetic: str | None, texts: Texts) -> dict[Run, Stored]:
        """Rows of some runs, of the preferred arithmetic."""
        stored: dict[Run, Stored] = {}
        for one in _preferred(arithmetic):
            names = {key_of_text(texts.of(run, arithmetic=one)): run for run in runs if run not in stored}
            stored |= {names[name]: row for name, row in self._rows([*names]).items()}
        return stored

    def _rows(self, names: Sequence[Any]) -> dict[Any, Stored]:
        """The rows of some keys that are there and whole, by their keys."""
        with self._errors():
            listed = ", ".join("?" * len(names))
            rows = self._connection.execute(f"SELECT * FROM run WHERE key IN ({listed})", names).fetchall()
        stored = {row[0]: _unpack_row(row) for row in rows}
        self.damaged |= {str(name) for name, one in stored.items() if one is None}
        return {name: one for name, one in stored.items() if one is not None}

    def _open_to_read(self) -> None:
        """The file as it is; where even SQLite's log may not be opened, without looking whether somebody writes."""
        failed: StoreError | None = None
        for options in ("mode=ro", "mode=ro&immutable=1"):
            try:
                with self._errors():
                    name = f"file:{quote(os.fsencode(self.path.absolute()))}?{options}"
                    self._connection = sqlite3.connect(name, uri=True, timeout=_PATIENCE, isolation_level=None)
                with self._errors("it is not a store of greedylr"):
                    self._check_head()
            except StoreError as error:
                failed = failed or error
            else:
                return
        assert failed is not None
        raise failed

    def _prepare(self) -> None:
        """Make sure that the file is a store, and make it one if it is new."""
        with self._errors("it is not a store of greedylr"):
            self._connection.execute("SELECT count(*) FROM sqlite_master")
        with self._errors("it is not a store of greedylr"), self._transaction():
            # Looked at and made without anybody in between: another process may be doing the same.
            if self._head() == (0, 0, 0):
                self._connection.execute(_TABLE)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._connection.execute(f"PRAGMA user_version = {_LAYOUT}")
            self._check_head()
        with self._errors():
            self._write_ahead()
            # A loss of power may take the last runs with it, but nothing that was there before.
            self._connection.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # After some errors SQLite has ended it itself.
                self._connection.execute("ROLLBACK")
            raise

    def _write_ahead(self) -> None:
        """SQLite's log; the switch to it does not wait for other processes by itself."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _check_head(self) -> None:
        application, layout, _ = self._head()
        if application != _APPLICATION:
            raise sqlite3.DatabaseError("it is another program's SQLite file")
        if layout != _LAYOUT:
            raise sqlite3.DatabaseError(f"its layout is {layout}, and this version of greedylr knows {_LAYOUT}")

    def _head(self) -> tuple[int, int, int]:
        """Head of the file: its kind, its layout, and the number of tables and indices."""
        asked = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        application, layout, tables = (self._connection.execute(query).fetchone()[0] for query in asked)
        return application, layout, tables

    @contextmanager
    def _errors(self, what: str = "it cannot be used as a store") -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {what}: {error}") from error


def _in_portions(values: Iterable[_T]) -> Iterator[list[_T]]:
    """Values in lists of a size that is quickly read, and no burden to the memory."""
    rest = iter(values)
    while some := list(islice(rest, _PORTION)):
        yield some


def _preferred(arithmetic: str | None) -> tuple[str, ...]:
    return PREFERRED if arithmetic is None else (arithmetic,)


def _told(about: Any, name: Any) -> dict[str, Any] | None:
    """The settings that are stored with a run; None if they do not match its key."""
    try:
        return dict(json.loads(about)) if key_of_text(about) == name else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _is_of(told: dict[str, Any] | None, run: Run) -> bool:
    """True if settings are those of a run, or of none of the catalogue's."""
    return told is not None and told.get("run", own := run._asdict()) == own


def _texts(texts: Texts, run: Run) -> Iterator[str]:
    """Texts of the settings that a run can be stored with at present; none if it cannot be run here."""
    for arithmetic in PREFERRED:
        with suppress(KeyError, ModuleNotFoundError):
            yield texts.of(run, arithmetic=arithmetic)


def _digest(row: Sequence[Any]) -> bytes:
    """Digest of all cells of a row, whatever their kinds are; the length of each tells it from the next."""
    parts = [cell if isinstance(cell, bytes) else repr(cell).encode(errors="surrogatepass") for cell in row]
    heads = [f"{type(cell).__name__} {len(part)} ".encode() for cell, part in zip(row, parts)]
    return hashlib.sha256(b"".join(chain.from_iterable(zip(heads, parts)))).digest()


def _pack(first: Sequence[float], second: Sequence[float]) -> bytes:
    return zlib.compress(np.array([first, second], "<f8").tobytes())


def _unpack(blob: bytes) -> Floats:
    """The two rows of numbers in a blob.

    Raises:
        ValueError: If it holds something else.
        zlib.error: Likewise.
        TypeError: Likewise.
    """
    return np.frombuffer(zlib.decompress(blob), "<f8").reshape(2, -1)


def _run(*cells: Any) -> Run:
    """A run of a row's cells: SQLite knows no truth values."""
    run = Run(*cells)
    return run._replace(absolute={0: False, 1: True}.get(run.absolute, run.absolute))


def _unpack_row(row: Sequence[Any]) -> Stored | None:
    """Result in a row; None if the row is damaged, and the run to be trained anew."""
    *cells, digest = row
    if digest != _digest(cells):
        return None
    name, _, problem, optimizer, multiplier, absolute, scheduler, perturbation, seed, steps, failure, about, *blobs = (
        cells
    )
    run = _run(problem, multiplier, scheduler, seed, steps, optimizer, perturbation, absolute)
    told = _told(about, name)
    if told is None or not _is_of(told, run) or not isinstance(failure, (str, NoneType)):
        return None
    try:
        losses, lrs = _unpack(blobs[0])
        validation_steps, validation_losses = _unpack(blobs[1]).tolist()
        details = json.loads(zlib.decompress(blobs[2]))
        decisions = [_decision(one) for one in details["decisions"]]
        metric, clean = details["metric"], [_number(one) for one in details["clean_losses"]]
        if len(losses):
            lrs = np.append(lrs, _number(details["last_lr"]))
        if not isinstance(details["config"], dict):
            return None
        if not _sound(steps, failure is None, len(losses), len(clean), validation_steps):
            return None
        if metric is not None:
            metric = _number(metric)
        validations = dict(zip(map(int, validation_steps), validation_losses))
        kept = record(losses, lrs, validations, decisions, config=details["config"], clean_losses=clean)
        return Stored(name, told, Result(run, kept, metric, failure, str(told["arithmetic"])))
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _sound(steps: int, whole: bool, losses: int, clean: int, validation_steps: Sequence[float]) -> bool:
    """True if the numbers of a result's losses, and the steps of its validations, are possible."""
    if not all(one.is_integer() for one in validation_steps):
        return False
    if not all(one < other for one, other in pairwise([-1, *validation_steps, steps + 1])):
        return False
    if whole:
        ends = [*validation_steps[:1], *validation_steps[-1:]]
        return losses == steps and clean in (0, steps) and ends == [0, steps]
    return losses <= steps and clean <= steps


def _decision(data: Any) -> Decision:
    """A decision of plain data.

    Raises:
        ValueError: If anything in it is of another kind than it should be.
        TypeError: Likewise.
        KeyError: Likewise.
    """
    decision = from_plain(data)
    for number in (decision.loss, *decision.lr_before, *decision.lr_after, *decision.evidence.values()):
        if type(number) is not float:  # as most are
            _number(number)
    groups = len(decision.lr_before)
    if type(decision.step) is not int or not 0 < groups == len(decision.lr_after) or not is_notable(decision):
        raise ValueError(f"no decision that is kept: {data!r}")
    return decision


def _number(value: Any) -> float:
    """A number of plain data.

    Raises:
        ValueError: If it is something else; a truth value is.
        OverflowError: If it is a whole number that is too large for a float.
    """
    if type(value) not in (int, float):
        raise ValueError(f"no number: {value!r}")
    return float(value)
