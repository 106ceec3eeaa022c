"""Trouble with what the scheduler is told, and with nothing else: training itself is untouched.

Schedules that are known before the run are not told anything, and their runs are those of their twins.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from greedylr.lab.catalogue.perturbations.disturbance import Disturbance, Scene
from greedylr.lab.catalogue.perturbations.gradients import SPIKE_CHANCE
from greedylr.lab.catalogue.problems import Problem
from greedylr.lab.catalogue.schedulers import Scheduler


class _ObservationDisturbance(Disturbance):
    acts_on = "observation"
    window = (0.3, 0.6)

    @classmethod
    def suits(cls, problem: Problem, scheduler: Scheduler) -> bool:
        """True if the scheduler receives a loss."""
        return scheduler.kind == "feedback"

    def observation(self, step: int, values: Tensor) -> Tensor:
        """The values, wrong while it is on."""
        return self.disturbed(step, values) if self.active(step) else values

    def disturbed(self, step: int, values: Tensor) -> Tensor:
        """The wrong values of a step."""
        raise NotImplementedError


class ObservedNoise(_ObservationDisturbance):
    """Gaussian noise, in proportion to the value."""

    name = "observed-noise"
    title = "noise on the observed loss"
    cause = "the loss is logged from one worker, or from a part of the batch"
    meaning = "standard deviation, relative to the loss"
    strengths = (0.3, 1.0, 3.0)

    def disturbed(self, step: int, values: Tensor) -> Tensor:
        """The values with noise."""

        def of_one(generator: Generator) -> Tensor:
            return torch.randn((), generator=generator, dtype=torch.float64)

        return values * (1 + self.strength * self.draw(of_one))


class ObservedSpikes(_ObservationDisturbance):
    """Values that are far too high, at random steps."""

    name = "observed-spikes"
    title = "spikes in the observed loss"
    cause = "an overflow in the sum over workers, a unit that is mixed up"
    meaning = "height of the spike, relative to the loss"
    strengths = (3.0, 30.0, 300.0)

    def disturbed(self, step: int, values: Tensor) -> Tensor:
        """The values with the spike where there is one."""
        hit = self.chance(SPIKE_CHANCE) | (step == self.begin)
        return torch.where(hit, values + self.strength * values.abs(), values)


class ObservedDelay(_ObservationDisturbance):
    """The values of some steps ago."""

    name = "observed-delay"
    title = "delay of the observed loss"
    cause = "metrics that come over a network, or a pipeline that is deep"
    meaning = "by what share of the run"
    strengths = (0.02, 0.1, 0.25)

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.late = round(strength * scene.steps)
        self.past: list[Tensor] = []

    def observation(self, step: int, values: Tensor) -> Tensor:
        """The values, late while it is on; all are kept for that."""
        self.past.append(values)
        return super().observation(step, values)

    def disturbed(self, step: int, values: Tensor) -> Tensor:
        """The values of some steps ago, or of the first step."""
        return self.past[max(0, step - self.late)]


class ObservedMissing(_ObservationDisturbance):
    """No new value: the last one that came is told again.

    The scheduler is stepped all the same, or it would lose count of the steps that it was promised.
    """

    name = "observed-missing"
    title = "missing observations"
    cause = "the loss is logged now and then, and the loop hands on the last that it has"
    meaning = "probability that a step has no loss"
    strengths = (0.3, 0.7, 1.0)

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.last: Tensor | None = None

    def observation(self, step: int, values: Tensor) -> Tensor:
        """The values, or the last that came."""
        self.last = super().observation(step, values)
        return self.last

    def disturbed(self, step: int, values: Tensor) -> Tensor:
        """The values, or the last that came."""
        return torch.where(self.chance(self.strength), values if self.last is None else self.last, values)


class ObservedNaN(_ObservationDisturbance):
    """Not a number."""

    name = "observed-nan"
    title = "NaN observations"
    cause = "a mean over no examples, an overflow in the logging but not in the gradient"
    meaning = "probability that a step's loss is told as NaN"
    strengths = (0.1, 0.3, 1.0)

    def disturbed(self, step: int, values: Tensor) -> Tensor:
        """The values, or NaN."""
        return values.masked_fill(self.chance(self.strength), math.nan)
