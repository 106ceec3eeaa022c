"""Verdicts, as good or better, better, clearly better, worse: one verdict for each case, and the shares of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from greedylr.lab.analysis.statistics import estimate
from greedylr.lab.analysis.statistics.estimate import Proportion, proportion
from greedylr.lab.analysis.statistics.outcome import Case, ratio_makes_sense
from greedylr.lab.analysis.statistics.pairing import Pair, Pairing


class Verdict(Enum):
    """Verdict on a scheduler against its rival in one case; the value is the sentence to show to a person."""

    CLEARLY_BETTER = "clearly better: far beyond the margin, and beyond it on most seeds"
    BETTER = "better: beyond the margin, and ahead on most seeds"
    AS_GOOD = "as good: within the margin, or the seeds do not agree"
    WORSE = "worse: beyond the margin, and behind on most seeds"
    CLEARLY_WORSE = "clearly worse: far beyond the margin, and beyond it on most seeds"


_LEVELS = (Verdict.CLEARLY_WORSE, Verdict.WORSE, Verdict.AS_GOOD, Verdict.BETTER, Verdict.CLEARLY_BETTER)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds between the verdicts; ``docs/statistics.md`` argues the defaults.

    Args:
        better: The margin: the share of the decrease, in [0, ``clearly``], that the median of a case must exceed.
        clearly: The same for *clearly*, at most 1.
        agreement: Share of the seeds, in (0.5, 1], that must agree on the direction.
        failures: Share of the seeds, in [0, 1], by which failures must differ to count as a difference.

    Raises:
        ValueError: If an argument is outside what is stated above.
    """

    better: float = 0.01
    clearly: float = 0.05
    agreement: float = 0.8
    failures: float = 0.05

    def __post_init__(self) -> None:
        """Refuse thresholds that contradict each other."""
        if not 0 <= self.better <= self.clearly <= 1:
            raise ValueError(
                f"better and clearly must satisfy 0 <= better <= clearly <= 1, got {self.better} and {self.clearly}"
            )
        if not 0.5 < self.agreement <= 1:
            raise ValueError(f"agreement must be a share with 0.5 < agreement <= 1, got {self.agreement}")
        if not 0 <= self.failures <= 1:
            raise ValueError(f"failures must be a share with 0 <= failures <= 1, got {self.failures}")


DEFAULTS = Thresholds()
"""Thresholds of the lab's verdicts."""


class _Agreed(NamedTuple):
    """Enough seeds are at least ``low``; enough, not always the same ones, are at most ``high``."""

    low: float
    high: float


@dataclass(frozen=True)
class CaseVerdict:
    """The verdict on one case, with what it stands on. Positive numbers: the first scheduler is better.

    Attributes:
        case: Problem, optimizer, multiplier and perturbation.
        first: The scheduler in question.
        second: Its rival.
        stage: Share of training done.
        verdict: What the seeds say together.
        settled: False if *as good* only means that these seeds cannot tell.
        pairs: The runs, a pair for each seed.
        failed_first: Runs of the first scheduler that failed.
        failed_second: The same of its rival.
        median: Median over seeds of the benefit as a share of the decrease; the verdict stands on it.
        mean: The mean of the same.
        benefit: Mean benefit over seeds in units of the loss.
        percent: By how many percent of the rival's mean loss the first one's is lower; None if the rival's
            is near zero or negative.
    """

    case: Case
    first: str
    second: str
    stage: float
    verdict: Verdict
    settled: bool
    pairs: tuple[Pair, ...]
    failed_first: int
    failed_second: int
    median: float
    mean: float
    benefit: float
    percent: float | None


@dataclass(frozen=True)
class Extremes:
    """Verdicts on all cases.

    Attributes:
        average: Mean over the cases; NaN if there are none.
        largest_benefit: The best case; 0 if the first scheduler is ahead in none.
        largest_deficit: The worst case, negative; 0 if it is behind in none.
        cases: How many cases have this number.
    """

    average: float
    largest_benefit: float
    largest_deficit: float
    cases: int


@dataclass(frozen=True)
class Tally:
    """Number of cases with each verdict.

    Attributes:
        as_good_or_better: All that is not worse.
        better: Better, clearly or not.
        clearly_better: Clearly better.
        worse: Worse, clearly or not.
        clearly_worse: Clearly worse.
        undecided: As good only in that the seeds cannot tell.
        loss: Benefits in units of the loss; cases of different problems add apples to pears.
        percent: Benefits in percent of the rival's loss, where that is not near zero.
        share: Benefits as shares of the decrease: comparable everywhere, within [-1, 1].
        pairs: Pairs of runs behind all this.
        failed_first: Runs of the first scheduler that failed.
        failed_second: The same of its rivals.
        verdicts: Every case, the worst first.
    """

    as_good_or_better: Proportion
    better: Proportion
    clearly_better: Proportion
    worse: Proportion
    clearly_worse: Proportion
    undecided: Proportion
    loss: Extremes
    percent: Extremes
    share: Extremes
    pairs: int
    failed_first: int
    failed_second: int
    verdicts: tuple[CaseVerdict, ...]


def verdicts(pairing: Pairing, stage: float = 1.0, thresholds: Thresholds = DEFAULTS) -> list[CaseVerdict]:
    """Judge every case of two schedulers.

    Args:
        pairing: The pairs.
        stage: Share of training done.
        thresholds: Where the verdicts change.

    Returns:
        One verdict for each case that has a pair.

    Raises:
        ValueError: If a run has no loss of that stage.
    """
    return [_judge(pairing, case, pairs, stage, thresholds) for case, pairs in pairing.by_case().items()]


def tally(judged: Iterable[CaseVerdict], level: float = 0.95) -> Tally:
    """Count verdicts, of one stage, against one rival or against several.

    Args:
        judged: The verdicts.
        level: Of Wilson's intervals, which take the cases for independent.
    """
    cases = sorted(judged, key=lambda one: (one.mean, one.case, one.second, one.stage))

    def share(*counted: Verdict) -> Proportion:
        return proportion(sum(one.verdict in counted for one in cases), len(cases), level)

    return Tally(
        as_good_or_better=share(*_LEVELS[2:]),
        better=share(*_LEVELS[3:]),
        clearly_better=share(*_LEVELS[4:]),
        worse=share(*_LEVELS[:2]),
        clearly_worse=share(*_LEVELS[:1]),
        undecided=proportion(sum(not one.settled for one in cases), len(cases), level),
        loss=_extremes([one.benefit for one in cases]),
        percent=_extremes([one.percent for one in cases if one.percent is not None]),
        share=_extremes([one.mean for one in cases]),
        pairs=sum(len(one.pairs) for one in cases),
        failed_first=sum(one.failed_first for one in cases),
        failed_second=sum(one.failed_second for one in cases),
        verdicts=tuple(cases),
    )


def _judge(pairing: Pairing, case: Case, pairs: tuple[Pair, ...], stage: float, thresholds: Thresholds) -> CaseVerdict:
    shares = sorted(pair.share(stage) for pair in pairs)
    failed_first = sum(pair.first.failed_at(stage) for pair in pairs)
    failed_second = sum(pair.second.failed_at(stage) for pair in pairs)
    excess = failed_first - failed_second
    if abs(excess) < thresholds.failures * len(pairs):
        excess = 0
    level = _against_failures(_level(shares, thresholds), excess)
    own = estimate.mean([pair.first.counted_loss(stage, pair.start) for pair in pairs])
    rival = estimate.mean([pair.second.counted_loss(stage, pair.start) for pair in pairs])
    start = estimate.mean([pair.start for pair in pairs])
    return CaseVerdict(
        case=case,
        first=pairing.first,
        second=pairing.second,
        stage=stage,
        verdict=_LEVELS[level + 2],
        settled=level != 0 or _all_small(shares, thresholds),
        pairs=pairs,
        failed_first=failed_first,
        failed_second=failed_second,
        median=estimate.median(shares),
        mean=estimate.mean(shares),
        benefit=estimate.mean([pair.benefit(stage) for pair in pairs]),
        percent=100 * (rival - own) / rival if ratio_makes_sense(rival, start) else None,
    )


def _level(shares: Sequence[float], thresholds: Thresholds) -> int:
    """The verdict without a look at failures, from -2, clearly worse, to 2, clearly better; shares in order."""
    middle = estimate.median(shares)
    low, high = _agreed(shares, thresholds)
    if middle > thresholds.better and low > 0:
        return 2 if middle > thresholds.clearly and low > thresholds.better else 1
    if middle < -thresholds.better and high < 0:
        return -2 if middle < -thresholds.clearly and high < -thresholds.better else -1
    return 0


def _agreed(shares: Sequence[float], thresholds: Thresholds) -> _Agreed:
    odd_ones_out = math.floor((1 - thresholds.agreement) * len(shares) + 1e-9)
    return _Agreed(shares[odd_ones_out], shares[-1 - odd_ones_out])


def _all_small(shares: Sequence[float], thresholds: Thresholds) -> bool:
    low, high = _agreed(shares, thresholds)
    return -thresholds.better <= low and high <= thresholds.better


def _against_failures(level: int, excess: int) -> int:
    """Limit the verdict by failures: with more of them it is at best *as good*, or *worse* where it was not ahead."""
    if excess > 0:
        return 0 if level > 0 else min(level, -1)
    if excess < 0:
        return 0 if level < 0 else max(level, 1)
    return level


def _extremes(values: Sequence[float]) -> Extremes:
    return Extremes(estimate.mean(values), max([0.0, *values]), min([0.0, *values]), len(values))
