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


def decision_to_json(decision: Decision, lr_known: tuple[float, ...] | None) -> dict[str, Any]:
    """A decision as JSON; ``lr_before`` only where it is not ``lr_known``, that of the record before."""
    record: dict[str, Any] = {
        "step": decision.step,
        "loss": number(decision.loss),
        "action": decision.action.name,
        "lr": decision.lr_after,
    }
    if decision.lr_before != lr_known:
        record["lr_before"] = decision.lr_before
    if decision.evidence:
        record["evidence"] = {name: number(x) for name, x in decision.evidence.items()}
    return record


def decision_from_json(record: dict[str, Any], lr_known: tuple[float, ...]) -> Decision:
    """The decision of :func:`decision_to_json`.

    Raises:
        ValueError: If a number is none.
        KeyError: If an entry is missing, or there is no such action.
        TypeError: If an entry is of another kind.
    """
    return Decision(
        step=record["step"],
        loss=float(record["loss"]),
        action=Action[record["action"]],
        lr_before=tuple(record.get("lr_before", lr_known)),
        lr_after=tuple(record["lr"]),
        evidence={name: float(x) for name, x in record.get("evidence", {}).items()},
    )


def _text(values: array[Any]) -> str:
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()
