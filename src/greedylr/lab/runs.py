"""A run: plain data."""

from __future__ import annotations

import math
from typing import NamedTuple

ON_CPU, STACKED, OWN = "cpu", "stacked", "own"
"""Arithmetic of results on the processor, of a run alone or of many at once; and of a training function, its own."""

VALIDATIONS = 20
"""Number of validations while a run trains, the last time after its last step; short runs less often."""


class Run(NamedTuple):
    """One training run; runs that differ only in the scheduler start alike and see the same batches.

    Attributes:
        problem: Name of a problem.
        multiplier: Initial learning rate as a multiple of the problem's good one for this optimizer; or the learning
            rate itself, if :attr:`absolute`.
        scheduler: Name of a scheduler.
        seed: Decides the initial weights and the batches, and nothing else does.
        steps: Optimizer steps.
        optimizer: Name of an optimizer.
        perturbation: Name of what disturbs the training; ``"none"``: nothing. The twin of a run that is disturbed
            differs from it in this alone.
        absolute: Whether the learning rate was chosen by the user, of whose problem no good one is known or asked.
    """

    problem: str
    multiplier: float
    scheduler: str
    seed: int
    steps: int
    optimizer: str = "adamw"
    perturbation: str = "none"
    absolute: bool = False


def validation_steps(steps: int) -> list[int]:
    """After how many steps a run of so many is validated, before its first step and after its last included.

    Example:
        >>> validation_steps(35)
        [0, 10, 20, 30, 35]
    """
    every = max(10, math.ceil(steps / VALIDATIONS))  # Not so often that it takes longer than the training.
    return [*range(0, steps, every), steps]
