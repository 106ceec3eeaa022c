"""The one record of a training run: what it did, whoever kept it.

A trace that a recorder wrote is one, with what else is known of the process; the lab's results hold one each. The
audit, the findings and the readiness table take it from anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from greedylr.control.decision import Decision
from greedylr.extras import missing

try:
    import numpy as np
    from numpy.typing import NDArray
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_VALIDATION = re.compile(r"(val|valid|validation|eval|evaluation)(?![a-z])", re.IGNORECASE)


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


@dataclass(frozen=True, eq=False, kw_only=True)
class Record:
    """Steps of one run, and what was decided.

    Attributes:
        config: The scheduler's settings, as :func:`greedylr.pulse.recording.storage.settings` has them; empty where it
            has none.
        steps: The steps, ascending.
        losses: The minibatch loss of each, before its update.
        lrs: Learning rate of each parameter group after each of these steps, ``[row, group]``; NaN before the group
            joined.
        first_lrs: Learning rate of each parameter group before the first step; NaN where the record does not say.
        decisions: All that compared or moved something, in order.
        metrics: What was logged, by name.
        composition: What each batch was made of, by name: numbers (NaN where there is none) or labels (empty where
            there is none).
        marks: What the user marked.
    """

    config: dict[str, Any]
    steps: Ints
    losses: Floats
    lrs: NDArray[np.float64]
    first_lrs: Floats
    decisions: list[Decision]
    metrics: dict[str, Metric]
    composition: dict[str, NDArray[Any]]
    marks: list[Mark]

    def __eq__(self, other: object) -> bool:
        """True if it is the record of the same, NaN being equal to itself."""
        if not isinstance(other, Record) or type(self) is not type(other):
            return NotImplemented
        return all(_same(getattr(self, one.name), getattr(other, one.name)) for one in fields(self))

    __hash__ = None  # type: ignore[assignment]

    @property
    def last(self) -> int:
        """The last step recorded; 0 if there is none."""
        last_decision = self.decisions[-1].step if self.decisions else 0
        return max(int(self.steps[-1]) if len(self.steps) else 0, last_decision)

    @property
    def over(self) -> bool:
        """False while more may follow."""
        return True

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
        """One row for each step: step, loss, learning rates, batch columns, action.

        The metrics are joined at their steps, null in between.
        """
        import pyarrow as pa

        columns: dict[str, Any] = {"step": self.steps, "loss": self.losses}
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
        """The table of :meth:`to_arrow`, as a ``pandas.DataFrame``."""
        return self.to_arrow().to_pandas()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, Metric):
        return all(map(_same, one, other))
    return bool(one == other) or repr(one) == repr(other)
