"""What an engine is asked for, what it gives back, and what decides both: weights and batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from greedylr.lab.problems import Data, Examples, Problem

Floats = NDArray[np.float64]


class Job(NamedTuple):
    """A run of a problem and number of steps that are given; jobs that differ only in the scheduler share all else.

    Attributes:
        optimizer: Name of an optimizer.
        lr: Initial learning rate.
        scheduler: Name of a scheduler.
        seed: Decides the initial weights and the batches, and nothing else does.
    """

    optimizer: str
    lr: float
    scheduler: str
    seed: int


@dataclass
class Trajectory:
    """What one run left.

    Attributes:
        job: What was run.
        losses: Minibatch loss of each step, before the step's update.
        observed: What the scheduler was given after each step: the loss, unless the problem says otherwise.
        lrs: Learning rate of each step.
        validation_steps: Number of steps done at each validation.
        validation_losses: Validation loss at each of them.
        metric: The task's own measure of success after the last step.
        actions: What a GreedyLR made of each observed value, as indices into
            :data:`greedylr.control.batched.ACTIONS`; None for other schedulers.
    """

    job: Job
    losses: Floats
    observed: Floats
    lrs: Floats
    validation_steps: tuple[int, ...]
    validation_losses: Floats
    metric: float
    actions: NDArray[np.int8] | None


def initial_model(problem: Problem, seed: int, dtype: torch.dtype) -> nn.Module:
    """The model of a run before its first step; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return problem.model().to(dtype)


def batches(problem: Problem, data: Data, seed: int) -> Iterator[Tensor]:
    """The indices of the batch of each step of a run, without end."""
    generator = torch.Generator().manual_seed(seed)
    step = 0
    while True:
        yield problem.sample(data, generator, step)
        step += 1


def load(problem: Problem, dtype: torch.dtype) -> Data:
    """The data of a problem, its floating tensors in ``dtype``."""
    return Data(*(Examples(*(_in(dtype, tensor) for tensor in part)) for part in problem.load()))


def _in(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
