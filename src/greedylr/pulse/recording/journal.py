"""The file of a trace as a process writes it: whole lines, each sealed with a checksum, appended and never changed."""

from __future__ import annotations

import errno
import os
import time
import warnings
from pathlib import Path
from typing import Any

from greedylr.pulse.recording import storage

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


_TRIES = 10
"""Attempts at the lock: a reader of the trace holds it for a moment, to see if it is being written."""


class Journal:
    """Open for as long as nobody else writes to it; what a crash left of a last line is cut off.

    The whole file is verified first. If it is damaged, what is sound is continued, and the rest is put beside it.

    Args:
        folder: Where the file is, or will be.

    Raises:
        OSError: If it cannot be written to, or another process, or recorder, is doing so.
        ValueError: If what is there is no trace, or no file of its own. It is left as it is.

    Warns:
        UserWarning: If the file is damaged, or the file system cannot tell whether somebody else writes.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / storage.FILE
        if self._path.is_symlink() or (self._path.exists() and not self._path.is_file()):
            raise ValueError(f"{self._path} is no trace: it is not a file of its own")
        self._file = open(self._path, "ab+", buffering=0)  # noqa: SIM115 (closed by close)
        try:
            if fcntl is not None:
                self._lock(folder)
            self.size, self._seal, damaged = self._verify()
            if damaged:
                self._put_aside()
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
        _held.discard(os.path.realpath(self._path))
        self._file.close()

    def _lock(self, folder: Path) -> None:
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if not left:
                    raise OSError(error.errno, self._who_holds(folder)) from error
                time.sleep(0.02)
            except OSError as error:
                if error.errno not in _WITHOUT_LOCKS:
                    raise
                warnings.warn(
                    f"the file system of {folder} has no locks ({error.strerror}): make sure that nobody else records "
                    "there",
                    UserWarning,
                    stacklevel=6,
                )
                return
            else:
                _held.add(os.path.realpath(self._path))
                return

    def _who_holds(self, folder: Path) -> str:
        if os.path.realpath(self._path) in _held:
            return f"another recorder is writing to {folder}, of this very process: close() it, or use another folder"
        return f"another recorder is writing to {folder}"

    def _verify(self) -> tuple[int, int, bool]:
        """End of the last sound line, its seal, and whether whole lines follow that are not sound.

        Raises:
            ValueError: If there is something, and it is no trace.
        """
        self._file.seek(0)
        size, seal, began = 0, 0, b""
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                began = began or line[:64]
                if not line.endswith(b"\n"):
                    break
                try:
                    seal = storage.next_seal(line, seal)
                except ValueError as error:
                    if not size:
                        raise ValueError(f"{self._path} is no trace: {error}") from error
                    return size, seal, True
                size += len(line)
        if not size and began and not _START.startswith(began[: len(_START)]):
            raise ValueError(f"{self._path} is no trace: a line without a checksum")
        return size, seal, False

    def _put_aside(self) -> None:
        self._file.seek(self.size)
        rest = self._file.read()
        name = f"{storage.FILE}.damaged-{time.time_ns()}"
        self._path.with_name(name).write_bytes(rest)
        warnings.warn(
            f"{self._path} was damaged: what came before is continued, and the {len(rest)} bytes from there on are "
            f"kept in {name}",
            UserWarning,
            stacklevel=5,
        )


_START = b'{"start":'
_WITHOUT_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_held: set[str] = set()
"""The files that recorders of this process write to."""
