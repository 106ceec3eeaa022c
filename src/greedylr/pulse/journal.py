"""The file of a trace as a process writes it: whole lines, each sealed with a checksum, appended and never changed."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from greedylr.pulse import storage

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


_TRIES = 10
"""Whoever reads a trace looks for a moment whether it is being written, by the same lock."""


class Journal:
    """Open for as long as nobody else writes to it; what a crash left of a last line is cut off.

    Args:
        folder: Where the file is, or will be.

    Raises:
        OSError: If it cannot be written to, or another process, or recorder, is doing so.
        ValueError: If what is there is no trace.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / storage.FILE
        self._file = open(self._path, "ab+", buffering=0)  # noqa: SIM115 (closed by close)
        try:
            if fcntl is not None:
                self._lock(folder)
            self.size = _last_newline(self._file, self._file.seek(0, os.SEEK_END))
            self._seal = self._last_seal()
            self._file.truncate(self.size)
        except BaseException:
            self._file.close()
            raise

    def write(self, record: dict[str, Any]) -> None:
        """Append a line, whole or not at all.

        Raises:
            OSError: If it cannot be written, say as the disk is full; it may be tried again.
        """
        line, seal = storage.to_line(record, self._seal)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, f"{self._path}: the disk took only part of a line")
        except BaseException:
            self._file.truncate(self.size)
            raise
        self.size, self._seal = self.size + len(line), seal

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _lock(self, folder: Path) -> None:
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if not left:
                    raise OSError(error.errno, f"another recorder is writing to {folder}") from error
                time.sleep(0.02)
            else:
                return

    def _last_seal(self) -> int:
        if not self.size:
            return 0
        begin = _last_newline(self._file, self.size - 1)
        self._file.seek(begin)
        try:
            return storage.seal_of(self._file.read(self.size - begin))
        except ValueError as error:
            raise ValueError(f"{self._path} is no trace: {error}") from error


def _last_newline(file: Any, end: int) -> int:
    """Where the last line before ``end`` that is whole ends, reading back block by block."""
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        found: int = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
