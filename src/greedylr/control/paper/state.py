"""State of the published algorithm between two losses: plain data, with an exact round trip through JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from greedylr.control.numerals import LARGEST_INTEGER, finite
from greedylr.control.paper.config import PaperConfig

Condition = tuple[str, str, bool]


@dataclass(slots=True)
class PaperState:
    """Memory of the published algorithm. Losses are signed so that lower is better.

    Attributes:
        initial_lrs: Initial learning rate per parameter group.
        lrs: Learning rate per parameter group now; a new tuple whenever any of them changes.
        step: Losses observed so far.
        value: The last running average.
        reference: What it is compared with: the best so far or the previous one.
        better: Better observations in a row.
        worse: Worse observations in a row.
        cooldown_left: Observations still to be ignored after a cut.
        warmup_left: Observations still to be ignored after a raise.
        reset_left: Cut attempts at the lower bound until the reset.
        losses: The losses in the running average.
        total: Their running sum, as accumulated.
    """

    initial_lrs: tuple[float, ...]
    lrs: tuple[float, ...]
    step: int = 0
    value: float = math.inf
    reference: float = math.inf
    better: int = 0
    worse: int = 0
    cooldown_left: int = 0
    warmup_left: int = 0
    reset_left: int = 500
    losses: list[float] = field(default_factory=list)
    total: float = 0.0


def conditions(config: PaperConfig, state: PaperState) -> Iterator[Condition]:
    """Conditions on every state that the rule makes under ``config``: entry, valid values, and a predicate."""
    yield "step", f"from 0 to {LARGEST_INTEGER}", 0 <= state.step <= LARGEST_INTEGER
    yield "value", "finite, or inf", state.value > -math.inf
    yield "reference", "finite, or inf", state.reference > -math.inf
    limits = {
        "better": (0, config.patience, f"from 0 to patience={config.patience}"),
        "worse": (0, config.patience, f"from 0 to patience={config.patience}"),
        "cooldown_left": (0, config.cooldown, f"from 0 to cooldown={config.cooldown}"),
        "warmup_left": (0, config.warmup, f"from 0 to warmup={config.warmup}"),
        "reset_left": (1, config.reset_start, f"from 1 to reset_start={config.reset_start}"),
    }
    for name, (least, most, valid) in limits.items():
        yield name, valid, least <= getattr(state, name) <= most
    most = config.window_size if config.smooth else 0
    yield "losses", f"{most} at most, the window_size of a running average", len(state.losses) <= most
    yield "losses", "finite", finite(state.losses)
    yield "total", "finite", finite([state.total])
    yield "total", "0 where there are no losses", bool(state.losses) or state.total == 0
