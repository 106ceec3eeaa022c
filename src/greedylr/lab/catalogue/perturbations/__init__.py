"""Catalogue of perturbations, one class a kind and one line here to add one; definitions: ``docs/robustness.md``.

A perturbation is a kind and a strength, and its name is both: ``gradient-noise:0.3``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from greedylr.lab.catalogue.perturbations import data, gradients, observations, published, state
from greedylr.lab.catalogue.perturbations.alone import Alone
from greedylr.lab.catalogue.perturbations.disturbance import Disturbance, Scene, Span
from greedylr.lab.catalogue.problems import PROBLEMS, Examples
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.runs import Run

KINDS: dict[str, type[Disturbance]] = {
    kind.name: kind
    for kind in (
        gradients.GradientNoise,
        gradients.RandomSpikes,
        gradients.PeriodicSpikes,
        gradients.Adversarial,
        gradients.Bursts,
        gradients.LostShard,
        gradients.StaleWorker,
        data.LabelNoise,
        data.InputNoise,
        data.Shift,
        data.Drift,
        data.Cycle,
        data.Repeated,
        data.Blank,
        state.OptimizerLost,
        state.Rollback,
        state.LRJump,
        observations.ObservedNoise,
        observations.ObservedSpikes,
        observations.ObservedDelay,
        observations.ObservedMissing,
        observations.ObservedNaN,
        published.Gaussian,
        published.PeriodicSpike,
        published.RandomSpike,
        published.AdversarialNumber,
        published.Plateau,
        published.Oscillatory,
        published.DriftingNumber,
        published.Burst,
    )
}
"""Every kind of perturbation by its name."""


class Perturbation(NamedTuple):
    """Perturbation of a run.

    Attributes:
        kind: What does.
        strength: How much.
    """

    kind: type[Disturbance]
    strength: float

    @property
    def name(self) -> str:
        """Identifier, on the command line and in stored results."""
        return f"{self.kind.name}:{self.strength:g}"

    def span(self, steps: int) -> Span:
        """Steps at which it is on, in a run of so many steps."""
        return self.kind.span(steps, self.strength)


PERTURBATIONS: dict[str, Perturbation] = {
    perturbation.name: perturbation
    for kind in KINDS.values()
    for perturbation in (Perturbation(kind, strength) for strength in kind.strengths)
}
"""Every perturbation that suites use, by its name; of other strengths, :func:`find` knows them too."""


def find(name: str) -> Perturbation | None:
    """The perturbation of a name; None for ``"none"``.

    Raises:
        KeyError: If there is none, or this is not how its name is written.

    Example:
        >>> find("gradient-noise:0.3").strength
        0.3
    """
    if name == "none":
        return None
    kind, _, strength = name.partition(":")
    try:
        found = Perturbation(KINDS[kind], float(strength))
    except ValueError:
        raise KeyError(name) from None
    # Another spelling would be another run in the store.
    if found.name != name or not math.isfinite(found.strength):
        raise KeyError(name)
    return found


def suits(run: Run) -> bool:
    """True if the perturbation of a run has something to act on; ``"none"`` always suits.

    Raises:
        KeyError: If there is no such problem, scheduler or perturbation.
    """
    found = find(run.perturbation)
    return found is None or found.kind.suits(PROBLEMS[run.problem], SCHEDULERS[run.scheduler])


def disturb(runs: Sequence[Run], train: Examples) -> Disturbance | None:
    """Disturbance of runs of one problem, number of steps and perturbation; None if there is none.

    Args:
        runs: The runs.
        train: The examples that batches are made of.

    Raises:
        KeyError: If there is no such problem, scheduler or perturbation.
        ValueError: If the perturbation has nothing to act on in a run.
    """
    found = find(runs[0].perturbation)
    if found is None:
        return None
    for run in runs:
        if not suits(run):
            raise ValueError(
                f"perturbation must suit the run; {run.perturbation} has nothing to act on in {run.problem} "
                f"under {run.scheduler}"
            )
    return found.kind(found.strength, Scene(runs[0].steps, [run.seed for run in runs], train))


__all__ = [
    "KINDS",
    "PERTURBATIONS",
    "Alone",
    "Disturbance",
    "Perturbation",
    "Scene",
    "Span",
    "disturb",
    "find",
    "suits",
]
