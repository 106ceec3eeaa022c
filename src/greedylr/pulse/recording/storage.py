"""Format of the lines of a trace file, for writers and readers. Standard library only.

A trace is a folder with one file, :data:`FILE`: lines of strict JSON that are only ever appended. A line ends with
``crc``, the checksum of it and of all lines before, and has one of these entries.

``start``
    A process began to record: what it runs, and with which settings.
``first``
    A block of consecutive steps: a ``loss`` for each, the first at step ``first``; ``lr``, where the learning rates
    changed; ``phases`` that began; ``decisions``; ``batch``, columns of what the batches were made of; ``metrics``.
    Deflated, as base64 under ``block``.
``foreign``, ``mark``, ``failure``, ``end``
    Somebody else set the learning rate; the user marked a step; something broke; the process stopped recording.

Columns of numbers are base64 of little-endian binary: exact, as long as decimal digits, and a tenth of the time.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import zlib
from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Any

from greedylr.control import plain
from greedylr.control.decision import Action, Decision

FILE = "trace.jsonl"
"""The file's name in its folder."""

FORMAT = 2

PHASES = frozenset({Action.WARMING_UP, Action.CLIMBING, Action.SILENT, Action.ANNEALING, Action.OVER})
"""Actions while the phase of the run, not a single loss, sets the learning rate."""

TROUBLE = frozenset({Action.SPIKE, Action.EXPLOSION, Action.NON_FINITE})
"""Losses that are out of the ordinary."""

WITHIN = frozenset({Action.CATCHING_UP, Action.LIMITED})
"""Actions of the gradient: they begin no phase, and end none but the warmup, which may be over."""

QUIET = frozenset({Action.GATHERING, Action.PATIENCE, Action.COOLDOWN, Action.WARMUP}) | PHASES | WITHIN
"""Actions that compared nothing: losses and learning rates are kept, and say all there is."""

_DOUBLE, _SINGLE, _UNSIGNED = "d", "f", "I"
_SEAL = b',"crc":'


def to_line(record: dict[str, Any], seal: int) -> tuple[bytes, int]:
    """A record as one line of strict JSON, its end included, and its seal.

    Args:
        record: The record, not empty.
        seal: That of the line before, 0 for the first: a line that is missing or elsewhere breaks the chain.
    """
    body = _json(record)
    if "first" in record:  # Half as long, for a third of a microsecond a step.
        body = _json({"block": base64.b64encode(zlib.compress(body, 1)).decode()})
    seal = zlib.crc32(body, seal)
    return body[:-1] + b"%b%d}\n" % (_SEAL, seal), seal


def from_line(line: bytes, seal: int) -> tuple[dict[str, Any], int]:
    """The record of :func:`to_line`, and its seal.

    Raises:
        ValueError: If the line, or the one before, is not as it was written.
    """
    own = next_seal(line, seal)
    record: dict[str, Any] = json.loads(line[: line.rindex(_SEAL)] + b"}")
    if "block" in record:
        try:
            record = json.loads(zlib.decompress(base64.b64decode(record["block"], validate=True)))
        except (zlib.error, TypeError) as error:
            raise ValueError(f"a block that is none: {error}") from error
    return record, own


def _json(record: dict[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode()


def next_seal(line: bytes, seal: int) -> int:
    """The seal of a line, which its record and the seal before make.

    Raises:
        ValueError: If the line, or the one before, is not as it was written.
    """
    own = seal_of(line)
    if zlib.crc32(line[: line.rindex(_SEAL)] + b"}", seal) != own:
        raise ValueError("damaged, or not the line that followed the one before")
    return own


def seal_of(line: bytes) -> int:
    """The seal of a line.

    Raises:
        ValueError: If it has none.
    """
    _, found, seal = line.rpartition(_SEAL)
    if not found or not seal.endswith(b"}\n"):
        raise ValueError("a line without a checksum")
    return int(seal[:-2])


def settings(config: Any) -> dict[str, Any]:
    """The settings of a rule as a record keeps them: plain data, with its family, and the steps that it compares.

    Args:
        config: A :class:`greedylr.DefaultConfig` or :class:`greedylr.PaperConfig`.
    """
    # What is derived from the settings is not among them.
    span = getattr(config, "window_length", None) or getattr(config, "window", None)
    return {"family": type(config).__name__, "span": span, **plain.to_dict(config)}


def doubles(values: Iterable[float]) -> str:
    """Numbers as text, exactly."""
    return _text(array(_DOUBLE, values))


def steps(values: list[int]) -> str | int | list[int]:
    """Steps: the first alone, where all follow one another."""
    first, n = values[0], len(values)
    if values[-1] - first == n - 1 and values == list(range(first, first + n)):
        return first
    return counts(values) if max(values) < 2**32 else values


def singles(values: Iterable[float]) -> str:
    """Numbers as text, to seven digits, at half the length; what is too large becomes infinite."""
    try:
        return _text(array(_SINGLE, values))
    except OverflowError:
        largest = 3.4028234e38
        return _text(array(_SINGLE, [x if abs(x) <= largest or x != x else math.copysign(math.inf, x) for x in values]))


def counts(values: Iterable[int]) -> str:
    """Whole numbers from 0 to 2^32 - 1 as text."""
    return _text(array(_UNSIGNED, values))


def small(values: Iterable[int]) -> str:
    """Whole numbers from 0 to 255 as text."""
    return base64.b64encode(bytes(values)).decode()


def scalar(name: str, value: Any) -> int | float | str:
    """A number or a string for strict JSON; of NaN and infinities, their names.

    Args:
        name: What to call it in an error.
        value: A number, a string, or a tensor or array with one element.

    Raises:
        TypeError: If it is something else.
    """
    plain = value
    if hasattr(value, "item") and not isinstance(value, str):
        try:
            plain = value.item()
        except (RuntimeError, ValueError):
            plain = None
    if isinstance(plain, str):
        return label(plain)
    if isinstance(plain, int):
        return int(plain)
    if isinstance(plain, float):
        return number(float(plain))
    raise TypeError(f"{name} must be a number or a string, got {value!r}")


def as_float(value: Any) -> float:
    """A number, or a tensor or array with one element; of a tensor in a graph, float() alone would warn."""
    return float(value.item() if hasattr(value, "item") else value)


def label(value: object, longest: int = 200) -> str:
    """A text, of any length and characters, as one that can be shown and written everywhere."""
    try:
        text = str(value)
    except Exception:  # It is somebody else's, and must not cost the run.
        text = type(value).__name__
    return text[:longest].encode("utf-8", "replace").decode()


def cell(text: str) -> str:
    """A text for a cell of a CSV file, which a spreadsheet must not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def number(value: float) -> float | str:
    """A number for strict JSON, which has no NaN and no infinities."""
    return value if math.isfinite(value) else str(value)


def decisions(made: list[Decision], found: list[tuple[int, tuple[float, ...]]]) -> dict[str, Any]:
    """Decisions by column. Losses and learning rates are those of the block, but where ``found`` has others before one.

    Args:
        made: The decisions of a block, at least one.
        found: Row of a decision, and the learning rates that it found if they were not those of the step before.
    """
    numbers, losses, actions, _, _, evidence = zip(*made)
    codes = {action: code for code, action in enumerate(dict.fromkeys(actions))}
    record: dict[str, Any] = {
        "step": steps(list(numbers)),
        "actions": [action.name for action in codes],
        "action": small(map(codes.__getitem__, actions)),
        "evidence": [],
    }
    if found:
        record["found"] = found
    named = list(map(tuple, evidence))
    kinds = dict.fromkeys(named)
    for names in kinds:
        if names:
            rows = list(range(len(made))) if len(kinds) == 1 else [row for row, own in enumerate(named) if own == names]
            columns = zip(*[evidence[row].values() for row in rows])
            of = doubles([losses[row] for row in rows])
            values = [_evidence(column, of) for column in columns]
            record["evidence"].append({"row": steps(rows), "n": len(rows), "names": names, "values": values})
    return record


def columns(batches: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Composition of the batches, by column: numbers, or codes of labels; ``row`` where some steps had none.

    Whatever is neither a number nor a string is a label by its text: it must not cost the run.
    """
    columns = {}
    rows, of_rows = zip(*batches)
    for name in dict.fromkeys(chain.from_iterable(of_rows)):
        columns[label(name)] = _column([batch.get(name) for batch in of_rows])
    record: dict[str, Any] = {"columns": columns}
    if rows[-1] != len(rows) - 1:
        record["row"] = counts(rows)
    return record


def _column(values: list[Any]) -> str | dict[str, Any]:
    if not set(map(type, values)) <= {str, type(None)}:
        try:
            return singles(values)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # labels, nothing at some steps, or something odd
            values = list(map(_entry, values))
    found = dict.fromkeys(values)
    if not any(isinstance(value, str) for value in found):
        return singles([math.nan if value is None else value for value in values])
    labels = list(dict.fromkeys(_name(value) for value in found if value is not None))
    codes = {text: code for code, text in enumerate(labels, start=1)}
    of_value = {value: 0 if value is None else codes[_name(value)] for value in found}
    coded = [of_value[value] for value in values]
    wide = len(codes) > 255
    return {"labels": labels, "wide": wide, "code": counts(coded) if wide else small(coded)}


def _entry(value: Any) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return as_float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return label(value)


def _name(value: float | str) -> str:
    return label(value) if isinstance(value, str) else f"{value:g}"


def _evidence(values: tuple[float, ...], losses: str) -> str | dict[str, str] | None:
    """Exactly; counts, which are whole and small, in an eighth of the length, and what is the loss itself in none."""
    text = doubles(values)
    if text == losses:
        return None
    if all(0 <= x < 256 and x == int(x) for x in set(values)):
        counted = list(map(int, values))
        if doubles(counted) == text:  # There is a zero below zero.
            return {"small": small(counted)}
    return text


def _text(values: array[Any]) -> str:
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()
