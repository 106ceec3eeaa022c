"""Check that the rule can have made a state: from such a state it can always go on."""

from __future__ import annotations

from reprlib import repr as short

from greedylr.control.families import Config, State, family_of
from greedylr.control.rule import check_lr, check_lrs


def check_state(config: Config, state: State) -> None:
    """Raise if the rule has not made ``state`` under ``config``.

    Args:
        config: Settings of the family.
        state: Of the same family, its entries of the right kinds.

    Raises:
        ValueError: If it is none; entry, value, and what would be valid are named.
    """
    groups = len(state.initial_lrs), len(state.lrs)
    if not 1 <= groups[0] == groups[1]:
        raise ValueError(f"the saved state has {groups[0]} and {groups[1]} parameter groups")
    check_lrs(config, state.initial_lrs)
    for lr in state.lrs:
        check_lr(lr)
    for name, valid, holds in family_of(config).conditions(config, state):
        if not holds:
            raise ValueError(f"{name} in the saved state must be {valid}, got {short(getattr(state, name))}")
