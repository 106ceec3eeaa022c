"""Effect of a disturbance: a run beside its twin, which differs in nothing else.

Every measure is defined in ``docs/robustness.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greedylr.lab.analysis.summary import outcome
from greedylr.lab.catalogue.grammar import read
from greedylr.lab.catalogue.perturbations import Span, find
from greedylr.lab.catalogue.schedulers import MODULES, SCHEDULERS, greedylr
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

TOLERANCE = 0.02
"""A run is back at its twin if its loss is above the twin's by at most this share of the twin's decrease."""

SMOOTHING = 0.05
"""Share of the run over which losses are averaged before they are compared, in steps that follow."""

FALL = 0.02
"""A learning rate is lower than another if it is by more than this share."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recovery:
    """Effect of a disturbance on one run.

    Attributes:
        run: The run that was disturbed.
        span: When the disturbance was on.
        twin_failed: Whether the twin ended no better than it began. There is then nothing to get back to, and what
            compares the two is NaN, None or False.
        failed: Whether the run itself ended no better than it began.
        validation: Final validation loss.
        validation_ratio: The same over the twin's, both as counted; NaN if the twin's is not positive.
        training: Mean clean training loss of the last steps.
        training_gap: By how much this is above the twin's, as a share of the twin's decrease.
        steps: From the end of the disturbance until the run is back at its twin; 0 if it was never away, None if it
            does not get back.
        excess: Area between the run's clean loss and the twin's from the beginning of the disturbance, over the
            twin's decrease: in steps.
        published_ratio: Largest training loss over the last one, which the published study calls recovery ratio. It
            needs no disturbance to be large. NaN if there is none.
        quiet_steps: Steps at which nothing was wrong with the training.
        false_alarms: Cuts of the learning rate at these; None of a schedule that never reacts.
        disrupted: Whether the run was away from its twin while the disturbance was on.
        missed: Whether it was, and the learning rate was never below the twin's until shortly after; None where
            training itself is not disturbed.
    """

    run: Run
    span: Span
    twin_failed: bool
    failed: bool
    validation: float
    validation_ratio: float
    training: float
    training_gap: float
    steps: int | None
    excess: float
    published_ratio: float
    quiet_steps: int
    false_alarms: int | None
    disrupted: bool
    missed: bool | None


def twin_of(run: Run) -> Run:
    """The run that differs in nothing but that it is not disturbed."""
    return run._replace(perturbation="none")


def clean_losses(result: Result) -> Floats:
    """The loss of each step on the batch as it was drawn, whatever was done to it."""
    clean = result.clean_losses
    return np.array(clean) if clean else result.record.losses


def learning_rates(result: Result) -> Floats:
    """The learning rate that each step was made with."""
    record = result.record
    return np.concatenate([record.first_lrs, record.lrs[:, 0]])[: len(record.losses)]


def recovery(result: Result, twin: Result, tolerance: float = TOLERANCE) -> Recovery:
    """Measure what a disturbance did to a run.

    Args:
        result: Of the run.
        twin: Of its twin.
        tolerance: Share of the twin's decrease within which the run is back.

    Raises:
        KeyError: If there is no such perturbation or scheduler.
        ValueError: If the run is not disturbed, ``twin`` is not its twin, or the tolerance is not positive.
    """
    run, found = result.run, find(result.run.perturbation)
    if found is None:
        raise ValueError("result must be of a run that is disturbed, got perturbation 'none'")
    if twin.run != twin_of(run):
        raise ValueError(f"twin must be of {twin_of(run)}, got {twin.run}")
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be a positive finite number, got {tolerance}")
    span, smoothing = found.span(run.steps), max(1, round(SMOOTHING * run.steps))
    start = twin.start_loss
    clean = clean_losses(result)
    own, its = (_counted(losses, start, run.steps) for losses in (clean, clean_losses(twin)))
    finals = [outcome(one, ()).counted_loss(1.0, start) for one in (result, twin)]
    gaps = _smoothed(own - its, smoothing)
    decrease = start - _smoothed(its, smoothing).min()
    twin_failed = twin.diverged or not decrease > 0
    away = np.zeros(len(gaps), bool) if twin_failed else gaps > tolerance * decrease
    disrupted = bool(away[span.begin : span.end + 1].any())
    back = np.flatnonzero(~away[span.end :])
    of_training = found.kind.acts_on in ("gradient", "data", "state")
    quiet = span.begin if of_training else run.steps
    alarms = cuts(result)
    return Recovery(
        run=run,
        span=span,
        twin_failed=twin_failed,
        failed=result.diverged,
        validation=result.final_loss,
        validation_ratio=math.nan if twin_failed or finals[1] <= 0 else finals[0] / finals[1],
        training=float(np.mean(clean[-smoothing:])),
        training_gap=math.nan if twin_failed else float(gaps[-1] / decrease),
        steps=None if twin_failed or not len(back) else int(back[0]),
        excess=math.nan if twin_failed else float((own - its)[span.begin :].sum() / decrease),
        published_ratio=published_ratio(result.record.losses),
        quiet_steps=quiet,
        false_alarms=None if alarms is None else sum(step < quiet for step in alarms),
        disrupted=disrupted,
        missed=disrupted and not _answered(learning_rates(result), learning_rates(twin), span, smoothing)
        if of_training
        else None,
    )


def cuts(result: Result) -> list[int] | None:
    """The steps, from 0, whose loss made the scheduler lower the learning rate; None if it never does.

    This package's schedulers say so. Of others that are told the loss, every fall from one step to the next counts.

    Raises:
        KeyError: If there is no such scheduler.
    """
    if SCHEDULERS[result.run.scheduler].kind != "feedback":
        return None
    if _says_so(result.run.scheduler):
        return [one.step - 1 for one in result.decisions if one.cut]
    lrs = learning_rates(result)
    falls: list[int] = np.flatnonzero(lrs[1:] < (1 - FALL) * lrs[:-1]).tolist()
    return falls


def published_ratio(losses: Sequence[float] | Floats) -> float:
    """The published "recovery ratio": the largest loss over the last; NaN if that is not positive, or one not finite.

    Example:
        >>> published_ratio([2.0, 3.0, 1.0, 0.5])
        6.0
    """
    sound = len(losses) and losses[-1] > 0 and np.isfinite(losses).all()
    return float(np.max(losses) / losses[-1]) if sound else math.nan


def _counted(losses: Floats, start: float, steps: int) -> Floats:
    """The losses, but the start for those that are higher, or not finite, or of steps that the run did not get to."""
    counted = np.full(steps, start)
    counted[: len(losses)] = losses
    return np.where(np.isfinite(counted), np.minimum(counted, start), start)


def _smoothed(values: Floats, steps: int) -> Floats:
    """The mean of so many values from each on, as far as there are as many."""
    return np.convolve(values, np.full(steps, 1 / steps), "valid")


def _answered(lrs: Floats, of_twin: Floats, span: Span, late: int) -> bool:
    """True if the learning rate was below the twin's, from the first loss of the disturbance to shortly after."""
    answer = slice(span.begin + 1, min(span.end + late + 1, len(lrs), len(of_twin)))
    return bool(np.any(lrs[answer] < (1 - FALL) * of_twin[answer]))


def _says_so(scheduler: str) -> bool:
    """True if the results of a scheduler's runs hold its decisions: those of this package's rules."""
    return MODULES.get(read(scheduler)[0]) == greedylr.__name__
