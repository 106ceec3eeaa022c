"""Reading of a sweep: losses while the learning rate grows tenfold in a known number of steps, until they explode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

REACHED = 0.98
"""Part of the whole fall of the smoothed loss that the learning rate is looked for at."""
BACK_OFF = 3.0
"""The suggestion is the lowest learning rate at which that is reached, divided by this."""
EXPLODED = 4.0
"""A sweep is over when the smoothed loss is so many times what it was at the start."""
FALLEN = 4.0
"""Standard errors by which the smoothed loss must have fallen to say anything."""

_MEDIAN_OF_SQUARES = 0.4549  # Of a normal variable with variance 1.


class Swept(NamedTuple):
    """Reading of sweeps.

    Attributes:
        scale: The suggestion, on the scale of the sweep.
        low: The lowest suggestion of one sweep alone.
        high: The highest.
        smoothed: The smoothed loss at each scale, mean over the sweeps; NaN where not all have one.
    """

    scale: float
    low: float
    high: float
    smoothed: list[float]


def scales(lowest: float, highest: float, decade_steps: int) -> list[float]:
    """Multiples of the initial learning rate at each step of a sweep.

    Example:
        >>> [round(scale, 2) for scale in scales(0.1, 10, 2)]
        [0.1, 0.32, 1.0, 3.16, 10.0]
    """
    count = math.floor(decade_steps * math.log10(highest / lowest) * (1 + 1e-12)) + 1
    return [lowest * 10 ** (step / decade_steps) for step in range(count)]


def is_over(losses: Sequence[float], decade_steps: int) -> bool:
    """True of a sweep whose last loss is not finite, or whose smoothed loss has exploded."""
    if not math.isfinite(losses[-1]):
        return True
    settled = _settled(decade_steps)
    if len(losses) <= settled:
        return False
    smoothed = _smoothed(losses, decade_steps)
    return smoothed[-1] > EXPLODED * abs(smoothed[settled - 1])


def read(scales: Sequence[float], sweeps: Sequence[Sequence[float]], decade_steps: int) -> Swept:
    """The learning rate that sweeps suggest.

    Args:
        scales: Of :func:`scales`.
        sweeps: The losses of each sweep, at the first of these scales; all start alike.
        decade_steps: Steps in which the scale grew tenfold.

    Raises:
        ValueError: If the loss did not fall, or still fell at the highest learning rate.
    """
    each = [_smoothed([loss for loss in losses if math.isfinite(loss)], decade_steps) for losses in sweeps]
    settled, shared = _settled(decade_steps), min(map(len, each))
    if shared <= settled:
        raise ValueError(
            f"the loss exploded or was not finite after {shared} steps, at {scales[max(shared - 1, 0)]:.2g} times the "
            f"initial learning rate: start from a lower one, with lowest={scales[0] / 1000:.0e} for instance, if the "
            f"first loss is finite at all"
        )
    mean = [sum(column) / len(each) for column in zip(*each)]
    fall = mean[settled] - min(mean[settled:])
    if not fall > FALLEN * _standard_error(sweeps, decade_steps):
        raise ValueError(
            f"the loss did not fall by more than its noise at any learning rate from {scales[0]:.2g} to "
            f"{scales[shared - 1]:.2g} times the initial one, so none can be told: take larger batches, more "
            f"decade_steps or more sweeps"
        )
    at = _reached(mean, settled)
    if at >= len(scales) - settled:
        raise ValueError(
            f"the loss still fell at {scales[-1]:.2g} times the initial learning rate: go further, with "
            f"highest={scales[-1] * 1000:.0e} for instance"
        )
    alone = [scales[_reached(its, settled)] / BACK_OFF for its in each]
    smoothed = mean + [math.nan] * (len(scales) - shared)
    return Swept(scales[at] / BACK_OFF, min(alone), max(alone), smoothed)


def _reached(smoothed: Sequence[float], settled: int) -> int:
    """Index at which nearly the whole fall is behind; not its end, for a problem once solved stays so on the way up."""
    lowest = min(smoothed[settled:])
    enough = smoothed[settled] - REACHED * (smoothed[settled] - lowest)
    return next(at for at in range(settled, len(smoothed)) if smoothed[at] <= enough or smoothed[at] == lowest)


def _time(decade_steps: int) -> float:
    return max(4.0, decade_steps / 8)


def _settled(decade_steps: int) -> int:
    return math.ceil(2 * _time(decade_steps))


def _smoothed(losses: Sequence[float], decade_steps: int) -> list[float]:
    memory = 1 - 1 / _time(decade_steps)
    total = weight = 0.0
    smoothed = []
    for loss in losses:
        total, weight = memory * total + (1 - memory) * loss, memory * weight + 1 - memory
        smoothed.append(total / weight)
    return smoothed


def _standard_error(sweeps: Sequence[Sequence[float]], decade_steps: int) -> float:
    """Standard error of the smoothed loss, from the median of the squared differences of successive losses."""
    squares = sorted(
        (later - earlier) ** 2 for losses in sweeps for earlier, later in pairwise(losses) if math.isfinite(later)
    )
    variance = squares[len(squares) // 2] / (2 * _MEDIAN_OF_SQUARES)
    memory = 1 - 1 / _time(decade_steps)
    return math.sqrt((1 - memory) / (1 + memory) * variance / len(sweeps))
