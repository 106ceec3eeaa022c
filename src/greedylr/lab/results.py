"""Result of a run: its record, and what the lab knows beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from greedylr import Action, Decision
from greedylr.lab.runs import ON_CPU, Run
from greedylr.pulse.record import Floats, Metric, Record

_VALIDATION, _CLEAN = "val_loss", "clean_loss"


def is_notable(decision: Decision) -> bool:
    """True if the learning-rate curve should explain a decision: a raise, a cut, or a spike."""
    return decision.raised or decision.cut or decision.action is Action.SPIKE


def keep_notable(decisions: list[Decision], decision: Decision) -> None:
    """Add a decision to those that are kept, if it is notable."""
    if is_notable(decision):
        decisions.append(decision)


def moves(observed: Iterable[float], lrs: Sequence[float]) -> list[Decision]:
    """The decisions of a scheduler that does not say why it moves, as far as its learning rates tell.

    Args:
        observed: What it was told at each step.
        lrs: Learning rates before each step, and after the last: one more than there are steps.

    Example:
        >>> [(one.step, one.action.name) for one in moves([2.0, 1.5, 1.6], [0.1, 0.1, 0.2, 0.1])]
        [(2, 'RAISED'), (3, 'CUT')]
    """
    told = enumerate(zip(observed, pairwise(lrs)), start=1)
    return [
        Decision(step, value, Action.RAISED if after > before else Action.CUT, (before,), (after,), {})
        for step, (value, (before, after)) in told
        if after != before
    ]


def record(
    losses: Sequence[float] | Floats,
    lrs: Sequence[float] | Floats,
    validations: Mapping[int, float],
    decisions: Sequence[Decision] = (),
    *,
    config: Mapping[str, Any] | None = None,
    clean_losses: Sequence[float] | Floats = (),
) -> Record:
    """The record of a run in the lab.

    Args:
        losses: Minibatch loss of each step, before the step's update.
        lrs: Learning rate before each of these steps, and after the last: one more.
        validations: Validation loss by the number of steps done, from 0: before the first step.
        decisions: Every raise, cut and spike, in order, of a scheduler that listens.
        config: Its settings, as a recorder keeps them; None: it has none.
        clean_losses: Where examples are disturbed: at each step, the loss of those that were drawn, before anything
            was done to them, with the same weights. Empty in all other runs: there, ``losses`` are clean.
    """
    steps = np.arange(1, len(losses) + 1, dtype=np.int64)
    metrics = {_VALIDATION: Metric(np.array([*validations], np.int64), np.array([*validations.values()], float))}
    if len(clean_losses):
        metrics[_CLEAN] = Metric(steps[: len(clean_losses)], np.array(clean_losses, float))
    return Record(
        config=dict(config or {}),
        steps=steps,
        losses=np.array(losses, float),
        lrs=np.array(lrs[1:], float).reshape(-1, 1),
        first_lrs=np.array(lrs[:1], float),
        decisions=list(decisions),
        metrics=metrics,
        composition={},
        marks=[],
    )


@dataclass
class Result:
    """Result of one run: its record, and what the lab knows beside it.

    Attributes:
        run: What was run.
        record: What it did, step by step; it ends early where the run broke down.
        metric: The task's own measure of success after the last step, if the run got there.
        failure: Why the run broke down, if it did.
        arithmetic: What it was computed with: ``"cpu"``, the plain loop on the processor; ``"stacked"``, many runs at
            once there, where floating-point sums are rounded otherwise; ``"own"``, that of a training function; or the
            kind of another device. The type that the forward pass was computed in, if it was not that of the
            weights, comes last: ``"cuda-bfloat16"``.
    """

    run: Run
    record: Record
    metric: float | None = None
    failure: str | None = None
    arithmetic: str = ON_CPU

    @property
    def losses(self) -> list[float]:
        """Minibatch loss of each step, before the step's update."""
        losses: list[float] = self.record.losses.tolist()
        return losses

    @property
    def lrs(self) -> list[float]:
        """Learning rate that each step was made with, as the scheduler set it."""
        return [*self.record.first_lrs.tolist(), *self.record.lrs[:, 0].tolist()][: len(self.record.losses)]

    @property
    def decisions(self) -> list[Decision]:
        """Every raise, cut and spike, in order; of a scheduler that does not say why, as its learning rates tell."""
        return self.record.decisions

    @property
    def validation_steps(self) -> list[int]:
        """Number of steps done at each validation, from 0: before the first step."""
        steps: list[int] = self.record.metrics[_VALIDATION].steps.tolist()
        return steps

    @property
    def validation_losses(self) -> list[float]:
        """Validation loss at each of them."""
        losses: list[float] = self.record.metrics[_VALIDATION].values.tolist()
        return losses

    @property
    def start_loss(self) -> float:
        """Validation loss before the first step."""
        return float(self.record.metrics[_VALIDATION].values[0])

    @property
    def clean_losses(self) -> list[float]:
        """Loss of the examples that were drawn, before anything was done to them; none where nothing was.

        With the same weights. Where nothing was, :attr:`losses` are clean.
        """
        return self.record.metrics[_CLEAN].values.tolist() if _CLEAN in self.record.metrics else []

    @property
    def final_loss(self) -> float:
        """Validation loss after the last step; may be infinite, and NaN if the run never got there."""
        return float(self.record.metrics[_VALIDATION].values[-1]) if self.failure is None else math.nan

    @property
    def diverged(self) -> bool:
        """True if the run ended no better than it began: not even 1 % below the untrained model's validation loss."""
        return not self.final_loss < self.start_loss - 0.01 * abs(self.start_loss)


def to_plain(decision: Decision) -> list[Any]:
    """A decision as plain data; its action by name, for sentences may be put right."""
    return [getattr(one, "name", one) for one in decision]


def from_plain(data: Sequence[Any]) -> Decision:
    """The decision of :func:`to_plain`.

    Raises:
        KeyError: If there is no such action.
        TypeError: If it has more or fewer entries.
        ValueError: Likewise.
    """
    step, loss, action, before, after, evidence = data
    return Decision(step, loss, Action[action], tuple(before), tuple(after), dict(evidence))
