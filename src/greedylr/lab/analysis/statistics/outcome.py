"""Outcome of a finished run as the statistics use it, and the loss that a failed run counts with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

FAILED = 0.01
"""A run has failed if it did not end this share of the start (its size) below the start."""

NEAR_ZERO = 0.01
"""A loss of at most this share of the decrease that led to it is near zero: no ratio is formed with it."""

UNLIKE = 0.01
"""Starts of runs that should start alike may differ by this share of the larger, for rounding; not by more."""


class Case(NamedTuple):
    """Conditions that the runs of a comparison share, apart from their seeds.

    Attributes:
        problem: Name of the problem.
        optimizer: Name of the optimizer.
        multiplier: Initial learning rate as a multiple of the tuned one.
        perturbation: Name of the perturbation.
    """

    problem: str
    optimizer: str
    multiplier: float
    perturbation: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one finished run: plain data.

    Attributes:
        problem: Name of the problem.
        optimizer: Name of the optimizer.
        scheduler: Name of the scheduler.
        multiplier: Initial learning rate as a multiple of the tuned one, positive.
        seed: Decides the initial weights and the batches.
        stages: Validation loss by share of training done, in (0, 1]; 1.0 must be there. A run that
            was given up because it diverged has NaN from there on.
        start: Validation loss before the first step, finite.
        perturbation: Name of the perturbation.
        steps_to: Optimizer steps until a target was reached, None if it never was, by a number that
            means the same target for every scheduler: best the share of a baseline's decrease.
        metric: The task's own metric after the last step, if it has one; carried, not judged.

    Raises:
        ValueError: If an attribute is outside what is stated above.
    """

    problem: str
    optimizer: str
    scheduler: str
    multiplier: float
    seed: int
    stages: Mapping[float, float]
    start: float
    perturbation: str = "none"
    steps_to: Mapping[float, int | None] | None = None
    metric: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no run can have come to."""
        if not 0 < self.multiplier < math.inf:
            raise ValueError(f"multiplier must be a positive finite number, got {self.multiplier}")
        if not math.isfinite(self.start):
            raise ValueError(f"start must be a finite loss, got {self.start}: a run needs somewhere to come from")
        if 1.0 not in self.stages:
            raise ValueError(f"stages must hold the loss at 1.0, the end of training; got shares {sorted(self.stages)}")
        if not all(0 < share <= 1 for share in self.stages):
            raise ValueError(f"stages must be shares of training in (0, 1], got {sorted(self.stages)}")
        if any(steps is not None and not steps >= 0 for steps in (self.steps_to or {}).values()):
            raise ValueError(f"steps_to must hold numbers of steps from 0, or None, got {self.steps_to}")

    @property
    def final(self) -> float:
        """Validation loss after the last step, as it was: may be NaN or infinite."""
        return self.stages[1.0]

    @property
    def failed(self) -> bool:
        """True if the run ended not finite, or not even 1 % of the start (its size) below the start."""
        return not (math.isfinite(self.final) and self.final < self.start - FAILED * abs(self.start))

    @property
    def case(self) -> Case:
        """Case that the run belongs to, with other seeds and schedulers."""
        return Case(self.problem, self.optimizer, self.multiplier, self.perturbation)

    def failed_at(self, stage: float) -> bool:
        """True if the run had failed at a stage: at 1.0 as :attr:`failed`, earlier only if not finite."""
        return self.failed if stage == 1.0 else not math.isfinite(self._at(stage))

    def counted_loss(self, stage: float, start: float) -> float:
        """The loss that the run counts with: that of the stage, but ``start`` if that is lower or the run failed.

        Args:
            stage: Share of training done.
            start: The loss before the first step, the same for all that are compared.

        Raises:
            ValueError: If the run has no loss of that stage.
        """
        return start if self.failed_at(stage) else min(self._at(stage), start)

    def _at(self, stage: float) -> float:
        try:
            return self.stages[stage]
        except KeyError:
            raise ValueError(
                f"stage must be one that every run has; {self.scheduler} on {self.problem} has "
                f"{sorted(self.stages)}, got {stage}"
            ) from None


def common_start(outcomes: Iterable[Outcome]) -> float:
    """The loss that runs of one problem and seed start from: the highest, for they differ by rounding only.

    Raises:
        ValueError: If they differ by more: such runs did not start alike, and must not be compared.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.start)
    low, high = ordered[0], ordered[-1]
    if high.start - low.start > UNLIKE * max(abs(low.start), abs(high.start)):
        raise ValueError(
            f"start must be the same for runs that are compared; {low.problem} with seed {low.seed} starts "
            f"at {low.start} under {low.scheduler} and at {high.start} under {high.scheduler}"
        )
    return high.start


def ratio_makes_sense(loss: float, start: float) -> bool:
    """True if a loss is far enough above zero to divide by: more than 1 % of the decrease that led to it."""
    return loss > NEAR_ZERO * (start - loss)
