"""Perturbations of the kinds and in the place of the published robustness study: a number is added to the loss.

The number does not depend on the parameters, so that its gradient is zero, and the scheduler is told the loss without
it. Training is the same with it and without, bit for bit, whatever the number. That is what these are here to show.
The numbers, in the unit of the loss, are our own: as nothing depends on them, they need not be the published ones.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from greedylr.lab.catalogue.perturbations.disturbance import Disturbance


class _Published(Disturbance):
    cause = "none: a number that does not depend on the parameters"
    meaning = "size of the number, in the unit of the loss"
    acts_on = "nothing"
    strengths = (1.0,)
    window = (0.0, 1.0)

    def constant(self, step: int) -> Tensor:
        """The number."""
        return self.strength * self.number(step)

    def number(self, step: int) -> Tensor:
        """The number at strength 1."""
        raise NotImplementedError

    def normal(self) -> Tensor:
        """A normally distributed number for each run."""

        def of_one(generator: Generator) -> Tensor:
            return torch.randn((), generator=generator, dtype=torch.float64)

        return self.draw(of_one)

    def all(self, number: float) -> Tensor:
        """The same number for each run."""
        return torch.full(self._seed_of_run.shape, number, dtype=torch.float64)


class Gaussian(_Published):
    """A normally distributed number."""

    name = "published-gaussian"
    title = "published: Gaussian"

    def number(self, step: int) -> Tensor:
        """Any."""
        return self.normal()


class PeriodicSpike(_Published):
    """A large number at regular steps."""

    name = "published-periodic-spike"
    title = "published: periodic spike"

    def number(self, step: int) -> Tensor:
        """Ten at every fiftieth step."""
        return self.all(0.0 if step % 50 else 10.0)


class RandomSpike(_Published):
    """A large number at random steps."""

    name = "published-random-spike"
    title = "published: random spike"

    def number(self, step: int) -> Tensor:
        """Ten at one step in twenty."""
        return 10.0 * self.chance(0.05)


class AdversarialNumber(_Published):
    """A number whose sign alternates, and whose size grows."""

    name = "published-adversarial"
    title = "published: adversarial"

    def number(self, step: int) -> Tensor:
        """Size, from one to two."""
        return self.all((-1) ** step * (1 + step / self.steps))


class Plateau(_Published):
    """A number that stays for a stretch."""

    name = "published-plateau"
    title = "published: plateau"

    def number(self, step: int) -> Tensor:
        """One in the middle fifth of the run."""
        return self.all(float(0.4 <= step / self.steps < 0.6))


class Oscillatory(_Published):
    """A sine."""

    name = "published-oscillatory"
    title = "published: oscillatory"

    def number(self, step: int) -> Tensor:
        """A sine of twenty steps."""
        return self.all(math.sin(2 * math.pi * step / 20))


class DriftingNumber(_Published):
    """A number that grows."""

    name = "published-drift"
    title = "published: drift"

    def number(self, step: int) -> Tensor:
        """Share, from zero to one."""
        return self.all(step / self.steps)


class Burst(_Published):
    """Random numbers for a few steps at a time."""

    name = "published-burst"
    title = "published: burst"

    def number(self, step: int) -> Tensor:
        """Any of size five, for five steps in fifty."""
        return 5.0 * self.normal() if step % 50 < 5 else self.all(0.0)
