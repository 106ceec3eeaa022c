"""What the rule remembers between two losses: plain data, with an exact round trip through JSON."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field

NO_CEILING = sys.float_info.max
"""Every finite loss is at or below it, and every infinite one above."""


@dataclass(slots=True)
class DefaultState:
    """Memory of the default family. Losses are signed so that lower is better (negated in mode ``max``).

    Attributes:
        initial_lrs: Initial learning rate per parameter group.
        lrs: Learning rate per parameter group now; a new tuple whenever any of them changes.
        scale: What the loss has made of the initial learning rates; bounded, but not re-derived
            from clamped learning rates.
        climbing: Whether the climb goes on.
        climbed: Losses of the climb so far.
        total: Their sum, each weighed by how long ago it was.
        weight: The sum of those weights.
        noise: Variance of the losses, from their successive differences.
        last: The last of them.
        unchanged: How many in a row have been equal to the one before.
        first: The smoothed loss when it had settled.
        lowest: The lowest smoothed loss since.
        fell: Whether the smoothed loss has fallen significantly since.
        losses: The unfinished window.
        seen: Losses observed that are not in ``losses``.
        stop: Length of ``losses`` at which there is something to decide.
        mean: Mean of the last full window.
        variance: Variance of the last full window; negative while there is none.
        previous_mean: Mean of the full window before.
        previous_variance: Variance of the full window before; negative while there is none.
        ceiling: Losses above it are extraordinary; :data:`NO_CEILING` while there is no full window, and the climb has
            not settled.
        spike_step: The step of the last of them; negative while there is none.
        moved_from: ``total_steps`` before they were last changed, infinite if there were none; negative if they never
            were.
        horizon_moved: Whether no decision has told of that change yet.
    """

    initial_lrs: tuple[float, ...]
    lrs: tuple[float, ...]
    scale: float = 1.0
    climbing: bool = False
    climbed: int = 0
    total: float = 0.0
    weight: float = 0.0
    noise: float = 0.0
    last: float = 0.0
    unchanged: int = 0
    first: float = 0.0
    lowest: float = 0.0
    fell: bool = False
    losses: list[float] = field(default_factory=list)
    seen: int = 0
    stop: int = 1
    mean: float = 0.0
    variance: float = -1.0
    previous_mean: float = 0.0
    previous_variance: float = -1.0
    ceiling: float = NO_CEILING
    spike_step: int = -1
    moved_from: float = -1.0
    horizon_moved: bool = False

    @property
    def step(self) -> int:
        """Losses observed so far."""
        return self.seen + len(self.losses)


@dataclass(slots=True)
class PaperState:
    """Memory of the published algorithm. Losses are signed so that lower is better.

    Attributes:
        initial_lrs: Initial learning rate per parameter group.
        lrs: Learning rate per parameter group now; a new tuple whenever any of them changes.
        step: Losses observed so far.
        value: The last running average.
        reference: What it is compared with: the best so far or the previous one.
        better: Better observations in a row.
        worse: Worse observations in a row.
        cooldown_left: Observations still to be ignored after a cut.
        warmup_left: Observations still to be ignored after a raise.
        reset_left: Cut attempts at the lower bound until the reset.
        losses: The losses in the running average.
        total: Their running sum, as accumulated.
    """

    initial_lrs: tuple[float, ...]
    lrs: tuple[float, ...]
    step: int = 0
    value: float = math.inf
    reference: float = math.inf
    better: int = 0
    worse: int = 0
    cooldown_left: int = 0
    warmup_left: int = 0
    reset_left: int = 500
    losses: list[float] = field(default_factory=list)
    total: float = 0.0


State = DefaultState | PaperState
