"""Start of a run, the same for every engine: learning rate, weights, data and batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems import PROBLEMS, Data, Examples
from greedylr.lab.runs import Run

# What the numbers of a run can bring about, in a scheduler that divides by a loss or an optimizer that checks its
# arguments. All else, such as a missing package or a full disk, says nothing about the run, and is raised.
FAILURES = (ArithmeticError, ValueError, RuntimeError)


_TRAINING = 2**40  # What training draws is not what the weights were drawn from.


class StoppedError(Exception):
    """A run was asked to stop before its last step; nothing of it is kept."""


def learning_rate(run: Run) -> float:
    """The initial learning rate of a run."""
    return run.multiplier if run.absolute else PROBLEMS[run.problem].lrs[run.optimizer] * run.multiplier


def initial_model(run: Run, dtype: torch.dtype) -> nn.Module:
    """The model of a run before its first step; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        return PROBLEMS[run.problem].model().to(dtype)


@contextmanager
def drawing(run: Run, device: str = "cpu") -> Iterator[None]:
    """Let dropout draw the same for the same seed and device; torch's global generators are left as they were."""
    with torch.random.fork_rng(devices=[] if device == "cpu" else [device]):
        torch.manual_seed(run.seed + _TRAINING)
        yield


def batches(run: Run, data: Data) -> Iterator[Tensor]:
    """The indices of the batch of each step of a run, without end."""
    problem = PROBLEMS[run.problem]
    generator = torch.Generator().manual_seed(run.seed)
    step = 0
    while True:
        yield problem.sample(data, generator, step)
        step += 1


@cache
def data_of(problem: str, dtype: torch.dtype, device: str = "cpu") -> Data:
    """The data of a problem, floating tensors in ``dtype``: read once in a process, never written to."""
    return Data(*(Examples(*(_in(dtype, tensor).to(device) for tensor in part)) for part in PROBLEMS[problem].load()))


def _in(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
