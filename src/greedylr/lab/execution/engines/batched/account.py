"""Account of what a scheduler made of a run, given once the run is over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from greedylr import Decision


class Account(NamedTuple):
    """Course of the learning rate of one run, in short.

    Attributes:
        config: The scheduler's settings, as a record has them.
        decisions: Every raise, cut and spike, in order.
        failure: Why it broke down, if it did.
        steps: The last step before it broke down; None: it did not.
    """

    config: Mapping[str, Any]
    decisions: list[Decision]
    failure: str | None = None
    steps: int | None = None
