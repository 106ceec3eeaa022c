"""The schedulers that a user names or brings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from greedylr.lab.schedulers import SCHEDULERS

SchedulerFactory = Callable[[Optimizer, int], Any]
"""Makes a scheduler, given the optimizer and the number of steps: what has a ``step``, with the loss or without."""


@dataclass(frozen=True)
class Chosen:
    """A scheduler to be compared.

    Attributes:
        name: What it is called.
        make: Makes it.
        registered: Its name in the registry; None if it is the user's own.
    """

    name: str
    make: SchedulerFactory
    registered: str | None


def choose(schedulers: Sequence[str] | Mapping[str, str | SchedulerFactory]) -> list[Chosen]:
    """The schedulers, in the order given.

    Args:
        schedulers: Names in the registry; or, by any name, such a name or what makes one.

    Raises:
        ValueError: If there is none, or an unknown one, or two of one name.
    """
    if isinstance(schedulers, str):
        schedulers = (schedulers,)
    items = list(schedulers.items()) if isinstance(schedulers, Mapping) else [(name, name) for name in schedulers]
    if not items:
        raise ValueError("schedulers must name at least one")
    if len({name for name, _ in items}) < len(items):
        raise ValueError(f"schedulers must each be named once, got {', '.join(name for name, _ in items)}")
    return [_choose(name, given) for name, given in items]


def is_told_the_loss(scheduler: Any) -> bool:
    """Whether the scheduler's ``step`` takes something to go by; an ``epoch``, as torch's fixed schedules take, is not.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> is_told_the_loss(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer))
        True
        >>> is_told_the_loss(torch.optim.lr_scheduler.ConstantLR(optimizer))
        False
    """
    first = next(iter(inspect.signature(scheduler.step).parameters.values()), None)
    return first is not None and first.name != "epoch" and first.kind is not first.VAR_KEYWORD


def _choose(name: str, given: str | SchedulerFactory) -> Chosen:
    if callable(given):
        if name in SCHEDULERS:
            raise ValueError(f"schedulers: {name} is the name of one that the lab has; call your own something else")
        return Chosen(name, given, None)
    if given not in SCHEDULERS:
        raise ValueError(f"schedulers: there is no {given!r}; there are {', '.join(SCHEDULERS)}, or pass a callable")
    if name != given and name in SCHEDULERS:
        raise ValueError(f"schedulers: {name} is the name of another one than {given}; call it something else")
    entry = SCHEDULERS[given]
    return Chosen(name, entry.build, given)
