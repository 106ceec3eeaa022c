"""An observer that appends every decision to a file, and the way back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from greedylr.control.decision import Action, Decision


class Recorder:
    """Appends every decision, with its loss, to a JSONL file: one line each, in strict JSON.

    Each line is handed to the operating system in one piece before the next training step, so that a crash
    or ``kill -9`` of the process loses at most the line being written, and no memory builds up. An existing file
    is continued; a line that a crash tore off at its end is removed first.

    Args:
        path: The file; its folder must exist.

    Raises:
        OSError: If the file cannot be written: here, or from :meth:`GreedyLR.step` once the disk is full.

    Example:
        >>> import tempfile, torch
        >>> from greedylr import GreedyLR
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> scheduler = GreedyLR(optimizer)
        >>> path = tempfile.mkdtemp() + "/run.jsonl"
        >>> with Recorder(path) as recorder:
        ...     unsubscribe = scheduler.subscribe(recorder)
        ...     scheduler.step(2.5)
        ...     scheduler.step(float("inf"))
        >>> [(decision.step, decision.loss, decision.action.name) for decision in read(path)]
        [(1, 2.5, 'GATHERING'), (2, inf, 'NON_FINITE')]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115 (closed by close)
        _drop_torn_line(self._file)

    def __call__(self, decision: Decision) -> None:
        """Append one decision."""
        line = json.dumps(_to_json(decision), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(f"{self.path}: the disk took only part of a line")

    def close(self) -> None:
        """Close the file; unsubscribe first, or the next step raises a ValueError."""
        self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read(path: str | os.PathLike[str]) -> Iterator[Decision]:
    """The decisions in a file, in the order they were made; may be called while it is being written.

    A run that was resumed from a checkpoint before its end has some steps twice; the later ones count.

    Args:
        path: A file that :class:`Recorder` wrote. A last line without its end is left out.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line is not a decision; the message has its number.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                decision = _from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a decision ({error!r})") from error
            yield decision


def _to_json(decision: Decision) -> dict[str, Any]:
    record = {"step": decision.step, "loss": decision.loss, "action": decision.action.name, "lr": decision.lr_after}
    if not math.isfinite(decision.loss):
        record["loss"] = str(decision.loss)  # "nan", "inf", "-inf": strict JSON has no such numbers.
    # Most lines are holds: what says nothing is left out.
    if decision.lr_before != decision.lr_after:
        record["lr_before"] = decision.lr_before
    if decision.evidence:
        evidence = decision.evidence.items()
        record["evidence"] = {name: x if math.isfinite(x) else str(x) for name, x in evidence}
    return record


def _from_json(record: dict[str, Any]) -> Decision:
    lrs = tuple(record["lr"])
    return Decision(
        step=record["step"],
        loss=float(record["loss"]),
        action=Action[record["action"]],
        lr_before=tuple(record.get("lr_before", lrs)),
        lr_after=lrs,
        evidence={name: float(x) for name, x in record.get("evidence", {}).items()},
    )


def _drop_torn_line(file: Any) -> None:
    """Cut off what follows the last end of line, reading back block by block."""
    end = file.seek(0, os.SEEK_END)
    position = end
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            position = start + found + 1
            break
        position = start
    if position < end:
        file.truncate(position)
