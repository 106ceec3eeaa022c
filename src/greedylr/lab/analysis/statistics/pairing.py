"""Runs that differ only in the scheduler, side by side; and those that have no partner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from greedylr.lab.analysis.statistics.outcome import Case, Outcome, common_start


class Key(NamedTuple):
    """All of a run but its scheduler."""

    case: Case
    seed: int


@dataclass(frozen=True)
class Pair:
    """Two runs that differ only in the scheduler.

    Attributes:
        first: The run of the scheduler in question.
        second: The run of its rival.

    Raises:
        ValueError: If they do not start from the same loss.
    """

    first: Outcome
    second: Outcome

    def __post_init__(self) -> None:
        """Runs that do not start alike are no pair."""
        self.start  # noqa: B018

    @cached_property
    def start(self) -> float:
        """The loss before the first step."""
        return common_start((self.first, self.second))

    def benefit(self, stage: float = 1.0) -> float:
        """Counted loss of the second run minus that of the first, in units of the loss."""
        return self.second.counted_loss(stage, self.start) - self.first.counted_loss(stage, self.start)

    def share(self, stage: float = 1.0) -> float:
        r"""The benefit as a share of the decrease that the better of the two runs has made, in [-1, 1].

        .. math:: r = \frac{b - a}{\ell_0 - \min(a, b)}

        for counted losses :math:`a, b` and the start :math:`\ell_0`; 0 if neither is below the
        start. Rounded to twelve decimals: what differs by less is a tie.
        """
        first = self.first.counted_loss(stage, self.start)
        second = self.second.counted_loss(stage, self.start)
        decrease = self.start - min(first, second)
        return round((second - first) / decrease, 12) if decrease > 0 else 0.0


class Missing(NamedTuple):
    """A run without a partner.

    Attributes:
        outcome: The run that is there.
        lacks: The scheduler whose run is not.
    """

    outcome: Outcome
    lacks: str


@dataclass(frozen=True)
class Pairing:
    """Everything two schedulers can be compared by.

    Attributes:
        first: The scheduler in question.
        second: Its rival.
        pairs: In the order of problem, optimizer, multiplier, perturbation and seed.
        missing: Every run of one of the two whose partner is not there.
    """

    first: str
    second: str
    pairs: tuple[Pair, ...]
    missing: tuple[Missing, ...]

    def by_case(self) -> dict[Case, tuple[Pair, ...]]:
        """The pairs of each case, one for each seed."""
        cases: dict[Case, list[Pair]] = {}
        for pair in self.pairs:
            cases.setdefault(pair.first.case, []).append(pair)
        return {case: tuple(pairs) for case, pairs in cases.items()}


def pair(outcomes: Iterable[Outcome], first: str, second: str) -> Pairing:
    """Pair the runs of two schedulers; a scheduler with itself pairs each run with itself.

    Raises:
        ValueError: If a run is there twice, or two of a pair do not start from the same loss.
    """
    return pair_all(outcomes, first, (second,))[0]


def pair_all(outcomes: Iterable[Outcome], scheduler: str, rivals: Sequence[str] | None = None) -> list[Pairing]:
    """Pair the runs of a scheduler with those of each rival.

    Args:
        outcomes: Finished runs, in any order.
        scheduler: The scheduler in question.
        rivals: What to compare it with; None: every other scheduler there is, by name.

    Returns:
        One pairing for each rival. A rival without any run has no pairs and all of them missing.

    Raises:
        ValueError: If a run is there twice, or two of a pair do not start from the same loss.
    """
    runs: dict[str, dict[Key, Outcome]] = {}
    for outcome in outcomes:
        key = Key(outcome.case, outcome.seed)
        if runs.setdefault(outcome.scheduler, {}).setdefault(key, outcome) is not outcome:
            raise ValueError(
                f"outcomes must hold each run once, got two of {outcome.scheduler}: {key.case}, seed {key.seed}"
            )
    own = runs.get(scheduler, {})
    if rivals is None:
        rivals = sorted(runs.keys() - {scheduler})
    return [_match(scheduler, own, rival, runs.get(rival, {})) for rival in rivals]


def _match(first: str, firsts: dict[Key, Outcome], second: str, seconds: dict[Key, Outcome]) -> Pairing:
    pairs = tuple(Pair(firsts[key], seconds[key]) for key in sorted(firsts.keys() & seconds.keys()))
    missing = [Missing(firsts[key], second) for key in sorted(firsts.keys() - seconds.keys())]
    missing += [Missing(seconds[key], first) for key in sorted(seconds.keys() - firsts.keys())]
    return Pairing(first, second, pairs, tuple(missing))
