"""The trace of a run, read back: while it is being written, after it was killed, or from start to end."""

from __future__ import annotations

import base64
import os
import re
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from greedylr.control.decision import Action, Decision
from greedylr.extras import missing
from greedylr.pulse.recording import storage

try:
    import numpy as np
    from numpy.typing import NDArray
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

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


_VALIDATION = re.compile(r"(val|valid|validation|eval|evaluation)(?![a-z])", re.IGNORECASE)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Metric(NamedTuple):
    """Series that was logged under one name.

    Attributes:
        steps: The steps, ascending.
        values: One value for each.
    """

    steps: Ints
    values: Floats


class Mark(NamedTuple):
    """A step that the user, or a rescue, marked.

    Attributes:
        step: The last step before it.
        name: What happened.
        details: Numbers and strings about it.
    """

    step: int
    name: str
    details: dict[str, Any]


class Phase(NamedTuple):
    """A part of the run in which warmup, climb or annealing set the learning rate.

    Attributes:
        first: Its first step.
        last: Its last step.
        name: What it is, in a word or two.
    """

    first: int
    last: int
    name: str


class Failure(NamedTuple):
    """Something that broke.

    Attributes:
        step: The last step before it.
        kind: Name of the exception.
        message: What it said.
        out_of_memory: Whether host or device ran out of memory.
    """

    step: int
    kind: str
    message: str
    out_of_memory: bool


class Foreign(NamedTuple):
    """A learning rate in the optimizer that is not the scheduler's.

    Attributes:
        step: When it was found.
        found: What was in the optimizer, in its first parameter group.
        written: What the scheduler had written there.
    """

    step: int
    found: float
    written: float


@dataclass(frozen=True)
class Trace:
    """Record of one run.

    Attributes:
        path: Its folder.
        meta: What the user said about it; under ``greedylr``, ``python``, ``host`` what it ran on.
        config: The scheduler's settings, with its ``family``.
        steps: The steps of the rows, ascending; in a thinned part not every step has a row.
        losses: The loss at each of these steps.
        means: Mean loss since the row before.
        highs: Largest loss since the row before.
        lrs: Learning rate of each parameter group after each of these steps, ``[row, group]``; NaN before the group
            joined.
        first_lrs: Learning rate of each parameter group before the first step; NaN where the record does not say.
        composition: What each batch was made of, by name: numbers (NaN where there is none) or labels (empty where
            there is none).
        troubled: What the batches of spikes, explosions and losses not finite were made of at steps that have no row,
            by step.
        decisions: All that compared or moved something, in order.
        phases: Where not single losses but the phase of the run sets the learning rate.
        metrics: What was logged, by name.
        marks: What the user marked.
        failures: What broke, since a process last began to record.
        foreign: Learning rates that somebody else had set.
        resumed: Steps to which the run went back, as a checkpoint was loaded that is earlier than the record.
        status: ``running``, ``finished``, ``failed`` (an exception ended it), ``killed`` (it ended without a word), or
            ``abandoned`` (the recorder was dropped without being closed).
        seconds: Duration of the recording, over all processes.
    """

    path: Path
    meta: dict[str, Any]
    config: dict[str, Any]
    steps: Ints
    losses: Floats
    means: Floats
    highs: Floats
    lrs: NDArray[np.float64]
    first_lrs: Floats
    composition: dict[str, NDArray[Any]]
    troubled: dict[int, dict[str, Any]]
    decisions: list[Decision]
    phases: list[Phase]
    metrics: dict[str, Metric]
    marks: list[Mark]
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
        reading, seal = _Reading(), 0
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
                        f"ends at step {reading.last}",
                        UserWarning,
                        stacklevel=2,
                    )
                    break
                try:
                    reading.take(record)
                except _ODD as error:
                    raise ValueError(f"{file}, line {number}: not a line of a trace ({error!r})") from error
        try:
            return reading.trace(folder, being_written)
        except _ODD as error:
            raise ValueError(f"{file}: its lines do not make a trace ({error!r})") from error

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def last(self) -> int:
        """The last step recorded; 0 if there is none."""
        last_decision = self.decisions[-1].step if self.decisions else 0
        return max(int(self.steps[-1]) if len(self.steps) else 0, last_decision)

    @property
    def window(self) -> int:
        """Steps that the rule takes to compare: the span that decisions are judged over."""
        return int(self.config.get("span") or max(20, int(self.config.get("patience", 0)) + 1))

    @property
    def sign(self) -> float:
        """1 where a lower loss is better, -1 where a higher is (``mode="max"``)."""
        return -1.0 if self.config.get("mode") == "max" else 1.0

    @cached_property
    def moves(self) -> list[Decision]:
        """The decisions that moved a learning rate for a reason in the loss, in order."""
        return [one for one in self.decisions if (one.raised or one.cut) and one.lr_before != one.lr_after]

    @property
    def validation(self) -> str | None:
        """Name of the metric that is the validation loss; None if none was logged."""
        names = [name for name in self.metrics if _VALIDATION.match(name)]
        return next((name for name in names if "loss" in name.lower()), names[0] if names else None)

    def to_arrow(self) -> pa.Table:
        """One row for each step kept: step, loss, its mean and maximum, learning rates, batch columns, action.

        The metrics are joined at their steps, null in between; one logged at a step that was thinned out is left out.
        """
        import pyarrow as pa

        columns: dict[str, Any] = {"step": self.steps, "loss": self.losses, "mean": self.means, "high": self.highs}
        for group in range(self.lrs.shape[1]):
            columns["lr" if group == 0 else f"lr_{group}"] = self.lrs[:, group]
        columns.update({f"batch_{name}": values for name, values in self.composition.items()})
        actions = np.full(len(self.steps), None, dtype=object)
        rows = {int(step): row for row, step in enumerate(self.steps)} if self.decisions or self.metrics else {}
        for one in self.decisions:
            if one.step in rows:
                actions[rows[one.step]] = one.action.name
        columns["action"] = pa.array(actions, pa.string())
        for name, metric in self.metrics.items():
            values = np.full(len(self.steps), None, dtype=object)
            for step, value in zip(metric.steps.tolist(), metric.values.tolist()):
                if step in rows:
                    values[rows[step]] = value
            columns[f"metric_{name}"] = pa.array(values, pa.float64())
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """As :meth:`to_arrow`, as a ``pandas.DataFrame``."""
        return self.to_arrow().to_pandas()


_ODD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError)
"""Errors from a line whose checksum is right, and which no recorder wrote."""

_ENDS = ("finished", "failed", "abandoned")
_PHASE_NAMES = frozenset({"", *(action.name for action in storage.PHASES)})


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return storage.label(value, 1000)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < 2**53:
        raise TypeError(f"not a step: {value!r}")
    return value


def _scalars(record: Any) -> dict[str, Any]:
    for value in record.values():
        if not isinstance(value, (str, int, float)):
            raise TypeError(f"neither number nor text: {value!r}")
    return {storage.label(name): storage.label(x) if isinstance(x, str) else x for name, x in record.items()}


@dataclass
class _Reading:
    """Accumulated content of the lines so far."""

    meta: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    lr: tuple[float, ...] = ()
    first_lrs: Floats | None = None
    metrics: dict[str, list[tuple[Ints, Floats]]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    troubled: dict[int, dict[str, Any]] = field(default_factory=dict)
    turns: list[tuple[int, str]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    end: str = ""
    last: int = 0
    seconds: float = 0.0
    seconds_before: float = 0.0

    def take(self, line: dict[str, Any]) -> None:
        if "first" in line:
            self._take_block(line)
        elif "start" in line:
            start = line["start"]
            if start["format"] != storage.FORMAT:
                raise ValueError(f"format {start['format']}, not {storage.FORMAT}")
            own = {name: start[name] for name in ("greedylr", "python", "host", "time")}
            self.meta = _scalars(own) | _scalars(start["meta"])
            self.end, self.seconds_before, self.failures = "", self.seconds, []
        elif "config" in line:
            self.config = dict(line["config"])
        elif "mark" in line:
            mark = Mark(**line["mark"])
            self.marks.append(Mark(_whole(mark.step), _text(mark.name), _scalars(mark.details)))
        elif "failure" in line:
            failure = Failure(**line["failure"])
            words = _text(failure.kind), _text(failure.message)
            self.failures.append(Failure(_whole(failure.step), *words, bool(failure.out_of_memory)))
        elif "foreign" in line:
            self.foreign.append(Foreign(**{name: float(x) for name, x in line["foreign"].items()} | _step_of(line)))
        elif "end" in line:
            if line["end"] not in _ENDS:
                raise ValueError(f"unknown end {line['end']!r}")
            self.end = line["end"]
        else:
            raise ValueError(f"unknown entries {sorted(line)}")

    def _take_block(self, line: dict[str, Any]) -> None:
        first, every, n = _whole(line["first"]), _whole(line.get("every", 1)), _whole(line["n"])
        _whole(line["made"]), _whole(line["last"])
        made = line.get("decisions")
        decided = np.empty(0, np.int64) if made is None else _steps(made["step"], _length(made["action"]))
        # Else no step was made: metrics from before the first one, or the last row of a thinned part.
        if line["made"] <= line["last"]:
            if line["made"] <= self.last:
                self._rewind(line["made"])
            self.last = line["last"]
        self.end = ""
        self.seconds = self.seconds_before + line["seconds"]
        if "before" in line and not any(len(block["steps"]) for block in self.blocks):
            self.first_lrs = _doubles(line["before"])
        changes = line.get("lr")
        if changes:
            values = _doubles(changes["value"]).reshape(-1, changes["groups"])
            change = (_steps(changes["step"], len(values)), values)
        else:
            change = (np.empty(0, np.int64), np.empty((0, max(len(self.lr), 1))))
        for step, name in line.get("phases", ()):
            if name not in _PHASE_NAMES:
                raise ValueError(f"unknown phase {name!r}")
            self.turns.append((_whole(step), name))
        losses = _doubles(line["loss"]) if n else np.empty(0)
        if len(losses) != n:
            raise ValueError(f"{len(losses)} losses where {n} were announced")
        steps = first + every * np.arange(n, dtype=np.int64)
        if made is not None:
            known = _doubles(made["loss"]) if "loss" in made else losses[decided - first]
            self.decisions += _decisions(made, decided, known, self.lr, change)
            for name, column in _batch(made["batch"], len(decided)).items() if "batch" in made else ():
                for step, value in zip(decided.tolist(), column.tolist()):
                    if value == value and value != "":
                        self.troubled.setdefault(step, {})[name] = value
        if changes:
            self.lr = tuple(change[1][-1].tolist())
        means = _singles(line["mean"]) if "mean" in line else losses
        highs = _singles(line["high"]) if "high" in line else losses
        if not len(means) == len(highs) == n:
            raise ValueError(f"{len(means)} means and {len(highs)} highs of {n} losses")
        batch = _batch(line["batch"], n) if "batch" in line else {}
        block = {"steps": steps, "losses": losses, "means": means, "highs": highs, "change": change, "batch": batch}
        self.blocks.append(block)
        for name, (at, logged) in line.get("metrics", {}).items():
            values = _doubles(logged)
            at = _steps(at, len(values))
            if len(at) != len(values):
                raise ValueError(f"{len(values)} values of {name} at {len(at)} steps")
            self.metrics.setdefault(name, []).append((at, values))

    def _rewind(self, first: int) -> None:
        """Forget what a resumed run does again, from this step on."""
        self.resumed.append(first - 1)
        self.decisions = [one for one in self.decisions if one.step < first]
        self.troubled = {step: batch for step, batch in self.troubled.items() if step < first}
        self.turns = [turn for turn in self.turns if turn[0] < first]
        for block in self.blocks:
            kept = int(np.searchsorted(block["steps"], first))
            for name in ("steps", "losses", "means", "highs"):
                block[name] = block[name][:kept]
            block["batch"] = {name: values[:kept] for name, values in block["batch"].items()}
            at, values = block["change"]
            block["change"] = (at[at < first], values[at < first])
        for name, parts in self.metrics.items():
            self.metrics[name] = [(at[at < first], values[at < first]) for at, values in parts]
        self.marks = [mark for mark in self.marks if mark.step < first]
        changes = [block["change"][1][-1] for block in self.blocks if len(block["change"][0])]
        self.lr = tuple(changes[-1].tolist()) if changes else ()

    def trace(self, path: Path, being_written: bool) -> Trace:
        steps = _joined([block["steps"] for block in self.blocks], np.int64)
        metrics = {name: _metric(parts) for name, parts in self.metrics.items()}
        status = self.end or ("running" if being_written else "killed")
        return Trace(
            path=path,
            meta=self.meta,
            config=self.config,
            steps=steps,
            losses=_joined([block["losses"] for block in self.blocks], float),
            means=_joined([block["means"] for block in self.blocks], float),
            highs=_joined([block["highs"] for block in self.blocks], float),
            lrs=self._lrs(steps),
            first_lrs=np.full(1, np.nan) if self.first_lrs is None else self.first_lrs,
            composition=self._batch(),
            troubled=self.troubled,
            decisions=self.decisions,
            phases=self._phases(),
            metrics={name: metric for name, metric in metrics.items() if len(metric.steps)},
            marks=self.marks,
            failures=self.failures,
            foreign=self.foreign,
            resumed=self.resumed,
            status=status,
            seconds=self.seconds,
        )

    def _phases(self) -> list[Phase]:
        before = [None, *(name for _, name in self.turns)]
        # A process that goes on says again in which phase it is.
        turns = [turn for turn, name in zip(self.turns, before) if turn[1] != name]
        ends = [step - 1 for step, _ in turns[1:]] + [self.last]
        return [Phase(step, end, name.lower().replace("_", " ")) for (step, name), end in zip(turns, ends) if name]

    def _lrs(self, steps: Ints) -> NDArray[np.float64]:
        """The learning rates at all rows, from where they changed."""
        changes = [block["change"] for block in self.blocks if len(block["change"][0])]
        if not changes:
            return np.full((len(steps), 1), np.nan)
        groups = max(values.shape[1] for _, values in changes)
        at = np.concatenate([at for at, _ in changes])
        padded = [np.pad(known, ((0, 0), (0, groups - known.shape[1])), constant_values=np.nan) for _, known in changes]
        values = np.concatenate(padded)
        rows = np.searchsorted(at, steps, side="right") - 1
        lrs: NDArray[np.float64] = np.where(rows[:, None] >= 0, values[np.maximum(rows, 0)], np.nan)
        return lrs

    def _batch(self) -> dict[str, NDArray[Any]]:
        names = dict.fromkeys(name for block in self.blocks for name in block["batch"])
        columns: dict[str, NDArray[Any]] = {}
        for name in names:
            parts = [block["batch"].get(name) for block in self.blocks]
            labels = any(part is not None and part.dtype.kind in "UO" for part in parts)
            filled = []
            for block, part in zip(self.blocks, parts):
                if part is None:
                    part = np.full(len(block["steps"]), "" if labels else np.nan, dtype=object if labels else float)
                filled.append(
                    np.array([_label(x) for x in part], dtype=object) if labels and part.dtype.kind == "f" else part
                )
            columns[name] = np.concatenate(filled)
        return columns


def _metric(parts: list[tuple[Ints, Floats]]) -> Metric:
    at, values = _joined([at for at, _ in parts], np.int64), _joined([values for _, values in parts], float)
    order = np.argsort(at, kind="stable")  # They may have been logged in any.
    return Metric(at[order], values[order])


def _label(value: float) -> str:
    return "" if value != value else f"{value:g}"


def _step_of(line: dict[str, Any]) -> dict[str, Any]:
    return {"step": line["foreign"]["step"]}


def _doubles(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f8")


def _singles(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)


def _counts(text: str) -> Ints:
    return np.frombuffer(base64.b64decode(text, validate=True), "<u4").astype(np.int64)


def _length(text: str) -> int:
    return len(base64.b64decode(text, validate=True))


def _steps(record: str | int | list[int], length: int) -> Ints:
    if isinstance(record, int):
        return record + np.arange(length, dtype=np.int64)
    return np.array(record, np.int64) if isinstance(record, list) else _counts(record)


def _decisions(
    record: dict[str, Any], steps: Ints, losses: Floats, lr: tuple[float, ...], changes: tuple[Ints, Floats]
) -> list[Decision]:
    """The decisions of a block, given the learning rates before it and their changes in it."""
    actions = [Action[name] for name in record["actions"]]
    lrs = [lr, *map(tuple, changes[1].tolist())]
    before = np.searchsorted(changes[0], steps, side="left").tolist()
    after = np.searchsorted(changes[0], steps, side="right").tolist()
    found = {row: tuple(lrs) for row, lrs in record.get("found", ())}
    evidence: list[dict[str, float]] = [{} for _ in before]
    for group in record["evidence"]:
        if not 0 <= group["n"] <= len(before):
            raise ValueError(f"evidence of {group['n']} decisions, of {len(before)}")
        rows = _steps(group["row"], group["n"])
        columns = [losses[rows] if column is None else _evidence(column) for column in group["values"]]
        for row, *values in zip(rows.tolist(), *(column.tolist() for column in columns)):
            evidence[row] = dict(zip(group["names"], values))
    codes = base64.b64decode(record["action"], validate=True)
    return [
        Decision(step, loss, actions[code], found.get(row, lrs[before[row]]), lrs[after[row]], evidence[row])
        for row, (step, loss, code) in enumerate(zip(steps.tolist(), losses.tolist(), codes))
    ]


def _evidence(column: str | dict[str, str]) -> Floats:
    if isinstance(column, dict):
        return np.frombuffer(base64.b64decode(column["small"], validate=True), "u1").astype(np.float64)
    return _doubles(column)


def _batch(record: dict[str, Any], rows: int) -> dict[str, NDArray[Any]]:
    at = _counts(record["row"]) if "row" in record else None
    columns: dict[str, NDArray[Any]] = {}
    for name, column in record["columns"].items():
        if isinstance(column, str):
            values, empty = _singles(column), np.full(rows, np.nan)
        else:
            kind = "<u4" if column["wide"] else "u1"
            codes = np.frombuffer(base64.b64decode(column["code"], validate=True), kind)
            values = np.array(["", *column["labels"]], dtype=object)[codes]
            empty = np.full(rows, "", dtype=object)
        inside = np.arange(len(values)) if at is None else at
        inside = inside[inside < rows]
        empty[inside] = values[: len(inside)]
        columns[name] = empty
    return columns


def _joined(parts: list[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, kind)
