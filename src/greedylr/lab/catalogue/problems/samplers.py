"""Samplers: the examples of a batch are drawn at random, by turns, or from neighbours in an order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Generator, Tensor

Sampler: TypeAlias = Callable[[int, int, Generator, int], Tensor]
"""Draws the indices of a batch, given the number of examples, the size of the batch, the run's generator and the number
of steps done before. Nothing else decides them, so that runs that differ in the scheduler see the same."""


def uniform(size: int, count: int, generator: Generator, step: int) -> Tensor:
    """Any examples, with replacement."""
    return torch.randint(size, (count,), generator=generator)


def blocks(parts: int, every: int) -> Sampler:
    """Examples of one part at a time, with replacement: the first, the second, …, and again from the first.

    Args:
        parts: How many parts of equal size the examples consist of, one after the other.
        every: Steps from one part to the next.
    """

    def sampler(size: int, count: int, generator: Generator, step: int) -> Tensor:
        part = size // parts
        return step // every % parts * part + torch.randint(part, (count,), generator=generator)

    return sampler


def neighbours(within: int) -> Sampler:
    """Examples that are close in the order of the data, with replacement.

    Args:
        within: How many neighbours a batch is drawn from; where they begin is drawn for each batch.
    """

    def sampler(size: int, count: int, generator: Generator, step: int) -> Tensor:
        first = torch.randint(size - within + 1, (1,), generator=generator)
        return first + torch.randint(within, (count,), generator=generator)

    return sampler
