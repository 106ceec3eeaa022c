"""The trace of a run, read back: while it is being written, after it was killed, or from start to end."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
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
        folder = Path(path)
        file = folder / storage.FILE
        reader, seal = Reader(), 0
        if not file.is_file():
            raise FileNotFoundError(f"{folder} holds no trace: the path is the folder that was given to Recorder")
        with open(file, "rb") as lines:
            being_written = _is_held(lines)
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    record, seal = storage.from_line(line, seal)
                except (ValueError, RecursionError) as error:
                    if number == 1:
                        raise ValueError(f"{file}, line 1: not a line of a trace ({error!r})") from error
                    warnings.warn(
                        f"{storage.label(file)} is damaged: line {number} and what follows are left out, so the record "
                        f"ends at step {reader.last}",
                        UserWarning,
                        stacklevel=2,
                    )
                    break
                try:
                    reader.take(record)
                except ODD as error:
                    raise ValueError(f"{file}, line {number}: not a line of a trace ({error!r})") from error
        try:
            status = reader.end or ("running" if being_written else "killed")
            return cls(path=folder, status=status, **reader.content())
        except ODD as error:
            raise ValueError(f"{file}: its lines do not make a trace ({error!r})") from error

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def over(self) -> bool:
        """False while it is being recorded."""
        return self.status != "running"
