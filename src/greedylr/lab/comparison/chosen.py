"""The schedulers that a user names or brings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from greedylr.lab.catalogue.schedulers import SCHEDULERS

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

    def __reduce__(self) -> tuple[Any, ...]:
        """One of the registry goes to other processes by its name."""
        if self.registered is None:
            return Chosen, (self.name, self.make, None)
        return _choose, (self.name, self.registered)


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


_LOSSES = frozenset({"loss", "metrics", "metric", "value"})
_TIMES = frozenset({"epoch", "epochs", "step", "steps", "current_step", "current_epoch", "t", "iteration"})


def told(scheduler: Any) -> Callable[[float], object] | None:
    """Name of the argument that takes the loss at each step; None if ``step`` takes nothing.

    An argument that is called like a loss is given one. So is the first that must be given, unless it is called like a
    number of steps. Anything else, such as the optional ``epoch`` of torch's fixed schedules or ``*args``, may be the
    time: a loss would be taken for it without a word.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> told(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)) is None
        False
        >>> told(torch.optim.lr_scheduler.ConstantLR(optimizer)) is None
        True
    """
    step: Callable[..., object] = scheduler.step
    parameters = list(inspect.signature(step).parameters.values())
    for one in parameters:
        if one.name in _LOSSES and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            return partial(_told_by_name, step, one.name)
    for one in parameters[:1]:
        positional = one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        if positional and one.default is one.empty and one.name not in _TIMES:
            return step
    return None


def _told_by_name(step: Callable[..., object], name: str, loss: float) -> object:
    return step(**{name: loss})


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


def is_fixed(chosen: Chosen) -> bool:
    """True if a scheduler goes by the step alone."""
    if chosen.registered is not None:
        return SCHEDULERS[chosen.registered].kind == "fixed"
    return told(chosen.make(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), 10)) is None
