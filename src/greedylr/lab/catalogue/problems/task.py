"""Tasks: the loss that a model is trained by, and the measures that it is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from torch import Tensor
from torch.nn import functional


class Examples(NamedTuple):
    """Inputs and targets; the first dimension counts the examples.

    Attributes:
        inputs: What the model is given.
        targets: What its outputs are compared with: the right class of each, or the right numbers.
    """

    inputs: Tensor
    targets: Tensor

    def batch(self, indices: Tensor) -> Examples:
        """The examples at ``indices``."""
        return Examples(self.inputs[indices], self.targets[indices])


Model: TypeAlias = Callable[[Tensor], Tensor]
"""Map from inputs to outputs: a module, or one called with parameters that are not its own."""

Function: TypeAlias = Callable[[Model, Examples], Tensor]
"""A number that says how a model does on examples, as a 0-d tensor."""


@dataclass(frozen=True)
class Task:
    """A loss, and what goes with it.

    The functions are pure and decide nothing in Python by the values of a tensor, so that ``torch.func`` can
    transform them.

    Attributes:
        loss_name: Name of the loss to show to a person, with its unit.
        loss: What training minimises, the mean over the examples.
        metric_name: Name of the metric to show to a person.
        metric: The task's own measure of success; higher is better.
        judge: The validation loss, lower is better, if it is not ``loss``.
        observe: What the scheduler is given at each step, if it is not ``loss``.
        mode: Whether what the scheduler is given should fall or rise.
    """

    loss_name: str
    loss: Function
    metric_name: str
    metric: Function
    judge: Function | None = None
    observe: Function | None = None
    mode: Literal["min", "max"] = "min"


def _cross_entropy(model: Model, examples: Examples) -> Tensor:
    logits = model(examples.inputs)
    return functional.cross_entropy(logits.flatten(0, -2), examples.targets.flatten())


def _accuracy(model: Model, examples: Examples) -> Tensor:
    logits = model(examples.inputs)
    return (logits.argmax(-1) == examples.targets).to(logits.dtype).mean()


def _squared_error(model: Model, examples: Examples) -> Tensor:
    return functional.mse_loss(model(examples.inputs), examples.targets)


def _explained(model: Model, examples: Examples) -> Tensor:
    around_mean = (examples.targets - examples.targets.mean(0)).square().mean()
    return 1 - _squared_error(model, examples) / around_mean


CLASSIFICATION = Task("cross-entropy (nats)", _cross_entropy, "accuracy", _accuracy)
"""The outputs are logits, with the classes in the last dimension; one target for each row of logits."""

REGRESSION = Task("mean squared error", _squared_error, "R²", _explained)
"""The outputs are numbers, as many as the targets."""
