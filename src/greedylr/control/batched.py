"""The same rule over arrays: one independent controller per element, no branch on data, no host read.

Everything is elementwise over the shape of ``initial_lrs``, written against the few functions that
``torch``, ``jax.numpy`` and ``numpy`` share; pass the one that the arrays belong to as ``xp``. The functions
are pure, so they can be compiled, scanned and mapped (a compiler that rearranges arithmetic may change the
last bit). Run as written, in float64 every learning rate and action equals that of the
scalar rule exactly, because each operation is done in the same order; each family's ``step.py`` says why.

Each element has one learning rate. For several parameter groups give each its element and the same loss; the paper
family's reset then looks at each group alone.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from greedylr.control.decision import Action
from greedylr.control.default import arrays as default_arrays
from greedylr.control.default.arrays import DefaultArrays
from greedylr.control.default.config import DefaultConfig
from greedylr.control.families import Config, check_hears_validation, family_of
from greedylr.control.paper import arrays as paper_arrays
from greedylr.control.paper.arrays import PaperArrays

Array = Any
"""An array of ``xp``: ``torch.Tensor``, ``jax.Array``, ``numpy.ndarray``."""

ACTIONS: tuple[Action, ...] = tuple(Action)
"""The actions by the code that :func:`advance` returns."""


Arrays = DefaultArrays | PaperArrays

_ARRAYS = {"default": default_arrays, "paper": paper_arrays}


def start(config: Config, initial_lrs: Array, xp: Any) -> Arrays:
    """The state before the first loss.

    Args:
        config: Settings that all controllers share; its bounds must be numbers.
        initial_lrs: Initial learning rate of each controller, any shape, floating.
        xp: The array namespace of ``initial_lrs``.

    Raises:
        ValueError: If a bound is given per parameter group, or a count is above the largest 32-bit integer.

    Example:
        >>> import torch
        >>> from greedylr.control.paper.config import PaperConfig
        >>> config = PaperConfig.core(0.5)
        >>> state = start(config, torch.tensor([0.1, 0.2], dtype=torch.float64), torch)
        >>> for losses in ([3.0, 3.0], [2.0, 4.0]):
        ...     state, actions = advance(config, state, torch.tensor(losses, dtype=torch.float64), torch)
        >>> state.lrs.tolist(), [ACTIONS[code].name for code in actions]
        ([0.2, 0.1], ['RAISED', 'CUT'])
    """
    check_config(config)
    config = _in_range(config, initial_lrs, xp)
    state: Arrays = _ARRAYS[family_of(config).name].start(config, initial_lrs, xp)
    return state


def check_config(config: Config) -> None:
    """Raise if arrays cannot hold a setting.

    Raises:
        ValueError: If a bound is given per parameter group, or a count is above the largest 32-bit integer.
    """
    for name in ("min_scale", "max_scale", "min_lr", "max_lr"):
        if isinstance(getattr(config, name, 0.0), tuple):
            raise ValueError(f"{name} must be one number for the batched rule, got {getattr(config, name)!r}")
    for field in fields(config):
        value = getattr(config, field.name)
        if field.init and isinstance(value, int) and value > _LARGEST_COUNT:
            raise ValueError(f"{field.name} must be at most {_LARGEST_COUNT} for the batched rule, got {value!r}")


def advance(config: Config, state: Arrays, losses: Array, xp: Any, slopes: Array | None = None) -> tuple[Arrays, Array]:
    """Take in one loss per controller.

    Args:
        config: The settings that ``state`` was started with.
        state: What has been seen so far; not changed.
        losses: One loss per controller, in the shape of ``initial_lrs``; NaN and infinities are observations too.
        xp: The array namespace of all.
        slopes: What each loss would fall by in one step at the initial learning rate, as in
            :func:`greedylr.control.rule.observe`; NaN where it is not known. None: nowhere.

    Returns:
        The new state, with the learning rates for the next optimizer step in ``lrs``, and what
        happened to each controller, as an index into :data:`ACTIONS`.
    """
    config = _in_range(config, losses, xp)
    losses = -losses if config.mode == "max" else losses
    new, actions = _ARRAYS[family_of(config).name].advance(config, state, losses, slopes, xp)
    return new, actions


def validate(config: Config, state: Arrays, losses: Array, xp: Any) -> Arrays:
    """Take in one validation loss per controller, as :func:`greedylr.control.rule.validate` does.

    Args:
        config: The settings that ``state`` was started with, with ``await_validation``.
        state: What has been seen so far; not changed.
        losses: One validation loss per controller, in the shape of ``initial_lrs``.
        xp: The array namespace of all.

    Raises:
        TypeError: If the settings are of the paper family.
        ValueError: If they are without ``await_validation``.
    """
    check_hears_validation(config)
    assert isinstance(config, DefaultConfig)
    assert isinstance(state, DefaultArrays)
    return default_arrays.validate(config, state, -losses if config.mode == "max" else losses, xp)


_LARGEST_COUNT = 2**31 - 1


def _in_range(config: Config, array: Array, xp: Any) -> Config:
    """The settings, with the nearest that the array's type can hold: in single precision 1e39 would be infinite."""
    range_ = xp.finfo(array.dtype)
    least, most = float(range_.tiny), float(range_.max) / 2  # of which the double is finite too
    changes: dict[str, Any] = {}
    for name in _ARRAYS[family_of(config).name].REAL_SETTINGS:
        value = getattr(config, name)
        if most < value < math.inf or 0 < value < least:
            changes[name] = most if value > most else least
    return replace(config, **changes) if changes else config
