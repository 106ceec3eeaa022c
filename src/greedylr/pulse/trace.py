"""The trace of a run, read back: while it is being written, after it was killed, or from start to end."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from greedylr.pulse.record import Failure, Foreign, Phase, Record
from greedylr.pulse.recording import storage
from greedylr.pulse.recording.reader import ODD, Reader

try:
    import fcntl
except ImportError:  # Windows

    def _is_held(file: BinaryIO) -> bool:
        """True if a process holds the lock; unknown here."""
        return False

else:

    def _is_held(file: BinaryIO) -> bool:
        """True if a process holds the lock, which the system takes from killed processes."""
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
        fcntl.flock(file, fcntl.LOCK_UN)
        return False


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace(Record):
    """A record as a recorder has kept it, and what became of the process; see :class:`greedylr.pulse.record.Record`.

    Attributes:
        path: Its folder.
        meta: What the user said about it; under ``greedylr``, ``python``, ``host`` what it ran on.
        phases: Where not single losses but the phase of the run sets the learning rate.
        failures: What broke, since a process last began to record.
        foreign: Learning rates that somebody else had set.
        resumed: Steps to which the run went back, as a checkpoint was loaded that is earlier than the record.
        status: ``running``, ``finished``, ``failed`` (an exception ended it), ``killed`` (it ended without a word), or
            ``abandoned`` (the recorder was dropped without being closed).
        seconds: Duration of the recording, over all processes.
    """

    path: Path
    meta: dict[str, Any]
    phases: list[Phase]
    failures: list[Failure]
    foreign: list[Foreign]
    resumed: list[int]
    status: str
    seconds: float

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace; it may be being written. A last line without its end is left out.

        Args:
            path: The folder that was given to :class:`Recorder`.

        Raises:
            OSError: If there is none.
            ValueError: If the file is not a trace; the message has the number of the line.

        Warns:
            UserWarning: If a line is damaged. What comes before it is read, and what follows cannot be trusted.

        Example:
            See :class:`greedylr.pulse.Recorder`.
        """
        return Follower(path).look()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def over(self) -> bool:
        """False while it is being recorded."""
        return self.status != "running"


@dataclass
class _Read:
    """Content of a file as far as it has been read.

    Attributes:
        inode: Number of the file.
        reader: Content of its lines.
        seal: Checksum that the next line goes on from.
        end: Bytes.
        lines: Number of lines.
        last: The last of them.
        damaged: Whether the next one is not sound.
    """

    inode: int = -1
    reader: Reader = field(default_factory=Reader)
    seal: int = 0
    end: int = 0
    lines: int = 0
    last: bytes = b""
    damaged: bool = False


class Follower:
    """A trace that is being written, read again and again, each time only what has been added.

    Args:
        path: The folder that was given to :class:`Recorder`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._folder = Path(path)
        self._file = self._folder / storage.FILE
        self._read = _Read()

    def look(self) -> Trace:
        """The trace as it is by now; errors and warnings as of :meth:`Trace.load`."""
        if not self._file.is_file():
            raise FileNotFoundError(f"{self._folder} holds no trace: the path is the folder that was given to Recorder")
        with open(self._file, "rb") as lines:
            being_written = _is_held(lines)
            if not self._goes_on(lines):
                self._read = _Read(os.fstat(lines.fileno()).st_ino)
            if not self._read.damaged:
                lines.seek(self._read.end)
                self._take(lines)
        reader = self._read.reader
        try:
            status = reader.end or ("running" if being_written else "killed")
            return Trace(path=self._folder, status=status, **reader.content())
        except ODD as error:
            raise ValueError(f"{self._file}: its lines do not make a trace ({error!r})") from error

    def _goes_on(self, lines: BinaryIO) -> bool:
        """True if it is the file that was read, and the last line of that stands where it stood."""
        if os.fstat(lines.fileno()).st_ino != self._read.inode:
            return False
        lines.seek(self._read.end - len(self._read.last))
        return lines.read(len(self._read.last)) == self._read.last

    def _take(self, lines: BinaryIO) -> None:
        read = self._read
        for line in lines:
            if not line.endswith(b"\n"):
                return
            try:
                record, seal = storage.from_line(line, read.seal)
            except (ValueError, RecursionError) as error:
                if not read.lines:
                    raise ValueError(f"{self._file}, line 1: not a line of a trace ({error!r})") from error
                warnings.warn(
                    f"{storage.label(self._file)} is damaged: line {read.lines + 1} and what follows are left out, so "
                    f"the record ends at step {read.reader.last}",
                    UserWarning,
                    stacklevel=4,
                )
                read.damaged = True
                return
            try:
                read.reader.take(record)
            except ODD as error:
                where = f"{self._file}, line {read.lines + 1}"
                self._read = _Read()  # The reader has taken a part of it.
                raise ValueError(f"{where}: not a line of a trace ({error!r})") from error
            read.seal, read.end, read.lines, read.last = seal, read.end + len(line), read.lines + 1, line
