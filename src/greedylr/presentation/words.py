"""Words that all texts share."""

from __future__ import annotations


def count(number: int, thing: str) -> str:
    """A number of things.

    Example:
        >>> count(1, "move"), count(0, "move"), count(1200, "move")
        ('1 move', '0 moves', '1,200 moves')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
