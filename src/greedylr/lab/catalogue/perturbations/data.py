"""Trouble with the data: batches that are corrupted, shifted, unbalanced, repeated or empty of information.

A run draws the same indices as its twin. What is done to the batch is done afterwards, to some of the examples or to
the indices.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from greedylr.lab.catalogue.perturbations.disturbance import Disturbance, Scene
from greedylr.lab.catalogue.problems import Examples, Problem
from greedylr.lab.catalogue.problems.landscapes import LANDSCAPE
from greedylr.lab.catalogue.schedulers import Scheduler

CYCLE = 0.05
"""Share of the run that the composition of the batches takes to come back."""


class _DataDisturbance(Disturbance):
    acts_on = "data"

    @classmethod
    def suits(cls, problem: Problem, scheduler: Scheduler) -> bool:
        """True if the problem is made of data; the height of a point is not."""
        return problem.task is not LANDSCAPE

    def examples(self, step: int, indices: Tensor) -> Examples | None:
        """The disturbed examples while it is on."""
        return self.disturbed(step, indices) if self.active(step) else None

    def disturbed(self, step: int, indices: Tensor) -> Examples:
        """The disturbed examples of a step."""
        raise NotImplementedError

    def others(self, indices: Tensor) -> Tensor:
        """Indices of any training examples, as many."""
        size, shape = len(self.train.inputs), indices.shape[1:]
        return self.draw(lambda generator: torch.randint(size, shape, generator=generator))

    def chosen(self, stacked: Tensor, dimensions: int | None = None) -> Tensor:
        """Entries drawn with the strength as probability, along the first dimensions or all."""
        shape = stacked.shape[1:dimensions]

        def of_one(generator: Generator) -> Tensor:
            return torch.rand(shape, generator=generator) < self.strength

        chosen = self.draw(of_one)
        return chosen.view(*chosen.shape, *[1] * (stacked.dim() - chosen.dim()))


class LabelNoise(_DataDisturbance):
    """Targets of other examples."""

    name = "label-noise"
    title = "label noise"
    cause = "wrong labels: a join that slipped, a careless annotator"
    meaning = "probability that an example has the target of another"
    strengths = (0.2, 0.5, 1.0)

    def disturbed(self, step: int, indices: Tensor) -> Examples:
        """The examples, some with targets that are not theirs."""
        inputs, targets = self.train.batch(indices)
        foreign = self.train.targets[self.others(indices)]
        return Examples(inputs, torch.where(self.chosen(targets, 2), foreign, targets))


class InputNoise(_DataDisturbance):
    """Numbers of the inputs, each replaced by that at the same place of another example."""

    name = "input-corruption"
    title = "input corruption"
    cause = "broken records: dead pixels, columns in disorder, characters garbled by a wrong decoder"
    meaning = "probability that a number of the input is another example's"
    strengths = (0.2, 0.5, 1.0)

    def disturbed(self, step: int, indices: Tensor) -> Examples:
        """The examples with corrupted inputs."""
        inputs, targets = self.train.batch(indices)
        foreign = self.train.inputs[self.others(indices)]
        return Examples(torch.where(self.chosen(inputs), foreign, inputs), targets)


class _Ordered(_DataDisturbance):
    """Moves batches along the order of the training examples by the first number of their targets."""

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.order = scene.train.targets.reshape(len(scene.train.targets), -1)[:, 0].argsort(stable=True)
        self.rank = torch.empty_like(self.order)
        self.rank[self.order] = torch.arange(len(self.order))

    def moved(self, indices: Tensor, share: float, towards: float) -> Examples:
        """The examples whose ranks lie by a share of the way nearer to a place in the order, from 0 to 1."""
        place = towards * (len(self.order) - 1)
        ranks = (1 - share) * self.rank[indices].double() + share * place
        return self.train.batch(self.order[ranks.long()])


class Shift(_Ordered):
    """Batches from the upper end of the order."""

    name = "shard-shift"
    title = "change of the data shard"
    cause = "the next shard was written in another order, and holds but a few classes, or one kind of text"
    meaning = "share of the training examples that are out of reach"
    strengths = (0.5, 0.8, 0.95)

    def disturbed(self, step: int, indices: Tensor) -> Examples:
        """The examples of the shard."""
        return self.moved(indices, self.strength, 1.0)


class Drift(_Ordered):
    """The same, coming on slowly and gone at once."""

    name = "drift"
    title = "slow drift of the data"
    cause = "a stream of data whose composition changes with time, until the stream is replaced"
    meaning = "share of the training examples that are out of reach in the end"
    strengths = (0.5, 0.8, 0.95)
    window = (0.2, 0.6)

    def disturbed(self, step: int, indices: Tensor) -> Examples:
        """The examples of what the shard is by now."""
        done = (step + 1 - self.begin) / (self.end - self.begin)
        return self.moved(indices, self.strength * done, 1.0)


class Cycle(_Ordered):
    """Batches from one end of the order and from the other by turns."""

    name = "cyclic-batches"
    title = "cyclic composition of batches"
    cause = "data sorted by source and read in turns: the loss goes up and down with the batches"
    meaning = "share of the training examples that are out of reach of each batch"
    strengths = (0.5, 0.8, 0.95)
    window = (0.4, 0.6)

    def disturbed(self, step: int, indices: Tensor) -> Examples:
        """The examples of where in the cycle the step is."""
        period = max(2, round(CYCLE * self.steps))
        turn = math.cos(2 * math.pi * (step - self.begin) / period)
        return self.moved(indices, self.strength, (1 + turn) / 2)


class Repeated(_DataDisturbance):
    """The same examples at every step."""

    name = "repeated-batches"
    title = "plateau: a batch that is repeated"
    cause = "a data loader that is stuck: the loss falls, and nothing is learnt but these examples by heart"
    meaning = "share of the batch that is the same at every step"
    strengths = (0.25, 0.5, 1.0)

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.first: Tensor | None = None

    def disturbed(self, step: int, indices: Tensor) -> Examples:
        """The examples, some of them those of the first step of the window."""
        self.first = indices.clone() if self.first is None else self.first
        stuck = round(self.strength * indices.shape[1])
        return self.train.batch(torch.cat([self.first[:, :stuck], indices[:, stuck:]], 1))


class Blank(_DataDisturbance):
    """Inputs that say nothing about their targets: all are one and the same."""

    name = "blank-batches"
    title = "plateau: batches without information"
    cause = "a preprocessing step that fails and returns a default: the loss rises to that of guessing, and stays"
    meaning = "probability that the input of an example is the default"
    strengths = (0.25, 0.5, 1.0)

    def __init__(self, strength: float, scene: Scene) -> None:
        super().__init__(strength, scene)
        self.default = self.draw(lambda generator: torch.randint(len(self.train.inputs), (1,), generator=generator))

    def disturbed(self, step: int, indices: Tensor) -> Examples:
        """The examples, some with the input that says nothing."""
        inputs, targets = self.train.batch(indices)
        return Examples(torch.where(self.chosen(inputs, 2), self.train.inputs[self.default], inputs), targets)
