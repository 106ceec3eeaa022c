"""Entry for a problem: data, a model, a task, and learning rates that are known to be good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

from greedylr.lab.catalogue.problems.samplers import Sampler, uniform
from greedylr.lab.catalogue.problems.task import CLASSIFICATION, Examples, Model, Task


class DataError(RuntimeError):
    """The data of a problem cannot be read on this machine."""


class Data(NamedTuple):
    """Two sets of examples, disjoint where they are data: to train on, and to judge by."""

    train: Examples
    validation: Examples


@dataclass(frozen=True)
class Problem:
    """A model to train.

    A batch is ``data.train.batch(problem.sample(data, generator, step))``. All that is random about a run is its
    initial weights, these indices, and what dropout draws from torch's global generator. :meth:`loss`,
    :meth:`observe`, :meth:`judge` and :meth:`metric` take any callable as the model and can be transformed by
    ``torch.func``, so that many runs of a stackable problem can be trained at once::

        def loss(parameters, examples):
            return problem.loss(lambda inputs: functional_call(model, parameters, (inputs,)), examples)

        vmap(grad_and_value(loss))(stacked_parameters, stacked_examples)

    Attributes:
        name: Identifier, on the command line and in stored results.
        title: Name to show to a person.
        lr: A good initial learning rate for AdamW under cosine annealing with warmup, tuned with
            seeds that no comparison uses; how is said where the problem is defined, or else in docs/problems.md.
        steps: Optimizer steps of a full run.
        batch_size: Examples a step.
        load: Reads the data, the same at every call; raises :class:`DataError` if it cannot.
        model: Builds the model with weights drawn from torch's global generator.
        lrs: The same by name of the optimizer: ``sgd`` (momentum 0.9), ``adam``, ``adagrad``,
            ``adafactor``, and ``adamw``, which need not be given: it is ``lr``.
        kind: Whether it is a function that is known, a model that learns, a case that a loss-driven
            scheduler may not be made for, a pre-trained model that is trained on, a published encoder that is, or an
            architecture of Transformers.
        description: Data and model, in a line.
        task: The loss, the metric, and what the scheduler is given.
        sampler: Which training examples a batch is made of.
        stackable: Whether many of its models can be trained as one, which chooses the engine: each is a function of its
            parameters and inputs, without dropout or a buffer that changes, and of operations that ``torch.func.vmap``
            has rules for.
        version: Counts changes of what it does that its code does not show; part of the key of every run.
    """

    name: str
    title: str
    lr: float
    steps: int
    batch_size: int
    load: Callable[[], Data]
    model: Callable[[], nn.Module]
    lrs: Mapping[str, float] = field(default_factory=dict, hash=False)
    kind: Literal["analytic", "learned", "boundary", "pre-trained", "encoder", "architecture"] = "learned"
    description: str = ""
    task: Task = CLASSIFICATION
    sampler: Sampler = uniform
    stackable: bool = True
    version: int = 1

    def __post_init__(self) -> None:
        """Let AdamW be asked for like any other optimizer."""
        object.__setattr__(self, "lrs", {**self.lrs, "adamw": self.lr})

    def sample(self, data: Data, generator: Generator, step: int) -> Tensor:
        """The indices of a batch in ``data.train``.

        Args:
            data: What :attr:`load` returned.
            generator: The run's own; asked once a step, in order.
            step: Number of optimizer steps done before, from 0.
        """
        return self.sampler(len(data.train.inputs), self.batch_size, generator, step)

    def loss(self, model: Model, examples: Examples) -> Tensor:
        """Training loss on ``examples``; a 0-d tensor, as are the following."""
        return self.task.loss(model, examples)

    def observe(self, model: Model, examples: Examples) -> Tensor:
        """Value that the scheduler receives: the loss, or the task's replacement for it."""
        return (self.task.observe or self.task.loss)(model, examples)

    def judge(self, model: Model, examples: Examples) -> Tensor:
        """The validation loss: the loss, or what the task has in its place; lower is better."""
        return (self.task.judge or self.task.loss)(model, examples)

    def metric(self, model: Model, examples: Examples) -> Tensor:
        """The task's own measure of success; higher is better."""
        return self.task.metric(model, examples)

    @torch.no_grad()
    def validate(self, model: nn.Module, data: Data) -> float:
        """The validation loss on the validation examples; the model is left in training mode."""
        model.eval()
        loss = self.judge(model, data.validation).item()
        model.train()
        return loss
