"""Entry for an optimizer in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True)
class OptimizerEntry:
    """An optimizer of torch's.

    Attributes:
        name: Identifier, on the command line and in stored results.
        title: Name to show to a person.
        make: Makes it, given parameters and ``lr``; all else as torch has it but for what is said here.
        elementwise: Whether each number is updated by itself, and by the learning rate times something that
            does not depend on it. torch has these fused.
        version: Counts changes of what it does that its code does not show; part of the key of every run.
    """

    name: str
    title: str
    make: Callable[..., Optimizer]
    elementwise: bool = True
    version: int = 1

    def build(self, parameters: Iterable[Tensor], lr: float, *, fused: bool = False) -> Optimizer:
        """Make it.

        Args:
            parameters: What it updates.
            lr: The initial learning rate.
            fused: Whether to take torch's fused implementation where there is one: as good, not the same bits.
        """
        options = {"fused": True} if fused and self.elementwise else {}
        return self.make(parameters, lr=lr, **options)


@torch.no_grad()
def forget(optimizer: Optimizer) -> None:
    """Make an optimizer of the registry forget what it remembers: all of these begin with nothing but zeros."""
    for remembered in optimizer.state.values():
        for value in remembered.values():
            if isinstance(value, Tensor):
                value.zero_()
