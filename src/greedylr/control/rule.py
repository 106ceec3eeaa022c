r"""The rule: observe one loss, decide on the learning rate. The one entrance to both families.

:func:`observe` maps (config, state, loss) to a decision and touches nothing but the state: no
optimizer, no printing, no clock. The same losses give the same decisions, bit for bit.

Example:
    >>> from greedylr.control.config import PaperConfig
    >>> config = PaperConfig.core(factor=0.5)
    >>> state = start(config, [0.1])
    >>> [observe(config, state, loss).lr_after[0] for loss in (3.0, 2.0, 2.5, 2.5)]
    [0.1, 0.2, 0.1, 0.05]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from greedylr.control import default, paper
from greedylr.control.config import Config, DefaultConfig, check_groups
from greedylr.control.decision import Action, Decision
from greedylr.control.state import DefaultState, PaperState, State

# Looked up at every step that somebody watches.
_GATHERING, _CLIMBING = Action.GATHERING, Action.CLIMBING
_new = tuple.__new__


def start(config: Config, initial_lrs: Iterable[float]) -> State:
    """The state before the first loss.

    Args:
        config: The settings.
        initial_lrs: Initial learning rate of each parameter group, at least 0 and finite.

    Raises:
        ValueError: If a learning rate is negative or not finite, if there is none, or if the settings
            have a bound per group for another number of groups.
    """
    lrs = tuple(map(float, initial_lrs))
    if not lrs:
        raise ValueError("initial_lrs must have one learning rate per parameter group, got none")
    for lr in lrs:
        check_lr(lr)
    check_groups(config, len(lrs))
    return default.start(config, lrs) if isinstance(config, DefaultConfig) else paper.start(config, lrs)


def advancer(config: Config) -> Callable[[Any, Any, float], Action]:
    """:func:`observe` of this config's family without the decision around it, for the hot path.

    It takes in one loss, changes the state as :func:`observe` does, and returns the action alone.
    """
    return default.advance if isinstance(config, DefaultConfig) else paper.advance


def observe(config: Config, state: State, loss: float) -> Decision:
    """Take in one loss and decide.

    Args:
        config: The settings that ``state`` was started with.
        state: What has been seen so far; changed in place.
        loss: The loss, in any unit. NaN and infinities are observations too.

    Returns:
        What was decided, why, and the learning rates for the next optimizer step.
    """
    memory: Any = state  # of the config's family
    before = memory.lrs
    if isinstance(config, DefaultConfig):
        ceiling = memory.ceiling
        action = default.advance(config, memory, loss)
        silent = action is _GATHERING or action is _CLIMBING
        numbers = {} if silent else default.evidence(config, memory, ceiling, action)
    else:
        reference = memory.reference
        action = paper.advance(config, memory, loss)
        numbers = paper.evidence(config, memory, loss, reference, action)
    # As Decision(...) does, in half the time.
    return _new(Decision, (memory.step, loss, action, before, memory.lrs, numbers))


def add_group(config: Config, state: State, initial_lr: float) -> None:
    """Take in a parameter group that was added after the start.

    Raises:
        ValueError: If the learning rate is negative or not finite, or if the settings have a bound per group.
    """
    check_lr(initial_lr)
    check_groups(config, len(state.initial_lrs) + 1)
    if isinstance(config, DefaultConfig):
        assert isinstance(state, DefaultState)
        default.add_group(config, state, initial_lr)
    else:
        assert isinstance(state, PaperState)
        paper.add_group(config, state, initial_lr)


def check_lr(lr: float) -> None:
    """Raise if ``lr`` cannot be a learning rate.

    Raises:
        ValueError: If it is negative or not finite.
    """
    if not (lr >= 0 and math.isfinite(lr)):
        raise ValueError(f"a learning rate must be a finite number of at least 0, got {lr!r}")
