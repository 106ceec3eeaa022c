"""A run and its result: plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from greedylr import Action, Decision

VALIDATIONS = 20
"""Number of validations while a run trains, the last time after its last step; short runs less often."""


class Run(NamedTuple):
    """One training run; runs that differ only in the scheduler start alike and see the same batches.

    Attributes:
        problem: Name of a problem.
        multiplier: Initial learning rate as a multiple of the problem's good one for this optimizer.
        scheduler: Name of a scheduler.
        seed: Decides the initial weights and the batches, and nothing else does.
        steps: Optimizer steps.
        optimizer: Name of an optimizer.
        perturbation: Name of what disturbs the training; ``"none"``: nothing. The twin of a run that is disturbed
            differs from it in this alone.
    """

    problem: str
    multiplier: float
    scheduler: str
    seed: int
    steps: int
    optimizer: str = "adamw"
    perturbation: str = "none"


def is_notable(decision: Decision) -> bool:
    """True if the learning-rate curve should explain a decision: a raise, a cut, or a spike."""
    return decision.raised or decision.cut or decision.action is Action.SPIKE


def keep_notable(decisions: list[Decision], decision: Decision) -> None:
    """Add a decision to those that are kept, if it is notable."""
    if is_notable(decision):
        decisions.append(decision)


@dataclass
class Result:
    """Result of one run: plain data.

    Attributes:
        run: What was run.
        losses: Minibatch loss of each step, before the step's update.
        lrs: Learning rate of each step, as the scheduler set it.
        validation_steps: Number of steps done at each validation, from 0: before the first step.
        validation_losses: Validation loss at each of them.
        decisions: Every raise, cut and spike, in order, of a scheduler that says what it decides.
        metric: The task's own measure of success after the last step, if the run got there.
        failure: Why the run broke down, if it did; the lists may then end early.
        clean_losses: Where examples are disturbed: at each step, the loss of those that were drawn, before anything
            was done to them, with the same weights. Empty in all other runs: there, ``losses`` are clean.
        stacked: Whether it was trained in a stack with other runs, where floating-point sums are rounded differently
            than in a plain loop.
    """

    run: Run
    losses: list[float]
    lrs: list[float]
    validation_steps: list[int]
    validation_losses: list[float]
    decisions: list[Decision]
    metric: float | None = None
    failure: str | None = None
    clean_losses: list[float] = field(default_factory=list)
    stacked: bool = False

    @property
    def final_loss(self) -> float:
        """Validation loss after the last step; may be infinite, and NaN if the run never got there."""
        return self.validation_losses[-1] if self.failure is None else math.nan

    @property
    def diverged(self) -> bool:
        """True if the run ended no better than it began: not even 1 % below the untrained model's validation loss."""
        return not self.final_loss < self.validation_losses[0] - 0.01 * abs(self.validation_losses[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"run": self.run._asdict(), "decisions": [to_plain(one) for one in self.decisions]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Result:
        """The result of :meth:`to_dict`.

        Raises:
            TypeError: If an entry is missing or unknown.
            KeyError: If there is no run, no list of decisions, or no such action.
        """
        decisions = [from_plain(one) for one in data["decisions"]]
        return cls(**data | {"run": Run(**data["run"]), "decisions": decisions})


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


def validation_steps(steps: int) -> list[int]:
    """After how many steps a run of so many is validated, before its first step and after its last included.

    Example:
        >>> validation_steps(35)
        [0, 10, 20, 30, 35]
    """
    every = max(10, math.ceil(steps / VALIDATIONS))  # Not so often that it takes longer than the training.
    return [*range(0, steps, every), steps]
