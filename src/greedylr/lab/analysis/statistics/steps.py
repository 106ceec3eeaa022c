"""Steps to reach a target loss: whoever never reaches it is later than whoever does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from greedylr.lab.analysis.statistics import estimate
from greedylr.lab.analysis.statistics.differences import CASE, by_unit
from greedylr.lab.analysis.statistics.estimate import Interval
from greedylr.lab.analysis.statistics.outcome import Outcome
from greedylr.lab.analysis.statistics.pairing import Pair, Pairing


@dataclass(frozen=True)
class StepsToTarget:
    """Steps by which one scheduler reaches a target sooner than its rival.

    Attributes:
        first: The scheduler in question.
        second: Its rival.
        target: The key of the target in the runs' ``steps_to``.
        unit: The attributes of a run that make a unit; each unit has one value, its median over pairs.
        units: How many units there are.
        pairs: How many pairs they are made of.
        unmeasured: How many pairs more there are in which a run does not know this target.
        sooner: Units in which the first scheduler reaches the target sooner, or alone.
        later: Units in which its rival does.
        never_first: Runs of the first scheduler, among the pairs, that never reached the target, or failed in the end.
        never_second: The same of its rival.
        speedup: Median over units of the rival's steps over the first one's: 2 is twice as fast. Infinite
            if in most only the first reaches the target, 0 if in most only its rival; NaN without units.
        interval: Of the speedup.
        p_value: Of the exact sign test, two-sided: sooner against later.
    """

    first: str
    second: str
    target: float
    unit: tuple[str, ...]
    units: int
    pairs: int
    unmeasured: int
    sooner: int
    later: int
    never_first: int
    never_second: int
    speedup: float
    interval: Interval | None
    p_value: float


def steps_to_target(pairing: Pairing, target: float, unit: Sequence[str] = CASE, level: float = 0.95) -> StepsToTarget:
    """Compare the steps in which two schedulers reach a target.

    Args:
        pairing: The pairs.
        target: Its key in the runs' ``steps_to``.
        unit: What counts as one observation, as for :func:`~greedylr.lab.analysis.statistics.difference`.
        level: Of the interval.

    Raises:
        ValueError: If a unit is not made of a run's attributes.
    """
    pairs = [pair for pair in pairing.pairs if _knows(pair.first, target) and _knows(pair.second, target)]
    groups = by_unit(pairs, unit, lambda pair: _log_speedup(pair, target))
    values = [estimate.median(logs) for logs in groups.values()]
    sooner, later = sum(value > 0 for value in values), sum(value < 0 for value in values)
    interval = estimate.median_interval(values, level)
    return StepsToTarget(
        first=pairing.first,
        second=pairing.second,
        target=target,
        unit=tuple(unit),
        units=len(values),
        pairs=len(pairs),
        unmeasured=len(pairing.pairs) - len(pairs),
        sooner=sooner,
        later=later,
        never_first=sum(_steps(pair.first, target) is None for pair in pairs),
        never_second=sum(_steps(pair.second, target) is None for pair in pairs),
        speedup=math.exp(estimate.median(values)),
        interval=None if interval is None else Interval(math.exp(interval.low), math.exp(interval.high)),
        p_value=estimate.sign_test(sooner, later),
    )


def first_step(steps: Iterable[int], losses: Iterable[float], target: float) -> int | None:
    """The first step at which a loss is at or below a target; None if there is none.

    Example:
        >>> first_step([0, 10, 20], [2.0, 1.1, 0.9], target=1.0)
        20
    """
    return next((step for step, loss in zip(steps, losses) if loss <= target), None)


def target_loss(baseline: Iterable[Outcome], share: float = 0.9) -> float:
    r"""The loss at which a baseline has made a share of its whole decrease, over seeds.

    .. math:: \bar\ell_0 - \text{share} \cdot (\bar\ell_0 - \bar\ell_1)

    Args:
        baseline: Runs of one scheduler in one case, failed ones counted with their start.
        share: In (0, 1].

    Raises:
        ValueError: If the share is outside, the runs are of different cases or schedulers, or made no decrease.
    """
    runs = sorted(baseline, key=lambda outcome: outcome.seed)
    if not 0 < share <= 1:
        raise ValueError(f"share must be a number with 0 < share <= 1, got {share}")
    if len({(run.case, run.scheduler) for run in runs}) != 1:
        raise ValueError("baseline must be the runs of one scheduler on one problem, with one optimizer, at one rate")
    start = estimate.mean([run.start for run in runs])
    final = estimate.mean([run.counted_loss(1.0, run.start) for run in runs])
    if not final < start:
        raise ValueError(f"baseline must have made progress, got only failed runs of {runs[0].scheduler}")
    return start - share * (start - final)


def _knows(outcome: Outcome, target: float) -> bool:
    return outcome.steps_to is not None and target in outcome.steps_to


def _steps(outcome: Outcome, target: float) -> int | None:
    """Steps to the target; a run that failed in the end has not reached it."""
    return None if outcome.failed or outcome.steps_to is None else outcome.steps_to[target]


def _log_speedup(pair: Pair, target: float) -> float:
    first, second = _steps(pair.first, target), _steps(pair.second, target)
    if first is None or second is None:
        return 0.0 if first is second else -math.inf if first is None else math.inf
    return math.log(max(second, 1)) - math.log(max(first, 1))
