"""The optimizers, on the parameters of many runs at once, each run with its own learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from greedylr.lab.catalogue.optimizers import OptimizerEntry, forget


class Update(Protocol):
    """An optimizer of stacked parameters, of which the first dimension counts the runs."""

    def step(self, gradients: Sequence[Tensor], lrs: Tensor, options: Mapping[str, Any]) -> None:
        """Take one step.

        Args:
            gradients: Of each parameter.
            lrs: Learning rate of each run.
            options: Other options of the optimizer, new at this step.
        """

    def forget(self) -> None:
        """Forget everything but the parameters."""


def update(entry: OptimizerEntry, parameters: Sequence[Tensor]) -> Update:
    """The update that an optimizer makes to stacked parameters."""
    return _Elementwise(entry, parameters) if entry.elementwise else _Adafactor(entry, parameters)


class _Elementwise:
    """torch's own optimizer, for all runs at once.

    It is told the learning rate 1, and to move zeros. What it makes of them is the update but for the factor of
    the learning rate: to the last bit, as nothing is subtracted.
    """

    def __init__(self, entry: OptimizerEntry, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.moves = [torch.zeros_like(parameter) for parameter in parameters]
        self.optimizer = entry.build(self.moves, 1.0, fused=True)
        self.group = self.optimizer.param_groups[0]
        # Zeros do not decay. No other optimizer of the registry decays weights.
        self.decay = self.group["weight_decay"] if isinstance(self.optimizer, torch.optim.AdamW) else 0.0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lrs: Tensor, options: Mapping[str, Any]) -> None:
        self.group.update(options)
        for move, gradient in zip(self.moves, gradients):
            # The fused kernels take for granted that all is laid out alike.
            alike = gradient.stride() == move.stride()
            move.grad = gradient if alike else torch.empty_like(move).copy_(gradient)
        self.optimizer.step()
        if self.decay:
            torch._foreach_add_(self.moves, self.parameters, alpha=-self.decay)
        for parameter, move in zip(self.parameters, self.moves):
            parameter.addcmul_(move, _column(lrs, parameter))
        torch._foreach_zero_(self.moves)

    def forget(self) -> None:
        forget(self.optimizer)


class _Adafactor:
    """``torch.optim.Adafactor``, which looks at whole tensors, with the runs apart."""

    def __init__(self, entry: OptimizerEntry, parameters: Sequence[Tensor]) -> None:
        self.parameters = list(parameters)
        self.options = entry.build([torch.zeros(1)], 1.0).param_groups[0]
        # Of a matrix the means of squares over rows and over columns, of a vector the squares.
        self.averages: list[tuple[Tensor, ...]] = [
            (torch.zeros_like(p[..., :1]), torch.zeros_like(p[..., :1, :])) if p.dim() > 2 else (torch.zeros_like(p),)
            for p in parameters
        ]
        self.count = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lrs: Tensor, options: Mapping[str, Any]) -> None:
        self.options.update(options)
        self.count += 1
        relative = lrs.clamp(max=self.count**-0.5)
        share = self.count ** self.options["beta2_decay"]
        least, least_rms = self.options["eps"]
        for parameter, gradient, averages in zip(self.parameters, gradients, self.averages):
            least = torch.finfo(parameter.dtype).eps if least is None else least
            squares = gradient.square()
            if len(averages) == 2:
                rows, columns = averages
                rows.lerp_(squares.mean(-1, keepdim=True), share)
                columns.lerp_(squares.mean(-2, keepdim=True), share)
                variance = rows * columns / rows.mean(-2, keepdim=True).clamp(min=least)
            else:
                variance = averages[0].lerp_(squares, share)
            move = gradient * variance.clamp(min=least**2).rsqrt_()
            size = _rms(parameter).clamp(min=least_rms) * relative
            size /= (_rms(move) / self.options["d"]).clamp(min=1.0)
            parameter.addcmul_(move, _column(size, parameter), value=-1.0)

    def forget(self) -> None:
        self.count = 0
        for averages in self.averages:
            torch._foreach_zero_(averages)


def _rms(stacked: Tensor) -> Tensor:
    flat = stacked.reshape(len(stacked), -1)
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return norms / math.sqrt(flat.shape[1])


def _column(of_runs: Tensor, stacked: Tensor) -> Tensor:
    return of_runs.view(-1, *[1] * (stacked.dim() - 1))
