"""Robustness of a set of runs some of which are disturbed, gathered in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from greedylr.lab.analysis.recovery import twin_of
from greedylr.lab.analysis.robustness import (
    By,
    Measured,
    PublishedRow,
    Robustness,
    measure,
    put_together,
    summarize_published,
)
from greedylr.lab.catalogue.perturbations import find
from greedylr.lab.report.trajectories import Scene, Trajectories
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

SHOWN = ("paper", "cosine", "wsd")
"""Schedulers whose trajectories are kept, beside the one in question: all would make the page too large."""


@dataclass(frozen=True)
class Disturbed:
    """Findings about runs that were disturbed, and about their twins.

    Attributes:
        scheduler: The one in question.
        runs: How many there are, twins included.
        measured: What became of those that a perturbation changes, and all twins.
        published: Of those with a number added to their loss, which changes nothing.
        trajectories: Curves of the former.
    """

    scheduler: str
    runs: int
    measured: Measured
    published: tuple[PublishedRow, ...]
    trajectories: Trajectories

    def robustness(self, by: By) -> Robustness:
        """Effect of perturbations on the runs of each scheduler.

        Args:
            by: What to put together.
        """
        return put_together(self.measured, by)

    def most_disturbed(self, kind: str, multiplier: float) -> Scene | None:
        """Case with the largest excess of the scheduler in question, for a kind of perturbation; None: there is none.

        Args:
            kind: Its name.
            multiplier: Initial learning rate as a multiple of the good one.
        """
        its = [
            one
            for one in self.measured.recoveries
            if not one.twin_failed
            and (one.run.scheduler, one.run.multiplier) == (self.scheduler, multiplier)
            and one.run.perturbation.startswith(f"{kind}:")
        ]
        return Scene.of(max(its, key=lambda one: one.excess).run) if its else None


def are_disturbed(runs: Iterable[Run]) -> bool:
    """True if any of these runs is disturbed."""
    return any(run.perturbation != "none" for run in runs)


def gather(results: Iterable[Result], scheduler: str = "greedylr") -> Disturbed:
    """Go through results once, and keep little of each.

    Args:
        results: Disturbed runs and their twins, each once; the twins are best first, as in suites.
        scheduler: The one in question.

    Raises:
        KeyError: If there is no such perturbation or scheduler.
    """
    trajectories = Trajectories((scheduler, *(name for name in SHOWN if name != scheduler)))
    unchanged: list[Result] = []
    count = 0

    def changed() -> Iterator[Result]:
        nonlocal count
        for result in results:
            count += 1
            if _changes_nothing(result.run):
                unchanged.append(result)
            else:
                trajectories.keep(result)
                yield result

    measured = measure(changed())
    published = _published(unchanged, measured.twins) if unchanged else ()
    return Disturbed(scheduler, count, measured, published, trajectories)


def _changes_nothing(run: Run) -> bool:
    found = find(run.perturbation)
    return found is not None and found.kind.acts_on == "nothing"


def _published(unchanged: Sequence[Result], twins: Iterable[Result]) -> tuple[PublishedRow, ...]:
    """The rows of the runs whose twins are there: of an unfinished suite some may not be."""
    known = {twin.run: twin for twin in twins}
    return summarize_published([*known.values(), *(one for one in unchanged if twin_of(one.run) in known)])
