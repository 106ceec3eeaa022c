"""What a run is, and what it leaves: plain data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from greedylr import Action, Decision

VALIDATIONS = 20
"""How many times a run is validated while it trains, the last time after its last step; short runs less often."""


class Run(NamedTuple):
    """What one training run is; runs that differ only in the scheduler start alike and see the same batches.

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


class Event(NamedTuple):
    """One decision that a reader of the learning-rate curve wants explained.

    Attributes:
        step: The optimizer step, from 1, whose loss was decided on.
        kind: What happened to the learning rate, or why it did not follow the loss.
        sentence: The decision's own words.
        loss: The minibatch loss decided on.
        lr_before: Learning rate of that step.
        lr_after: Learning rate of the next one.
        evidence: The numbers behind the decision, by name.
    """

    step: int
    kind: Literal["raise", "cut", "spike"]
    sentence: str
    loss: float
    lr_before: float
    lr_after: float
    evidence: dict[str, float]

    @classmethod
    def of(cls, decision: Decision) -> Event | None:
        """The event in a decision, if there is one."""
        kind: Literal["raise", "cut", "spike"]
        if decision.raised:
            kind = "raise"
        elif decision.cut:
            kind = "cut"
        elif decision.action is Action.SPIKE:
            kind = "spike"
        else:
            return None
        return cls(
            step=decision.step,
            kind=kind,
            sentence=decision.action.value,
            loss=decision.loss,
            lr_before=decision.lr_before[0],
            lr_after=decision.lr_after[0],
            evidence=dict(decision.evidence),
        )


@dataclass
class Result:
    """What one run left: plain data.

    Attributes:
        run: What was run.
        losses: Minibatch loss of each step, before the step's update.
        lrs: Learning rate of each step, as the scheduler set it.
        validation_steps: Number of steps done at each validation, from 0: before the first step.
        validation_losses: Validation loss at each of them.
        events: Every raise, cut and spike, in order.
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
    events: list[Event]
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
        """Whether the run ended no better than it began: not even 1 % below the untrained model's validation loss."""
        return not self.final_loss < self.validation_losses[0] - 0.01 * abs(self.validation_losses[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"run": self.run._asdict(), "events": [event._asdict() for event in self.events]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Result:
        """The result of :meth:`to_dict`.

        Raises:
            TypeError: If an entry is missing or unknown.
            KeyError: If there is no run or no list of events.
        """
        events = [Event(**event) for event in data["events"]]
        return cls(**data | {"run": Run(**data["run"]), "events": events})


def validation_steps(steps: int) -> list[int]:
    """After how many steps a run of so many is validated, before its first step and after its last included.

    Example:
        >>> validation_steps(35)
        [0, 10, 20, 30, 35]
    """
    every = max(10, math.ceil(steps / VALIDATIONS))  # Not so often that it takes longer than the training.
    return [*range(0, steps, every), steps]
