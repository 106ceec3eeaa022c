"""The rule of this package for many runs at once: the batched rule, which equals the scheduler bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.optim import Optimizer

from greedylr import GreedyLR
from greedylr.control import batched, rule
from greedylr.control.decision import CUTS, Action, Decision
from greedylr.control.families import Config, hears_validation
from greedylr.lab.execution.engines.batched.account import Account
from greedylr.lab.execution.engines.batched.schedules import Floats
from greedylr.lab.results import is_notable
from greedylr.pulse.recording.storage import settings
from greedylr.torch.gradient import norm_order, per_unit


def config_of(scheduler: Any) -> Config | None:
    """The settings of a scheduler of this package; None of any other."""
    return scheduler.config if isinstance(scheduler, GreedyLR) else None


_NOTABLE = np.array([action in CUTS | {Action.RAISED, Action.SPIKE} for action in batched.ACTIONS])
"""True where a decision may be notable, by its code."""


class GreedyRows:
    """The batched rule."""

    def __init__(self, config: Config, rows: Sequence[int], initial_lrs: Sequence[float], optimizer: Optimizer) -> None:
        self.config, self.rows, self.initial_lrs = config, np.array(rows), initial_lrs
        self.order = norm_order(optimizer) if config.hears_slope else None
        if self.order is not None:
            self.slope_per_norm = per_unit(self.order, optimizer.param_groups[0]) * np.array(initial_lrs)
        # NumPy, because on arrays this small a call costs a third of torch's.
        self.state = batched.start(config, np.array(initial_lrs), np)
        self.notable: list[NDArray[np.bool_]] = []
        self.slopes: list[Floats] = []
        self.validations: dict[int, Floats] = {}  # By the number of steps before.

    @property
    def lrs(self) -> Floats:
        lrs: Floats = self.state.lrs
        return lrs

    def observe(self, values: Floats, norms: Floats | None) -> None:
        slopes = None if self.order is None or norms is None else self.slope_per_norm * norms
        if slopes is not None:
            self.slopes.append(slopes)
        with np.errstate(all="ignore"):
            self.state, codes = batched.advance(self.config, self.state, values, np, slopes)
        self.notable.append(_NOTABLE[codes])

    def validate(self, losses: Floats) -> None:
        if hears_validation(self.config):
            self.validations[len(self.notable)] = losses
            with np.errstate(all="ignore"):
                self.state = batched.validate(self.config, self.state, losses, np)

    def accounts(self, lrs: Floats, observed: Floats) -> Iterator[Account]:
        notable = np.array(self.notable)
        slopes = np.array(self.slopes) if self.slopes else np.full(observed.shape, np.nan)
        config = settings(self.config)
        for row, lr in enumerate(self.initial_lrs):
            # Replaying costs more than training a small model does; behind the last of them there is nothing to tell.
            last = max(np.flatnonzero(notable[:, row]), default=-1) + 1
            of_row = zip(*(of_runs[:last, row].tolist() for of_runs in (observed, slopes, notable)))
            yield Account(config, list(self._replay(row, lr, of_row)))

    def _replay(self, row: int, lr: float, observed: Iterable[tuple[float, float, bool]]) -> Iterator[Decision]:
        """The notable decisions of one run: from the scalar rule, which decides the same and says why."""
        state, advance = rule.start(self.config, [lr]), rule.advancer(self.config)
        for step, (value, slope, may_be) in enumerate(observed):
            if step in self.validations:
                rule.validate(self.config, state, float(self.validations[step][row]))
            if may_be:
                decision = rule.observe(self.config, state, value, slope)
                if is_notable(decision):
                    yield decision
            else:
                advance(self.config, state, value, slope)
