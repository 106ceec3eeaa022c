"""The rule of this package for many runs at once: the batched rule, which equals the scheduler bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greedylr import GreedyLR
from greedylr.control import batched, rule
from greedylr.control.decision import CUTS, Action
from greedylr.control.families import Config
from greedylr.lab.execution.engines.batched.schedules import Floats
from greedylr.lab.runs import Event, Result


def config_of(scheduler: Any) -> Config | None:
    """The settings of a scheduler of this package; None of any other."""
    return scheduler.config if isinstance(scheduler, GreedyLR) else None


_EVENTFUL = np.array([action in CUTS | {Action.RAISED, Action.SPIKE} for action in batched.ACTIONS])
"""Whether there may be an event in an action, by its code."""


class GreedyRows:
    """The batched rule."""

    def __init__(self, config: Config, rows: Sequence[int], initial_lrs: Sequence[float]) -> None:
        self.config, self.rows, self.initial_lrs = config, np.array(rows), initial_lrs
        # NumPy, because on arrays this small a call costs a third of torch's.
        self.state = batched.start(config, np.array(initial_lrs), np)
        self.eventful: list[NDArray[np.bool_]] = []

    @property
    def lrs(self) -> Floats:
        lrs: Floats = self.state.lrs
        return lrs

    def observe(self, values: Floats) -> None:
        with np.errstate(all="ignore"):
            self.state, codes = batched.advance(self.config, self.state, values, np)
        self.eventful.append(_EVENTFUL[codes])

    def account(self, results: Sequence[Result], observed: Floats) -> None:
        eventful = np.array(self.eventful)
        for row, (result, lr) in enumerate(zip(results, self.initial_lrs)):
            result.events.extend(self._replay(lr, observed[:, row].tolist(), eventful[:, row].tolist()))

    def _replay(self, lr: float, values: Sequence[float], eventful: Sequence[bool]) -> Iterator[Event]:
        """The events of one run: from the scalar rule, which decides the same and says why."""
        state, advance = rule.start(self.config, [lr]), rule.advancer(self.config)
        for value, has_event in zip(values, eventful):
            if has_event:
                event = Event.of(rule.observe(self.config, state, value))
                if event is not None:
                    yield event
            else:
                advance(self.config, state, value)
