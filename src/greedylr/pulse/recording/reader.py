"""Lines of a trace, put together again."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from greedylr.control.decision import Action, Decision
from greedylr.extras import missing
from greedylr.pulse.record import Failure, Floats, Foreign, Ints, Mark, Metric, Phase
from greedylr.pulse.recording import storage

try:
    import numpy as np
    from numpy.typing import NDArray
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error

ODD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError)
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
class Reader:
    """Accumulated content of the lines so far.

    Attributes:
        end: How the record ended; empty if it has not.
        last: The last step.
    """

    meta: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    lr: tuple[float, ...] = ()
    first_lrs: Floats | None = None
    metrics: dict[str, list[tuple[Ints, Floats]]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
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
        """Add a line.

        Raises:
            Exception: One of :data:`ODD`, if no recorder wrote it.
        """
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
        first = _whole(line["first"])
        losses = _doubles(line["loss"]) if "loss" in line else np.empty(0)
        if len(losses):
            if first <= self.last:
                self._rewind(first)
            self.last = first + len(losses) - 1
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
        if "decisions" in line:
            self.decisions += _decisions(line["decisions"], first, losses, self.lr, change)
        batch = _batch(line["batch"], len(losses)) if "batch" in line else {}
        steps = first + np.arange(len(losses), dtype=np.int64)
        lrs = _lrs_at(steps, self.lr, change)
        self.blocks.append({"steps": steps, "losses": losses, "change": change, "lrs": lrs, "batch": batch})
        if changes:
            self.lr = tuple(change[1][-1].tolist())
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
        self.turns = [turn for turn in self.turns if turn[0] < first]
        for block in self.blocks:
            kept = int(np.searchsorted(block["steps"], first))
            for name in ("steps", "losses", "lrs"):
                block[name] = block[name][:kept]
            block["batch"] = {name: values[:kept] for name, values in block["batch"].items()}
            at, values = block["change"]
            block["change"] = (at[at < first], values[at < first])
        for name, parts in self.metrics.items():
            self.metrics[name] = [(at[at < first], values[at < first]) for at, values in parts]
        self.marks = [mark for mark in self.marks if mark.step < first]
        changes = [block["change"][1][-1] for block in self.blocks if len(block["change"][0])]
        self.lr = tuple(changes[-1].tolist()) if changes else ()

    def content(self) -> dict[str, Any]:
        """All that a :class:`greedylr.pulse.Trace` has, but for where it is and whether it is over."""
        steps = _joined([block["steps"] for block in self.blocks], np.int64)
        metrics = {name: _metric(parts) for name, parts in self.metrics.items()}
        return {
            "meta": self.meta,
            "config": self.config,
            "steps": steps,
            "losses": _joined([block["losses"] for block in self.blocks], float),
            "lrs": self._lrs(),
            "first_lrs": np.full(1, np.nan) if self.first_lrs is None else self.first_lrs,
            "composition": self._batch(),
            "decisions": list(self.decisions),
            "phases": self._phases(),
            "metrics": {name: metric for name, metric in metrics.items() if len(metric.steps)},
            "marks": list(self.marks),
            "failures": list(self.failures),
            "foreign": list(self.foreign),
            "resumed": list(self.resumed),
            "seconds": self.seconds,
        }

    def _phases(self) -> list[Phase]:
        before = [None, *(name for _, name in self.turns)]
        # A process that goes on says again in which phase it is.
        turns = [turn for turn, name in zip(self.turns, before) if turn[1] != name]
        ends = [step - 1 for step, _ in turns[1:]] + [self.last]
        return [Phase(step, end, name.lower().replace("_", " ")) for (step, name), end in zip(turns, ends) if name]

    def _lrs(self) -> NDArray[np.float64]:
        """The learning rates at all rows; NaN before a group joined."""
        groups = max((block["lrs"].shape[1] for block in self.blocks), default=1)
        return _joined([_padded(block["lrs"], groups) for block in self.blocks], float).reshape(-1, groups)

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


def _lrs_at(steps: Ints, before: tuple[float, ...], change: tuple[Ints, Floats]) -> Floats:
    """The learning rates at some steps, of what they were before and from which step on they are others."""
    at, values = change
    groups = max(len(before), values.shape[1], 1)
    known = np.concatenate([_padded(np.array([before or (np.nan,)]), groups), _padded(values, groups)])
    lrs: Floats = known[np.searchsorted(at, steps, side="right")]
    return lrs


def _padded(values: Floats, groups: int) -> Floats:
    """Learning rates of so many groups: NaN for those that had not joined."""
    missing = groups - values.shape[1]
    return np.pad(values, ((0, 0), (0, missing)), constant_values=np.nan) if missing else values


def _metric(parts: list[tuple[Ints, Floats]]) -> Metric:
    at, values = _joined([at for at, _ in parts], np.int64), _joined([values for _, values in parts], float)
    if (np.diff(at) >= 0).all():
        return Metric(at, values)
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


def _steps(record: str | int | list[int], length: int) -> Ints:
    if isinstance(record, int):
        return record + np.arange(length, dtype=np.int64)
    return np.array(record, np.int64) if isinstance(record, list) else _counts(record)


def _decisions(
    record: dict[str, Any], first: int, of_block: Floats, lr: tuple[float, ...], changes: tuple[Ints, Floats]
) -> list[Decision]:
    """The decisions of a block, given its first step, its losses, the learning rates before it and their changes."""
    codes = base64.b64decode(record["action"], validate=True)
    steps = _steps(record["step"], len(codes))
    losses = of_block[steps - first]
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
