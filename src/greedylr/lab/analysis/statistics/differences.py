"""Paired differences between schedulers: how large, how sure, how often."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from greedylr.lab.analysis.statistics import estimate
from greedylr.lab.analysis.statistics.estimate import Interval
from greedylr.lab.analysis.statistics.outcome import Outcome
from greedylr.lab.analysis.statistics.pairing import Pair, Pairing, pair_all

STAGES = (0.1, 0.5, 1.0)
"""Shares of training at which the authors of GreedyLR report."""

CASE = ("problem", "optimizer", "multiplier", "perturbation")
"""One value for each case: its mean over seeds."""


@dataclass(frozen=True)
class Difference:
    """One scheduler against one rival. Differences are shares of the decrease made; positive: the first is better.

    Attributes:
        first: The scheduler in question.
        second: Its rival.
        stage: Share of training done.
        unit: The attributes of a run that make a unit; each unit has one value, its mean over pairs.
        units: How many units there are.
        pairs: How many pairs they are made of.
        missing: How many runs were left out for want of a partner.
        failed_first: Runs of the first scheduler, among the pairs, that failed.
        failed_second: The same of its rival.
        ahead: Units in which the first is better.
        behind: Units in which it is worse.
        mean: Mean over units; NaN if there are none, as the median.
        mean_interval: See :func:`~greedylr.lab.analysis.statistics.mean_interval`.
        median: Median over units.
        median_interval: See :func:`~greedylr.lab.analysis.statistics.median_interval`.
        p_value: Of the Wilcoxon signed-rank test, two-sided, zeros ranked (Pratt).
        p_holm: The same after Holm's correction for all comparisons that were made together.
        rank_biserial: Effect size in [-1, 1]: 1 if the first is better in every unit, 0 if in balance.
        d_z: Effect size: mean over standard deviation of the units; None for a single unit or none.
    """

    first: str
    second: str
    stage: float
    unit: tuple[str, ...]
    units: int
    pairs: int
    missing: int
    failed_first: int
    failed_second: int
    ahead: int
    behind: int
    mean: float
    mean_interval: Interval | None
    median: float
    median_interval: Interval | None
    p_value: float
    p_holm: float
    rank_biserial: float
    d_z: float | None


def difference(
    pairing: Pairing, stage: float = 1.0, unit: Sequence[str] = CASE, level: float = 0.95, seed: int = 0
) -> Difference:
    """Compare two schedulers over all their pairs.

    Args:
        pairing: The pairs.
        stage: Share of training done.
        unit: What counts as one observation, as attributes of a run. Seeds of one case are not
            independent evidence about other cases, so they are averaged by default; ``("problem",)``
            is the strictest, with one value for each problem.
        level: Of the intervals.
        seed: Of the bootstrap.

    Returns:
        The difference; ``p_holm`` is the plain p-value, since nothing else was compared.

    Raises:
        ValueError: If a run has no loss of that stage, or a unit is not made of a run's attributes.
    """
    values = [estimate.mean(shares) for shares in by_unit(pairing.pairs, unit, lambda pair: pair.share(stage)).values()]
    p_value = estimate.wilcoxon(values)
    return Difference(
        first=pairing.first,
        second=pairing.second,
        stage=stage,
        unit=tuple(unit),
        units=len(values),
        pairs=len(pairing.pairs),
        missing=len(pairing.missing),
        failed_first=sum(pair.first.failed_at(stage) for pair in pairing.pairs),
        failed_second=sum(pair.second.failed_at(stage) for pair in pairing.pairs),
        ahead=sum(value > 0 for value in values),
        behind=sum(value < 0 for value in values),
        mean=estimate.mean(values),
        mean_interval=estimate.mean_interval(values, level, seed),
        median=estimate.median(values),
        median_interval=estimate.median_interval(values, level),
        p_value=p_value,
        p_holm=p_value,
        rank_biserial=estimate.rank_biserial(values),
        d_z=estimate.cohens_d_z(values),
    )


def differences(
    outcomes: Iterable[Outcome],
    scheduler: str,
    rivals: Sequence[str] | None = None,
    stages: Sequence[float] = STAGES,
    unit: Sequence[str] = CASE,
    level: float = 0.95,
    seed: int = 0,
) -> list[Difference]:
    """Compare a scheduler with each rival at each stage, and correct for having looked so often.

    Args:
        outcomes: Finished runs, in any order.
        scheduler: The scheduler in question.
        rivals: What to compare it with; None: every other scheduler there is.
        stages: Shares of training done.
        unit: As for :func:`difference`.
        level: Of the intervals.
        seed: Of the bootstraps.

    Returns:
        Rival by rival, stage by stage.

    Raises:
        ValueError: As :func:`difference` and :func:`~greedylr.lab.analysis.statistics.pair`.
    """
    made = [
        difference(pairing, stage, unit, level, seed)
        for pairing in pair_all(outcomes, scheduler, rivals)
        for stage in stages
    ]
    corrected = estimate.holm([one.p_value for one in made])
    return [replace(one, p_holm=p_holm) for one, p_holm in zip(made, corrected)]


def by_unit(pairs: Iterable[Pair], unit: Sequence[str], value: Callable[[Pair], float]) -> dict[object, list[float]]:
    """The values of the pairs of each unit, in the order of the pairs.

    Raises:
        ValueError: If the unit is not made of a run's attributes.
    """
    allowed = (*CASE, "seed")
    if not unit or not set(unit) <= set(allowed):
        raise ValueError(f"unit must be made of {', '.join(allowed)}, got {tuple(unit)}")
    name = attrgetter(*unit)
    values: dict[object, list[float]] = {}
    for pair in pairs:
        values.setdefault(name(pair.first), []).append(value(pair))
    return values
