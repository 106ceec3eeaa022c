"""State of the default family between two losses: plain data, with an exact round trip through JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from greedylr.control.default.config import DefaultConfig
from greedylr.control.numerals import LARGEST_INTEGER, finite
from greedylr.control.settings import bounds_of

NO_CEILING = sys.float_info.max
"""Every finite loss is at or below it, and every infinite one above."""

Condition = tuple[str, str, bool]


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
        level: The smoothed loss, of the steps whose gradient is known; from 0.
        slope: The smoothed slope of the same steps; from 0.
        least_polyak: The least Polyak's step so far; negative while there is none.
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
        first_validation: The first validation loss; :data:`NO_CEILING` while there is none.
        lowest_validation: The lowest; :data:`NO_CEILING` while there is none.
        validation: The last one that was far enough above it to cut.
        validation_rose: Whether no loss has come since ``validation``.
        granted: The scale up to which it may rise, if that is for the validation loss to say.
        promised: The sum of what the steps since the lowest validation loss have promised.
        kept: The largest share of it by which the validation loss has fallen so far.
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
    level: float = 0.0
    slope: float = 0.0
    least_polyak: float = -1.0
    losses: list[float] = field(default_factory=list)
    seen: int = 0
    stop: int = 1
    mean: float = 0.0
    variance: float = -1.0
    previous_mean: float = 0.0
    previous_variance: float = -1.0
    ceiling: float = NO_CEILING
    spike_step: int = -1
    first_validation: float = NO_CEILING
    lowest_validation: float = NO_CEILING
    validation: float = NO_CEILING
    validation_rose: bool = False
    granted: float = 1.0
    promised: float = 0.0
    kept: float = 0.0
    moved_from: float = -1.0
    horizon_moved: bool = False

    @property
    def step(self) -> int:
        """Losses observed so far."""
        return self.seen + len(self.losses)


def conditions(config: DefaultConfig, state: DefaultState) -> Iterator[Condition]:
    """Conditions on every state that the rule makes under ``config``: entry, valid values, and a predicate."""
    groups = len(state.lrs)
    low, high = min(bounds_of(config.min_scale, groups)), max(bounds_of(config.max_scale, groups))
    yield "scale", f"from {low!r} to {high!r}", low <= state.scale <= high
    yield "losses", f"fewer than window_length={config.window_length}", len(state.losses) < config.window_length
    yield "losses", "finite", finite(state.losses)
    yield "losses", "empty while climbing", not (state.climbing and state.losses)
    yield "seen", f"from 0 to {LARGEST_INTEGER}", 0 <= state.seen <= LARGEST_INTEGER
    yield "climbed", f"from 0 to seen={state.seen}", 0 <= state.climbed <= state.seen
    yield "unchanged", f"from 0 to climbed={state.climbed}", 0 <= state.unchanged <= state.climbed
    # A hair more than 1, for rounding.
    yield "weight", "0 before the climb, above 0 and at most 1 then", (state.climbed > 0) == (0 < state.weight <= 1.001)
    yield "weight", "0 before the climb, above 0 and at most 1 then", state.climbed > 0 or state.weight == 0
    for name in ("total", "last", "first", "lowest", "level", "mean", "previous_mean", "ceiling"):
        yield name, "finite", finite([getattr(state, name)])
    for name in ("noise", "slope", "promised", "kept"):
        yield name, "finite and at least 0", 0 <= getattr(state, name) <= NO_CEILING
    for name in ("variance", "previous_variance", "least_polyak"):
        yield name, "at least 0, or -1.0", getattr(state, name) >= 0 or getattr(state, name) == -1.0
    yield "previous_variance", "-1.0 before there is a variance", state.previous_variance < 0 or state.variance >= 0
    for name in ("first_validation", "lowest_validation", "validation"):
        yield name, "finite", finite([getattr(state, name)])
    yield (
        "first_validation",
        f"at least lowest_validation={state.lowest_validation!r}",
        (state.first_validation >= state.lowest_validation),
    )
    yield "granted", "finite, and at least 0", 0 <= state.granted <= NO_CEILING
    if config.await_validation:
        yield "granted", f"at least scale={state.scale!r}", state.scale <= state.granted
    yield "spike_step", f"from -1 to step={state.step}", -1 <= state.spike_step <= state.step
    yield "moved_from", "at least 1, or -1.0", state.moved_from >= 1 or state.moved_from == -1.0
    # Where the rule next decides. 0: at the next loss, whatever is derived from it then.
    stop = 1 if state.climbing else min(config.window_length, config.anneal_start - state.seen)
    yield "stop", f"from 0 to {max(stop, 0)}", 0 <= state.stop <= max(stop, 0)
