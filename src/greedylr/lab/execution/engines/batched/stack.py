"""The models of many runs as one: each parameter stacked along a first dimension that counts the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, vmap

from greedylr.lab.catalogue.problems import Examples, Problem
from greedylr.lab.catalogue.problems.task import Function


class Stack:
    """Models of one shape, with the losses and gradients of all at once.

    The rows do not touch each other: what becomes of one, be it NaN, leaves the others as they are, bit for bit.

    Args:
        problem: What the models are of.
        models: In the initial state of some runs each.
        model_of_run: Index of the model that each run begins with.
    """

    def __init__(self, problem: Problem, models: Sequence[nn.Module], model_of_run: Tensor) -> None:
        self.problem = problem
        self.template = models[0]  # It is lent other parameters.
        self.parameters: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self.dimensions: dict[str, int | None] = {}
        for name, initial in _stacked([dict(model.named_parameters()) for model in models]):
            self.parameters[name] = initial[model_of_run].requires_grad_()
            self.dimensions[name] = 0
        for name, initial in _stacked([dict(model.named_buffers()) for model in models]):
            same = bool((initial == initial[0]).all())
            self.buffers[name] = initial[0] if same else initial[model_of_run]
            self.dimensions[name] = None if same else 0

    def differentiate(self, examples: Examples, constant: Tensor | None = None) -> tuple[Tensor, Sequence[Tensor]]:
        """The loss of each run on its examples, and the gradient of each parameter.

        Args:
            examples: Of each run.
            constant: A number to add to the loss of each run before the gradient is taken.
        """
        losses = self._each(self.problem.loss, examples, own=True)
        differentiated = losses if constant is None else losses + constant.to(losses.dtype)
        # The gradient of a sum, no term of which depends on another's parameters: cheaper than vmap of the gradient.
        return losses.detach(), torch.autograd.grad(differentiated.sum(), list(self.parameters.values()))

    @torch.no_grad()
    def losses(self, examples: Examples) -> Tensor:
        """The loss of each run on its examples."""
        return self._each(self.problem.loss, examples, own=True)

    @torch.no_grad()
    def observe(self, examples: Examples) -> Tensor:
        """Value that each scheduler receives for its run's examples."""
        return self._each(self.problem.observe, examples, own=True)

    @torch.no_grad()
    def validate(self, examples: Examples) -> Tensor:
        """The validation loss of each run on examples that all share."""
        self.template.eval()
        losses = self._each(self.problem.judge, examples, own=False)
        self.template.train()
        return losses

    @torch.no_grad()
    def metric(self, examples: Examples) -> Tensor:
        """The task's own measure of success of each run on examples that all share."""
        return self._each(self.problem.metric, examples, own=False)

    def _each(self, function: Function, examples: Examples, *, own: bool) -> Tensor:
        def of_one(state: dict[str, Tensor], examples: Examples) -> Tensor:
            return function(partial(self._call, state), examples)

        of_all = vmap(of_one, in_dims=(self.dimensions, 0 if own else None))
        losses: Tensor = of_all(self.parameters | self.buffers, examples)
        return losses

    def _call(self, state: dict[str, Tensor], inputs: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self.template, state, (inputs,))
        return outputs


def bytes_of_run(problem: Problem, model: nn.Module, examples: Examples) -> int:
    """About how much memory one run goes through in a step: what its gradient needs, and its parameters five times."""
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.nbytes
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        problem.loss(model, examples)
    # Parameter, gradient, move, and what the optimizer remembers.
    return saved + 5 * sum(parameter.nbytes for parameter in model.parameters())


def _stacked(states: Sequence[Mapping[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for name in states[0]:
        yield name, torch.stack([state[name].detach() for state in states])
