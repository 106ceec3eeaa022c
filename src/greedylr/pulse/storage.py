"""What the lines of a trace's file mean, for those who write them and those who read them. Standard library only.

A trace is a folder with one file, :data:`FILE`: lines of strict JSON that are only ever appended. A line has
one of these entries.

``start``
    A process began to record: what it runs, and with which settings.
``first``
    A block of consecutive steps: ``n`` losses, one every ``every`` steps, the first at step ``first``; ``lr``, where
    the learning rates changed; ``phases`` that began; ``decisions``; ``batch``, columns of what the batches were made
    of;
    ``metrics``.
``foreign``, ``mark``, ``failure``, ``end``
    Somebody else set the learning rate; the user marked a step; something broke; the process stopped recording.

Columns of numbers are base64 of little-endian binary: exact, as long as decimal digits, and a tenth of the time.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from array import array
from collections.abc import Iterable
from typing import Any

from greedylr.control.decision import Action, Decision

FILE = "trace.jsonl"
"""The file's name in its folder."""

FORMAT = 1

PHASES = frozenset({Action.CLIMBING, Action.ANNEALING})
"""Where not single losses but the phase of the run sets the learning rate."""

QUIET = frozenset({Action.GATHERING, Action.PATIENCE, Action.COOLDOWN, Action.WARMUP}) | PHASES
"""What compared nothing: losses and learning rates are kept, and say all there is."""

_DOUBLE, _SINGLE, _UNSIGNED = "d", "f", "I"


def to_line(record: dict[str, Any]) -> bytes:
    """A record as one line of strict JSON, its end included."""
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def doubles(values: Iterable[float]) -> str:
    """Numbers as text, exactly."""
    return _text(array(_DOUBLE, values))


def steps(values: list[int]) -> str | int:
    """Steps: the first alone, where all follow one another."""
    first, n = values[0], len(values)
    follow = values[-1] - first == n - 1 and values == list(range(first, first + n))
    return first if follow else counts(values)


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


def number(value: float) -> float | str:
    """A number for strict JSON, which has no NaN and no infinities."""
    return value if math.isfinite(value) else str(value)


def decisions(made: list[Decision], found: list[tuple[int, tuple[float, ...]]], with_losses: bool) -> dict[str, Any]:
    """Decisions by column. Their learning rates are those of the block, but where ``found`` has others before one.

    Args:
        made: The decisions of a block, at least one.
        found: Row of a decision, and the learning rates that it found if they were not those of the step before.
        with_losses: Whether their losses are not among those of the block.
    """
    numbers, losses, actions, _, _, evidence = zip(*made)
    codes = {action: code for code, action in enumerate(dict.fromkeys(actions))}
    record: dict[str, Any] = {
        "step": steps(list(numbers)),
        "actions": [action.name for action in codes],
        "action": small(map(codes.__getitem__, actions)),
        "evidence": [],
    }
    if with_losses:
        record["loss"] = doubles(losses)
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
