"""The store: every finished run in one SQLite file, which may be shared by processes, and killed at any time.

A run is in the store as a whole or not at all. Its key is made of all that it depends on, so that runs of another
version or of other code are never taken for it; they stay in the file.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

import greedylr
from greedylr.lab.content import key, settings
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

    Args:
        path: The file, on a local disk: SQLite's log is not made for network drives.

    Raises:
        StoreError: As every method does, if the file is something else, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
        try:
            self._prepare()
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
            with self._errors():
                row = self._connection.execute("SELECT * FROM run WHERE key = ?", (key(run),)).fetchone()
            stored = None if row is None else _unpack_row(row)
            if stored is not None:
                yield stored.result

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
            rows = self._connection.execute(f"SELECT key, {about} FROM run ORDER BY {order}").fetchall()
        return [run for name, *parts in rows if _has_key(run := Run(*parts), name)]

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
            for one in keys:
                row = self._connection.execute("SELECT * FROM run WHERE key = ?", one).fetchone()
                stored = None if row is None else _unpack_row(row)
                if stored is not None:
                    yield stored

    def _prepare(self) -> None:
        """Make sure that the file is a store, and make it one if it is new."""
        with self._errors("it is not a store of greedylr"):
            application, layout, tables = self._head()
            if application != _APPLICATION and (application, tables) != (0, 0):
                raise sqlite3.DatabaseError("it is another program's SQLite file")
        with self._errors():
            if application == 0:
                # Whole or not at all; another process may be doing the same.
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.execute(_TABLE)
                self._connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._connection.execute(f"PRAGMA user_version = {_LAYOUT}")
                self._connection.execute("COMMIT")
                layout = _LAYOUT
            if layout != _LAYOUT:
                raise sqlite3.DatabaseError(f"its layout is {layout}, and this version of greedylr knows {_LAYOUT}")
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A loss of power may take the last runs with it, but nothing that was there before.
            self._connection.execute("PRAGMA synchronous = NORMAL")

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
    try:
        losses, lrs = _unpack(blobs[0])
        validation_steps, validation_losses = _unpack(blobs[1])
        details = json.loads(zlib.decompress(blobs[2]))
        events = [Event(*event) for event in details["events"]]
        result = Result(
            run,
            losses,
            lrs,
            [int(step) for step in validation_steps],
            validation_losses,
            events,
            metric=details["metric"],
            failure=failure,
            clean_losses=details.get("clean_losses", []),  # Stores that were made before these were kept lack them.
        )
        return Stored(name, json.loads(about), result)
    except (zlib.error, ValueError, KeyError, TypeError):
        return None
