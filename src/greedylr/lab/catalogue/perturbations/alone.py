"""A disturbance of one run, on torch's own parameters and optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from greedylr.lab.catalogue.optimizers import forget
from greedylr.lab.catalogue.perturbations.disturbance import Disturbance
from greedylr.lab.catalogue.problems import Examples


class Alone:
    """Gives a disturbance the dimension that counts runs, and takes it away.

    Args:
        disturbance: Of one run.
        parameters: Of the run's model.
        optimizer: Of the run.
    """

    def __init__(self, disturbance: Disturbance, parameters: Sequence[Parameter], optimizer: Optimizer) -> None:
        self.disturbance = disturbance
        self.parameters = parameters
        self.weights = [parameter.detach().unsqueeze(0) for parameter in parameters]
        self.optimizer = optimizer

    def state(self, step: int) -> None:
        """Change the state of training before a step."""
        self.disturbance.state(step, self.weights, partial(forget, self.optimizer))

    def examples(self, step: int, indices: Tensor) -> Examples | None:
        """The examples to train on, or None if they are those at ``indices``."""
        stacked = self.disturbance.examples(step, indices.unsqueeze(0))
        return None if stacked is None else Examples(*(part.squeeze(0) for part in stacked))

    def loss(self, step: int, loss: Tensor) -> Tensor:
        """The loss to take the gradient of."""
        constant = self.disturbance.constant(step)
        return loss if constant is None else loss + constant.squeeze(0).to(loss.dtype)

    def gradients(self, step: int) -> None:
        """Change the gradients."""
        own = [parameter.grad.unsqueeze(0) for parameter in self.parameters if parameter.grad is not None]
        disturbed = self.disturbance.gradients(step, own)
        if disturbed is not own:
            for parameter, gradient in zip(self.parameters, disturbed, strict=True):
                parameter.grad = gradient.squeeze(0)

    @contextmanager
    def lr(self, step: int) -> Iterator[None]:
        """Have the learning rate that a step is made with; afterwards it is again what the scheduler set."""
        factor = self.disturbance.lr_factor(step)
        before = [group["lr"] for group in self.optimizer.param_groups]
        if factor != 1.0:
            for group in self.optimizer.param_groups:
                group["lr"] = group["lr"] * factor
        yield
        if factor != 1.0:
            for group, lr in zip(self.optimizer.param_groups, before):
                group["lr"] = lr

    def told(self, step: int, value: float) -> float:
        """Loss that the scheduler receives."""
        return float(self.disturbance.observation(step, torch.tensor([value], dtype=torch.float64)))
