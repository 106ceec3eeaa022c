"""Trouble with the state of training: what the optimizer remembers, the weights, the learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from greedylr.lab.catalogue.perturbations.disturbance import Disturbance, Scene, Span
from greedylr.lab.catalogue.problems import Problem
from greedylr.lab.catalogue.schedulers import Scheduler


class OptimizerLost(Disturbance):
    """The optimizer forgets all that it remembers."""

    name = "optimizer-lost"
    title = "optimizer state lost"
    cause = "a restart from a checkpoint that holds the weights alone; preemptible machines restart often"
    meaning = "number of restarts, at equal distances"
    acts_on = "state"
    strengths = (1.0, 3.0, 10.0)

    @classmethod
    def span(cls, steps: int, strength: float) -> Span:
        """Span from the first restart to the step after the last."""
        begin = super().span(steps, strength).begin
        return Span(begin, max((begin, *cls._restarts(steps, strength))) + 1)

    @classmethod
    def suits(cls, problem: Problem, scheduler: Scheduler) -> bool:
        """True if the optimizer is a plain one; restarting a whole one would lose its averaged weights too."""
        return scheduler.kind != "optimizer"

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.restarts = frozenset(self._restarts(scene.steps, strength))

    @classmethod
    def _restarts(cls, steps: int, strength: float) -> list[int]:
        begin, end = super().span(steps, strength)
        return [begin + number * (end - begin) // int(strength) for number in range(int(strength))]

    @torch.no_grad()
    def state(self, step: int, weights: Sequence[Tensor], forget: Callable[[], None]) -> None:
        """Forget."""
        if step in self.restarts:
            forget()


class Rollback(Disturbance):
    """The weights are what they were some steps ago; all else goes on."""

    name = "rollback"
    title = "weights rolled back"
    cause = "an older checkpoint is put in place, while scheduler and optimizer carry on"
    meaning = "how far back, as a share of the run"
    acts_on = "state"
    strengths = (0.1, 0.2, 0.4)
    window = (0.4, 0.4)

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.saved = max(0, self.begin - round(strength * scene.steps))
        self.checkpoint: list[Tensor] = []

    @torch.no_grad()
    def state(self, step: int, weights: Sequence[Tensor], forget: Callable[[], None]) -> None:
        """Save the weights, and put them back."""
        if step == self.saved:
            self.checkpoint = [weight.clone() for weight in weights]
        if step == self.begin:
            for weight, old in zip(weights, self.checkpoint):
                weight.copy_(old)
            self.checkpoint = []


class LRJump(Disturbance):
    """The learning rate is another than the scheduler set, fixed schedules included."""

    name = "lr-jump"
    title = "learning rate changed by hand"
    cause = "someone overrides the learning rate for a while; a restart with another configuration"
    meaning = "by how many powers of ten"
    acts_on = "state"
    strengths = (-1.0, 0.5, 1.0)

    def lr_factor(self, step: int) -> float:
        """The factor while it is on."""
        return float(10.0**self.strength) if self.active(step) else 1.0
