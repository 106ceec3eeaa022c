"""Trouble on the way from the loss to the optimizer: gradients that are noisy, huge, wrong, lost or late.

Sizes are relative to the norm of the run's own gradient at that step, over all parameters together, so that a strength
means the same for every problem and at every stage of training.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from greedylr.lab.catalogue.perturbations.disturbance import Disturbance, Scene, column

SPIKE_CHANCE = 0.2
"""Probability of a random spike, at each step of the window but the first, which always has one."""

SPIKE_EVERY = 5
"""Steps from one periodic spike to the next."""

BURST_EVERY, BURST_LENGTH = 0.05, 0.3
"""Share of the run from one burst to the next, and share of that for which it lasts."""

STALE = 0.05
"""Share of the run by which a stale gradient is late."""


class _GradientDisturbance(Disturbance):
    acts_on = "gradient"

    def gradients(self, step: int, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The gradients, disturbed while it is on."""
        return self.disturbed(step, gradients) if self.active(step) else gradients

    def disturbed(self, step: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The disturbed gradients of a step."""
        raise NotImplementedError

    def noise(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Normally distributed numbers whose norm is, but for chance, the strength times that of the gradient."""
        squares = sum(gradient.flatten(1).square().sum(1) for gradient in gradients)
        coordinates = sum(gradient[0].numel() for gradient in gradients)
        sizes = self.strength * torch.as_tensor(squares).sqrt() / math.sqrt(coordinates)
        return [self._normal(gradient) * column(sizes, gradient) for gradient in gradients]

    def chosen(self, gradient: Tensor) -> Tensor:
        """Coordinates drawn with the strength as probability."""
        shape, dtype = gradient.shape[1:], gradient.dtype
        return self.draw(lambda generator: torch.rand(shape, generator=generator, dtype=dtype)) < self.strength

    def _normal(self, gradient: Tensor) -> Tensor:
        def of_one(generator: Generator) -> Tensor:
            return torch.randn(gradient.shape[1:], generator=generator, dtype=gradient.dtype)

        return self.draw(of_one)


class GradientNoise(_GradientDisturbance):
    """Gaussian noise at every step."""

    name = "gradient-noise"
    title = "gradient noise"
    cause = "much smaller batches for a while, as when workers leave; noise that is added for privacy"
    meaning = "norm of the noise, relative to the gradient's"
    strengths = (0.3, 1.0, 3.0)

    def disturbed(self, step: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients and the noise."""
        return [gradient + noise for gradient, noise in zip(gradients, self.noise(gradients))]


class RandomSpikes(_GradientDisturbance):
    """Huge gradients in random directions, at random steps."""

    name = "gradient-spikes"
    title = "random gradient spikes"
    cause = "a bad shard: now and then a batch of garbage, whose gradient is huge and points anywhere"
    meaning = "norm of the spike, relative to the gradient's"
    strengths = (3.0, 10.0, 100.0)

    def disturbed(self, step: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, with the spike in the runs that are hit."""
        hit = self.chance(SPIKE_CHANCE) | (step == self.begin)
        return [
            torch.where(column(hit, gradient), gradient + noise, gradient)
            for gradient, noise in zip(gradients, self.noise(gradients))
        ]


class PeriodicSpikes(_GradientDisturbance):
    """Gradients that are too large by a factor, at regular steps."""

    name = "gradient-overflow"
    title = "periodic gradient spikes"
    cause = "overflow: a loss scale that is not taken out again, or a sum that is taken for a mean, every few steps"
    meaning = "by how much too large, relative to the gradient"
    strengths = (3.0, 10.0, 100.0)

    def disturbed(self, step: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, enlarged every few steps."""
        factor = 1.0 if (step - self.begin) % SPIKE_EVERY else 1.0 + self.strength
        return [gradient * factor for gradient in gradients]


class Adversarial(_GradientDisturbance):
    """Wrong signs at random coordinates, drawn anew at every step."""

    name = "adversarial"
    title = "adversarial steps"
    cause = "a worker that is broken or hostile; a sign error in a kernel; at strength 1 the loss is climbed"
    meaning = "share of the coordinates whose sign is flipped"
    strengths = (0.25, 0.5, 1.0)

    def disturbed(self, step: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients with some signs flipped."""
        return [torch.where(self.chosen(gradient), -gradient, gradient) for gradient in gradients]


class Bursts(_GradientDisturbance):
    """Strong Gaussian noise for a few steps at a time."""

    name = "gradient-bursts"
    title = "bursts of gradient noise"
    cause = "stretches of bad records in a stream of data, which come in runs"
    meaning = "norm of the noise, relative to the gradient's"
    strengths = (3.0, 10.0, 30.0)
    window = (0.4, 0.6)

    def disturbed(self, step: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, and the noise while there is a burst."""
        every = max(1, round(BURST_EVERY * self.steps))
        if (step - self.begin) % every >= math.ceil(BURST_LENGTH * every):
            return list(gradients)
        return [gradient + noise for gradient, noise in zip(gradients, self.noise(gradients))]


class LostShard(_GradientDisturbance):
    """The gradient of coordinates that are drawn once arrives as zero."""

    name = "worker-lost"
    title = "a lost worker's gradient"
    cause = "a worker drops out that reduces a part of the gradient, in sharded data parallelism"
    meaning = "share of the coordinates that are lost"
    strengths = (0.25, 0.5, 1.0)

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.lost: list[Tensor] = []

    def disturbed(self, step: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients but for what is lost."""
        self.lost = self.lost or [self.chosen(gradient) for gradient in gradients]
        return [gradient.masked_fill(lost, 0.0) for gradient, lost in zip(gradients, self.lost)]


class StaleWorker(_GradientDisturbance):
    """Some of the gradient is that of earlier weights and another batch."""

    name = "worker-stale"
    title = "a stale worker's gradient"
    cause = "a slow worker in asynchronous training: what it sends was computed some steps ago"
    meaning = "share of the gradient that is late"
    strengths = (0.25, 0.5, 1.0)

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.late = max(1, round(STALE * scene.steps))
        self.past: deque[list[Tensor]] = deque(maxlen=self.late)

    def gradients(self, step: int, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The gradients, in part late while it is on; before, they are kept for that."""
        result = super().gradients(step, gradients)
        if self.begin - self.late <= step < self.end:
            self.past.append([gradient.clone() for gradient in gradients])
        return result

    def disturbed(self, step: int, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients mixed with those of some steps ago, or of the first step there was."""
        past = self.past[0] if self.past else gradients
        return [torch.lerp(gradient, old, self.strength) for gradient, old in zip(gradients, past)]
