"""The clean losses and learning rates of disturbed runs and their twins, small enough for a page of 35,000 runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from greedylr.lab.analysis.recovery import clean_losses, learning_rates
from greedylr.lab.catalogue.perturbations import find
from greedylr.lab.report.curves import band, ends
from greedylr.lab.results import Result
from greedylr.lab.runs import Run
from greedylr.presentation import packed

_Floats: TypeAlias = NDArray[np.float32]


class Scene(NamedTuple):
    """Setting in which schedulers are shown together: the same in all their runs, apart from the seed.

    Attributes:
        perturbation: Its name; ``"none"`` for the twins.
        problem: Name of the problem.
        optimizer: Name of the optimizer.
        multiplier: Initial learning rate as a multiple of the good one.
        steps: Optimizer steps.
    """

    perturbation: str
    problem: str
    optimizer: str
    multiplier: float
    steps: int

    @classmethod
    def of(cls, run: Run) -> Scene:
        """The scene that a run belongs to."""
        return cls(run.perturbation, run.problem, run.optimizer, run.multiplier, run.steps)

    def twins(self) -> Scene:
        """The scene of the twins."""
        return self._replace(perturbation="none")


class Trajectories:
    """Thinned curves of a few schedulers, of all runs that it is given.

    Args:
        schedulers: Names of those to be kept; of others nothing is.
    """

    def __init__(self, schedulers: Sequence[str]) -> None:
        self.schedulers = tuple(schedulers)
        self._curves: dict[Scene, dict[str, list[_Floats]]] = {}

    def keep(self, result: Result) -> None:
        """Keep what a chart can show of a result, unless its scheduler is none of those that are shown."""
        run = result.run
        if run.scheduler in self.schedulers:
            schedulers = self._curves.setdefault(Scene.of(run), {})
            schedulers.setdefault(run.scheduler, []).append(_thin(result))

    def scenes(self) -> list[Scene]:
        """Scenes of runs that were disturbed, in the order in which they were met."""
        return [scene for scene in self._curves if scene.perturbation != "none"]

    def data(self, scene: Scene) -> dict[str, Any]:
        """One scene for the page; the twins of its runs are another. The points are those of :func:`curves.ends`.

        Args:
            scene: Which; of runs that were disturbed, or of twins.
        """
        found = find(scene.perturbation)
        return {
            "problem": scene.problem,
            "optimizer": scene.optimizer,
            "multiplier": scene.multiplier,
            "steps": scene.steps,
            "span": None if found is None else found.span(scene.steps),
            "curves": {name: _text(self.middle(scene, name)) for name in self._curves.get(scene, ())},
        }

    def middle(self, scene: Scene, scheduler: str) -> _Floats:
        """The clean losses, and below them the learning rates: medians over seeds; NaN where no run has any.

        Args:
            scene: Which.
            scheduler: Name of a scheduler.
        """
        middle: _Floats = band(self._curves[scene][scheduler])[0]
        return middle


def _thin(result: Result) -> _Floats:
    """Means of the clean losses over stretches of steps, and the learning rates at the ends of these."""
    last = ends(result.run.steps)
    losses, lrs = (np.full(result.run.steps, np.nan) for _ in range(2))
    for curve, known in ((losses, clean_losses(result)), (lrs, learning_rates(result))):
        curve[: len(known)] = known
    first = np.array([0, *last[:-1]])
    with np.errstate(over="ignore", invalid="ignore"):  # What diverges overflows; it cannot be drawn.
        means = np.add.reduceat(losses, first) / np.diff([0, *last])
        return np.stack([means, lrs[np.array(last) - 1]]).astype(np.float32)


def _text(curves: _Floats) -> list[str]:
    return [packed(row) for row in curves]
