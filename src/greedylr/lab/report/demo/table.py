"""Table of results: one row a problem and learning rate, one cell a scheduler, and a verdict in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.results import Result
from greedylr.lab.runs import Run


@dataclass(frozen=True)
class Cell:
    """One scheduler on one problem at one initial learning rate.

    Attributes:
        scheduler: Name of the scheduler.
        losses: Final validation loss of each finished run, by seed.
        diverged: How many of these runs diverged; they count in the mean.
    """

    scheduler: str
    losses: dict[int, float]
    diverged: int

    @property
    def mean(self) -> float:
        """Mean final validation loss over seeds; infinite if one of them was not finite or none is there."""
        finite = self.losses and all(map(math.isfinite, self.losses.values()))
        return statistics.fmean(self.losses.values()) if finite else math.inf

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None with fewer than two, or if one was not finite."""
        return statistics.stdev(self.losses.values()) if len(self.losses) > 1 and self.mean < math.inf else None

    def __str__(self) -> str:
        """Mean ± spread, and how many of how many runs diverged, if any."""
        if not self.losses:
            return "–"
        mean = f"{self.mean:.3f}" if self.mean < math.inf else "not finite"
        spread = "" if self.spread is None else f" ± {self.spread:.3f}"
        return mean + spread + (f", {self.diverged} of {len(self.losses)} diverged" if self.diverged else "")


@dataclass(frozen=True)
class Row:
    """All schedulers on one problem at one initial learning rate.

    Attributes:
        problem: Name of the problem.
        multiplier: Initial learning rate as a multiple of the problem's good one.
        cells: One for each scheduler.
        complete: Whether every run of the row is finished; without all there is no fair comparison.
    """

    problem: str
    multiplier: float
    cells: tuple[Cell, ...]
    complete: bool

    @property
    def winner(self) -> Cell | None:
        """Fewest diverged runs, then lowest mean; None if all diverged, or the row is not complete."""
        if not self.complete:
            return None
        best = self._ranked()[0]
        return best if best.diverged < len(best.losses) else None

    def verdict(self, name: str) -> str:
        """Sentence about the winner and its lead: over the next best if scheduler ``name`` won, else over ``name``."""
        winner = self.winner
        if winner is None:
            return "every scheduler diverged" if self.complete else "not finished"
        rivals = [cell for cell in self._ranked() if cell is not winner]
        rival = rivals[0] if winner.scheduler == name else next(cell for cell in rivals if cell.scheduler == name)
        won, lost = SCHEDULERS[winner.scheduler].title, SCHEDULERS[rival.scheduler].title
        if rival.diverged:
            return f"{won} won, {lost} diverged in {rival.diverged} of {len(rival.losses)}"
        always = all(winner.losses[seed] < rival.losses[seed] for seed in winner.losses)
        return f"{won} won, {1 - winner.mean / rival.mean:.1%} below {lost}" + ("" if always else ", not on every seed")

    def _ranked(self) -> list[Cell]:
        return sorted(self.cells, key=lambda cell: (cell.diverged, cell.mean))


def compare(runs: Sequence[Run], results: Iterable[Result]) -> list[Row]:
    """One row for each problem and multiplier of ``runs``, filled with those of ``results`` that there are."""
    finished = {result.run: result for result in results}
    order = list(PROBLEMS)
    rows = []
    for problem, multiplier in sorted({run[:2] for run in runs}, key=lambda pair: (order.index(pair[0]), pair[1])):
        of_row = [run for run in runs if (run.problem, run.multiplier) == (problem, multiplier)]
        cells = []
        for scheduler in dict.fromkeys(run.scheduler for run in of_row):
            cell = [finished[run] for run in of_row if run.scheduler == scheduler and run in finished]
            losses = {result.run.seed: result.final_loss for result in cell}
            cells.append(Cell(scheduler, losses, sum(result.diverged for result in cell)))
        rows.append(Row(problem, multiplier, tuple(cells), all(run in finished for run in of_row)))
    return rows


def summary(rows: Sequence[Row], name: str = "greedylr") -> dict[str, str]:
    """Lines by problem, each on where scheduler ``name`` won, and who did elsewhere."""
    lines = {}
    for problem in dict.fromkeys(row.problem for row in rows):
        complete = [row for row in rows if row.problem == problem and row.complete]
        wins = sum(row.winner is not None and row.winner.scheduler == name for row in complete)
        verdicts = "; ".join(f"{row.multiplier:g}×: {row.verdict(name)}" for row in complete)
        won = f"{SCHEDULERS[name].title} won {wins} of {len(complete)}. {verdicts}."
        lines[problem] = won if complete else "Nobody won: no row is complete."
    return lines
