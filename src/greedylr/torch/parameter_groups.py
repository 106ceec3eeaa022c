"""The learning rates in an optimizer's parameter groups, of which more than one may think that they are its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_REMEMBERED = "_greedylr_lrs"


def lr_of(group: dict[str, Any]) -> float:
    """The learning rate of a group.

    Raises:
        ValueError: If it has none.
    """
    if group["lr"] is None:
        raise ValueError(
            "the learning rate of a parameter group is None, so the optimizer sets its own (Adafactor with "
            "relative_step=True): give it lr=... and relative_step=False"
        )
    return float(group["lr"])


def initial_lrs(optimizer: Optimizer, first: int = 0) -> list[float]:
    """The learning rates that a new scheduler starts from, of the groups from number ``first`` on.

    They are those in the optimizer, with two exceptions. Where torch's convention has left an ``initial_lr``, that
    counts. Where an earlier GreedyLR of this optimizer object has set the learning rate and nobody since, the one that
    it started from counts, for a cell of a notebook may be run twice; if somebody has, the one in the optimizer.
    """
    known = getattr(optimizer, _REMEMBERED, None)
    remembered = [] if known is None else list(zip(known.initial, known.in_optimizer))
    lrs = []
    for number, group in enumerate(optimizer.param_groups[first:], start=first):
        lr = lr_of(group)
        if number < len(remembered):
            initial, set_ = remembered[number]
            lrs.append(initial if lr == set_ else lr)
        else:
            lrs.append(float(group.get("initial_lr", lr)))
    return lrs


class Remembered:
    """Learning rates that a scheduler has set, for :func:`initial_lrs` of the next; in no checkpoint."""

    def __init__(self) -> None:
        self.initial: tuple[float, ...] = ()
        self.in_optimizer: tuple[float, ...] = ()


def remember(optimizer: Optimizer, remembered: Remembered) -> None:
    """Keep on the optimizer object what its scheduler has set."""
    setattr(optimizer, _REMEMBERED, remembered)


def note_initial_lrs(optimizer: Optimizer, initial: Sequence[float]) -> None:
    """Set ``initial_lr``, torch's name for it, in every group."""
    for group, lr in zip(optimizer.param_groups, initial):
        if "initial_lr" not in group or float(group["initial_lr"]) != lr:
            given = group["lr"]
            group["initial_lr"] = torch.full_like(given, lr) if isinstance(given, Tensor) else lr


def unshare_lrs(optimizer: Optimizer) -> None:
    """Give every group a tensor of its own: they are written in place, and a group may have got another's."""
    seen: set[int] = set()
    default: Any = optimizer.defaults.get("lr")
    for group in optimizer.param_groups:
        lr: Any = group["lr"]
        if isinstance(lr, Tensor):
            if id(lr) in seen:
                group["lr"] = lr.clone()
            elif lr is default:
                # Not the group's, which a captured optimizer holds on to. Groups that join get the default.
                optimizer.defaults["lr"] = lr.clone()
            seen.add(id(lr))


def found_lrs(lrs: Sequence[Any], before: Sequence[float], written: Sequence[float]) -> tuple[float, ...]:
    """Learning rates as they were set by hand; where nobody has, exactly what the rule had written."""
    return tuple([own if lr == was else float(lr) for lr, was, own in zip(lrs, before, written)])
