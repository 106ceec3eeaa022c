"""The store: every finished run in one SQLite file, which may be shared by processes, and killed at any time.

A run is in the store as a whole or not at all. Its key is made of all that it depends on, so that runs of another
version or of other code are never taken for it; they stay in the file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

import greedylr
from greedylr import Action
from greedylr.lab.content import key, key_of, settings
from greedylr.lab.runs import Event, Result, Run

_APPLICATION = 0x67726C72  # "grlr", in the file's head: what tells a store from other SQLite files.
_LAYOUT = 1
_PATIENCE = 60.0  # Seconds to wait while another process writes, which takes it milliseconds.

_TABLE = """
CREATE TABLE IF NOT EXISTS run (
    key TEXT PRIMARY KEY,
    version TEXT NOT NULL,     -- of this package
    problem TEXT NOT NULL,
    optimizer TEXT NOT NULL,
    multiplier REAL NOT NULL,
    scheduler TEXT NOT NULL,
    perturbation TEXT NOT NULL,
    seed INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    failure TEXT,              -- why the run broke down, if it did
    settings TEXT NOT NULL,    -- JSON, what the key is made of
    curves BLOB NOT NULL,      -- deflated 64-bit floats: the losses, then the learning rates
    validations BLOB NOT NULL, -- deflated 64-bit floats: the steps, then the losses
    details BLOB NOT NULL      -- deflated JSON: the metric, the events, and the clean losses if there are any
)
"""
_INSERT = f"INSERT OR REPLACE INTO run VALUES ({', '.join('?' * 14)})"


_SQLITE = b"SQLite format 3\0"


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
    """Whether a file is a store, of any version; it is looked at, and not touched.

    Raises:
        OSError: If it cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(72)  # SQLite's format has the application's number at byte 68.
    return head.startswith(_SQLITE) and head[68:] == _APPLICATION.to_bytes(4, "big")


class Store:
    """Results in a file, made if it is not there; to be used in a ``with`` statement, or closed.

    A row that is not what its key says, or of which anything is of another kind than it should be, is damaged: it is
    left out, counted in :attr:`damaged`, and trained again. A file that may not be written to can be read.

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

    def save(self, result: Result) -> None:
        """Write a result; once this returns it survives whatever happens to the process."""
        run = result.run
        details = {"metric": result.metric, "events": result.events, "clean_losses": result.clean_losses}
        row = (
            key(run),
            greedylr.__version__,
            run.problem,
            run.optimizer,
            run.multiplier,
            run.scheduler,
            run.perturbation,
            run.seed,
            run.steps,
            result.failure,
            json.dumps(settings(run), sort_keys=True),
            _pack(result.losses, result.lrs),
            _pack(result.validation_steps, result.validation_losses),
            zlib.compress(json.dumps(details).encode()),
        )
        with self._errors():
            self._connection.execute(_INSERT, row)

    def load(self, runs: Iterable[Run]) -> Iterator[Result]:
        """The results of those of ``runs`` that are finished, in their order; one at a time, for curves are large."""
        for run in runs:
            stored = self._row(key(run))
            if stored is not None:
                if stored.result.run == run:
                    yield stored.result
                else:
                    self.damaged.add(stored.key)

    def finished(self, runs: Iterable[Run]) -> set[Run]:
        """Those of ``runs`` whose results are there and can be read."""
        return {result.run for result in self.load(runs)}

    def present(self) -> list[Run]:
        """The runs whose results are of the present version and code, those without a disturbance first.

        What cannot be run here, as its package is not installed, has no present version.
        """
        about = "problem, multiplier, scheduler, seed, steps, optimizer, perturbation"
        order = "perturbation != 'none', problem, optimizer, multiplier, scheduler, perturbation, seed, steps"
        with self._errors():
            rows = self._connection.execute(f"SELECT key, settings, {about} FROM run ORDER BY {order}").fetchall()
        present = []
        for name, about_it, *parts in rows:
            run = Run(*parts)
            if not _says(about_it, name, run):
                self.damaged.add(str(name))
            elif _has_key(run, name):
                present.append(run)
        return present

    def others(self, runs: Iterable[Run]) -> int:
        """How many runs are there beside ``runs``, of other settings or another version."""
        wanted = {key(run) for run in runs}
        with self._errors():
            keys = self._connection.execute("SELECT key FROM run").fetchall()
        return sum(name not in wanted for (name,) in keys)

    def everything(self) -> Iterator[Stored]:
        """All that can be read, also of other versions, in the order of problem, optimizer, multiplier and so on."""
        with self._errors():
            order = "problem, optimizer, multiplier, scheduler, perturbation, seed, steps, key"
            keys = self._connection.execute(f"SELECT key FROM run ORDER BY {order}").fetchall()
        for (name,) in keys:
            stored = self._row(name)
            if stored is not None:
                yield stored

    def _row(self, name: str) -> Stored | None:
        with self._errors():
            row = self._connection.execute("SELECT * FROM run WHERE key = ?", (name,)).fetchone()
        stored = None if row is None else _unpack_row(row)
        if row is not None and stored is None:
            self.damaged.add(str(name))
        return stored

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
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

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
        """What the file says it is, of which layout, and how many tables and indices it has."""
        asked = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        application, layout, tables = (self._connection.execute(query).fetchone()[0] for query in asked)
        return application, layout, tables

    @contextmanager
    def _errors(self, what: str = "it cannot be used as a store") -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {what}: {error}") from error


def _says(about: Any, name: Any, run: Run) -> bool:
    """Whether the settings that are stored with a run are those that its key is made of, and its own."""
    try:
        told = json.loads(about)
        return bool(key_of(told) == name and told["run"] == run._asdict())
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _has_key(run: Run, name: str) -> bool:
    try:
        return key(run) == name
    except (KeyError, ModuleNotFoundError):
        return False


def _pack(first: Sequence[float], second: Sequence[float]) -> bytes:
    return zlib.compress(np.array([first, second], "<f8").tobytes())


def _unpack(blob: bytes) -> tuple[list[float], list[float]]:
    first, second = np.frombuffer(zlib.decompress(blob), "<f8").reshape(2, -1).tolist()
    return first, second


def _unpack_row(row: Sequence[Any]) -> Stored | None:
    """What is in a row; None if it is damaged, and to be trained anew."""
    name, _, problem, optimizer, multiplier, scheduler, perturbation, seed, steps, failure, about, *blobs = row
    run = Run(problem, multiplier, scheduler, seed, steps, optimizer, perturbation)
    if not _says(about, name, run):
        return None
    try:
        losses, lrs = _unpack(blobs[0])
        validation_steps, validation_losses = _unpack(blobs[1])
        details = json.loads(zlib.decompress(blobs[2]))
        events = [_event(event) for event in details["events"]]
        metric, clean = details["metric"], [float(one) for one in details.get("clean_losses", [])]
        if not isinstance(failure, (str, NoneType)) or not isinstance(metric, (int, float, NoneType)):
            return None
        if (failure is None and not validation_losses) or len(losses) > steps:
            return None
        bounds = [-1, *validation_steps, steps + 1]
        if not all(one < other for one, other in pairwise(bounds)):
            return None
        if metric is not None:
            float(metric)  # A whole number may be too large for one.
        result = Result(
            run,
            losses,
            lrs,
            [int(step) for step in validation_steps],
            validation_losses,
            events,
            metric=metric,
            failure=failure,
            clean_losses=clean,  # Stores that were made before these were kept lack them.
        )
        return Stored(name, json.loads(about), result)
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


_SENTENCES = frozenset(action.value for action in Action)


def _event(parts: Any) -> Event:
    """An event of plain data.

    Raises:
        ValueError: If anything in it is of another kind than it should be.
        TypeError: Likewise.
    """
    event = Event(*parts)
    numbers = (event.loss, event.lr_before, event.lr_after, *event.evidence.values())
    sound = isinstance(event.step, int) and event.kind in ("raise", "cut", "spike") and event.sentence in _SENTENCES
    if not sound or not all(isinstance(number, (int, float)) for number in numbers):
        raise ValueError(f"no event: {parts!r}")
    return event
