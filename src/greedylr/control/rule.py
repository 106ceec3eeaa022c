r"""The rule: observe one loss, decide on the learning rate. The one entrance to both families.

:func:`observe` maps (config, state, loss) to a decision and touches nothing but the state: no
optimizer, no printing, no clock. The same losses give the same decisions, bit for bit.

Example:
    >>> from greedylr.control.paper.config import PaperConfig
    >>> config = PaperConfig.core(factor=0.5)
    >>> state = start(config, [0.1])
    >>> [observe(config, state, loss).lr_after[0] for loss in (3.0, 2.0, 2.5, 2.5)]
    [0.1, 0.2, 0.1, 0.05]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from greedylr.control.decision import Action, Decision
from greedylr.control.default import step as default
from greedylr.control.default.config import DefaultConfig
from greedylr.control.default.state import DefaultState
from greedylr.control.families import FAMILIES, Config, State, check_hears_validation, family_of
from greedylr.control.numerals import number
from greedylr.control.settings import check_groups, with_another_group


def start(config: Config, initial_lrs: Iterable[float]) -> State:
    """The state before the first loss.

    Args:
        config: The settings.
        initial_lrs: Initial learning rate of each parameter group, at least 0 and finite.

    Raises:
        ValueError: If a learning rate is negative or not finite, now or times ``max_scale``; if there is none; or if
            the settings have a bound per group for another number of groups.
        TypeError: If a learning rate is no number.
    """
    given = list(initial_lrs)
    found = [lr for lr in map(number, given) if lr is not None]
    if len(found) < len(given):
        raise TypeError(f"initial_lrs must be numbers, got {given!r}")
    if not found:
        raise ValueError("initial_lrs must have one learning rate per parameter group, got none")
    check_lrs(config, found)
    lrs = tuple(map(float, found))
    state: State = family_of(config).step.start(config, lrs)
    return state


def advancer(config: Config) -> Callable[..., Action]:
    """:func:`observe` of this config's family without the decision around it, for the hot path.

    It takes in one loss, and its slope if known, changes the state as :func:`observe` does, and returns the action.
    """
    advance: Callable[..., Action] = family_of(config).step.advance
    return advance


def observe(config: Config, state: State, loss: float, slope: float = math.nan) -> Decision:
    """Take in one loss and decide.

    Args:
        config: The settings that ``state`` was started with.
        state: What has been seen so far; changed in place.
        loss: The loss, in any unit. NaN and infinities are observations too.
        slope: What that loss would fall by in one optimizer step at the initial learning rates, if it fell as steeply
            as it begins to; at least 0. NaN: not known. The paper family does not look at it.

    Returns:
        What was decided, why, and the learning rates for the next optimizer step.
    """
    if loss.__class__ is not float:
        loss = float(loss)
    decision: Decision = _OBSERVE[config.__class__](config, state, loss, slope)
    return decision


# Looked up at every step that somebody watches.
_OBSERVE: dict[type, Callable[[Any, Any, float, float], Decision]] = {
    family.config: family.step.observe for family in FAMILIES.values()
}


def validate(config: Config, state: State, loss: float) -> None:
    """Take in a validation loss; what it means for the learning rates is in the next decision.

    Args:
        config: The settings that ``state`` was started with, with ``await_validation``.
        state: What has been seen so far; changed in place.
        loss: The validation loss, in any unit, lower or, in mode ``max``, higher being better. One that is not finite
            is worse than any other.

    Raises:
        TypeError: If the settings are of the paper family, which has no ear for it.
        ValueError: If they are without ``await_validation``.
    """
    check_hears_validation(config)
    assert isinstance(config, DefaultConfig)
    assert isinstance(state, DefaultState)
    default.validate(config, state, float(loss))


def add_group(config: Config, state: State, initial_lr: float) -> Config:
    """Take in a parameter group that was added after the start.

    Returns:
        The settings from now on: a bound per group has one more, the widest of those that were given.

    Raises:
        ValueError: If the learning rate is negative or not finite.
    """
    check_lr(initial_lr)
    config = with_another_group(config)
    family_of(config).step.add_group(config, state, initial_lr)
    return config


def set_horizon(config: DefaultConfig, state: DefaultState, total_steps: int | None) -> DefaultConfig:
    """Change the length of a run that is under way. The next decision that would be a hold tells of it.

    Args:
        config: The settings in force.
        state: What has been seen so far; its learning rates are those of the new horizon afterwards.
        total_steps: Observations in the whole run, those so far included. None: open-ended.

    Returns:
        The settings from now on. The lengths of warmup, climb and windows stay what they were.

    Raises:
        TypeError: If ``total_steps`` is no integer.
        ValueError: If it is less than 1.

    Example:
        >>> from greedylr.control.default.config import DefaultConfig
        >>> config = DefaultConfig(total_steps=10, warmup_steps=0, min_scale=0)
        >>> state = start(config, [0.1])
        >>> decisions = [observe(config, state, 1.0) for _ in range(10)]
        >>> state.lrs
        (0.0,)
        >>> config = set_horizon(config, state, 30)
        >>> state.lrs, observe(config, state, 1.0).action.name
        ((0.07407407407407407,), 'HORIZON')
    """
    return default.set_horizon(config, state, total_steps)


def resume(config: Config, then: State, step: int, factor: float) -> State:
    """The memory of an earlier step, to go on with at a later one: what came in between has not happened.

    Args:
        config: The settings in force.
        then: The memory of the earlier step; not changed.
        step: Losses observed by now: a horizon stays where it is.
        factor: What the learning rates are multiplied by, within their bounds, in (0, 1].

    Returns:
        A state of its own.
    """
    state: State = family_of(config).step.resume(config, then, step, factor)
    return state


def take_over(config: Config, state: State, lrs: Iterable[float], written: Iterable[float]) -> None:
    """Let learning rates count that somebody else has set.

    Before the first loss they are the initial ones. Later the initial one of each group is multiplied as its learning
    rate was, so that the rule goes on from there, and the bounds that are multiples of the initial one move along. In
    the paper family, whose bounds are absolute, the learning rate alone is another.

    Args:
        config: The settings in force.
        state: Changed in place.
        lrs: Learning rate of each group as somebody else has set it.
        written: What the rule had set last.

    Raises:
        ValueError: If a learning rate is negative or not finite. Nothing has changed then.
    """
    family_of(config).step.take_over(state, _checked(lrs), written)


def rebase(config: Config, state: State, lrs: Iterable[float], written: Iterable[float]) -> None:
    """Do as :func:`take_over`, where the rule has moved since: the learning rates are the move on top of what was set.

    Raises:
        ValueError: If a learning rate is negative or not finite. Nothing has changed then.
    """
    family_of(config).step.rebase(config, state, _checked(lrs), written)


def _checked(lrs: Iterable[float]) -> tuple[float, ...]:
    found = tuple(map(float, lrs))
    for lr in found:
        check_lr(lr)
    return found


def check_lrs(config: Config, initial_lrs: Sequence[float]) -> None:
    """Raise if these cannot be the initial learning rates of the parameter groups.

    Raises:
        ValueError: If one of them is negative or not finite, now or times ``max_scale``, or if the settings have a
            bound per group for another number of groups.
    """
    for lr in initial_lrs:
        check_lr(lr)
    check_groups(config, len(initial_lrs))
    family_of(config).step.check_lrs(config, initial_lrs)


def check_lr(lr: float) -> None:
    """Raise if ``lr`` cannot be a learning rate.

    Raises:
        ValueError: If it is negative or not finite.
    """
    if not 0 <= lr <= sys.float_info.max:
        raise ValueError(f"a learning rate must be a finite number of at least 0, got {lr!r}")
