"""Base of all perturbations: a disturbance of some runs at once, and the places where it can act."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from greedylr.lab.catalogue.problems import Examples, Problem
from greedylr.lab.catalogue.schedulers import Scheduler

ActsOn = Literal["gradient", "data", "state", "observation", "nothing"]
"""Place at which a perturbation acts; ``"nothing"``: it is one that has been published, and changes nothing."""


class Span(NamedTuple):
    """Steps at which a disturbance is on.

    Attributes:
        begin: Number of steps done before its first step.
        end: Number of steps done after its last step.
    """

    begin: int
    end: int


class Scene(NamedTuple):
    """The runs that are disturbed, which share a problem and a number of steps.

    Attributes:
        steps: Optimizer steps of each.
        seeds: Of each run; runs of one seed are disturbed alike.
        train: The examples that batches are made of.
    """

    steps: int
    seeds: Sequence[int]
    train: Examples


class Disturbance:
    """Disturbs training, or what the scheduler is told of it; this one leaves everything as it is.

    The first dimension of every tensor that it is given counts the runs. Its random numbers are its own: they depend
    on its kind and the seed of a run, not on the strength, the scheduler, the optimizer or the learning rate. Runs
    that differ in one of these meet the same trouble, and the batches and initial weights are those of the run that
    is not disturbed. Each hook is called once a step, in the order of the steps.

    Args:
        strength: How strong; at 0 nothing is changed.
        scene: The runs.
    """

    name: ClassVar[str]
    """Identifier, before the colon of a perturbation's name."""
    title: ClassVar[str]
    """Name to show to a person."""
    cause: ClassVar[str]
    """Cause in real training."""
    meaning: ClassVar[str]
    """Meaning of the strength."""
    version: ClassVar[int] = 1
    """Counts changes of what it does that its code does not show; part of the key of every run."""
    acts_on: ClassVar[ActsOn]
    strengths: ClassVar[tuple[float, ...]]
    """Strengths that suites use, the weakest first."""
    window: ClassVar[tuple[float, float]] = (0.4, 0.5)
    """Time in which it is on, in shares of the run."""

    def __init__(self, strength: float, scene: Scene) -> None:
        self.strength = strength
        self.steps = scene.steps
        self.train = scene.train
        self.begin, self.end = self.span(scene.steps, strength)
        seeds = list(dict.fromkeys(scene.seeds))
        self._seed_of_run = torch.tensor([seeds.index(seed) for seed in scene.seeds])
        self._generators = [Generator().manual_seed(_number(f"{self.name}:{seed}")) for seed in seeds]

    @classmethod
    def span(cls, steps: int, strength: float) -> Span:
        """Steps at which it is on, in a run of so many steps; at least one."""
        begin, end = (round(share * steps) for share in cls.window)
        return Span(begin, max(begin + 1, end))

    @classmethod
    def suits(cls, problem: Problem, scheduler: Scheduler) -> bool:
        """True if there is something for it to act on."""
        return True

    def active(self, step: int) -> bool:
        """True if it is on at a step.

        Args:
            step: Number of steps done before.
        """
        return self.begin <= step < self.end

    def draw(self, make: Callable[[Generator], Tensor]) -> Tensor:
        """Random numbers for each run, the same for runs of one seed.

        Args:
            make: Draws those of one run.
        """
        return torch.stack([make(generator) for generator in self._generators])[self._seed_of_run]

    def chance(self, probability: float) -> Tensor:
        """Draw for each run whether something of this probability happens."""
        return self.draw(lambda generator: torch.rand((), generator=generator, dtype=torch.float64)) < probability

    def examples(self, step: int, indices: Tensor) -> Examples | None:
        """The examples to train on, or None if they are those at ``indices``.

        Args:
            step: Number of steps done before.
            indices: Of the undisturbed batch of each run.
        """
        return None

    def state(self, step: int, weights: Sequence[Tensor], forget: Callable[[], None]) -> None:
        """Change the state of training before a step.

        Args:
            step: Number of steps done before.
            weights: To be written to.
            forget: Makes the optimizers forget all that they remember.
        """

    def constant(self, step: int) -> Tensor | None:
        """A number to add to the loss of each run, before the gradient is taken."""
        return None

    def gradients(self, step: int, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """The gradients that the optimizers are given.

        Args:
            step: Number of steps done before.
            gradients: Of each parameter; not to be written to.
        """
        return gradients

    def lr_factor(self, step: int) -> float:
        """Factor of the learning rate for a step, after the scheduler has set it."""
        return 1.0

    def observation(self, step: int, values: Tensor) -> Tensor:
        """Losses that the schedulers receive.

        Args:
            step: Number of steps done before.
            values: What there is to be told, in double precision.
        """
        return values


def column(of_runs: Tensor, stacked: Tensor) -> Tensor:
    """One value for each run, in the shape to go with a tensor of all runs."""
    return of_runs.view(-1, *[1] * (stacked.dim() - 1))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
