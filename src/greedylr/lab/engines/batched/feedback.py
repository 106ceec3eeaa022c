"""The learning rates of many runs: tables where they are known before, controllers where they depend on the loss.

All come from the scheduler objects themselves, or from the batched rule, which equals them bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from greedylr import GreedyLR
from greedylr.control import batched, rule
from greedylr.control.config import Config
from greedylr.control.decision import CUTS, Action
from greedylr.lab.optimizers import OPTIMIZERS
from greedylr.lab.runs import Event, Result, Run
from greedylr.lab.schedulers import SCHEDULERS
from greedylr.lab.setup import FAILURES, learning_rate

Mode = Literal["min", "max"]
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Options = tuple[tuple[str, Any], ...]
"""Options of an optimizer other than the learning rate, by name."""

_CYCLED = ("momentum", "betas")  # What a scheduler may move beside the learning rate.


@dataclass(frozen=True)
class Schedule:
    """A schedule that is known before the run.

    Attributes:
        shares: Of the initial learning rate, at each step.
        options: Other options of the optimizer at each step, the same for all learning rates; empty if they
            stay as they are.
    """

    shares: Floats
    options: tuple[Options, ...]


@lru_cache(maxsize=4096)
def schedule(optimizer: str, scheduler: str, steps: int) -> Schedule:
    """What a fixed scheduler does in a run, found by letting it."""
    stand_in, made = _made(optimizer, 1.0, scheduler, steps, "min")
    group = stand_in.param_groups[0]
    shares: list[float] = []
    options: list[Options] = []
    stand_in.step()  # Does nothing, but schedulers want to see it done.
    for _ in range(steps):
        shares.append(float(group["lr"]))
        options.append(tuple((name, group[name]) for name in _CYCLED if name in group))
        made.step()
    return Schedule(np.array(shares), tuple(options) if len(set(options)) > 1 else ())


class Controller(Protocol):
    """Sets the learning rates of some of the runs.

    Attributes:
        rows: Which runs.
    """

    rows: Rows

    @property
    def lrs(self) -> Floats:
        """Their learning rates now."""

    def observe(self, values: Floats) -> None:
        """Take in one value for each of the runs."""

    def account(self, results: Sequence[Result], observed: Floats) -> None:
        """Add to the results of the runs, once they are over, what became of the learning rate.

        Args:
            results: Of the runs, in their order.
            observed: All that they were given, by step and run.
        """


def controllers(runs: Sequence[Run], mode: Mode) -> Iterator[Controller]:
    """Controllers for those of the runs whose learning rates depend on what is observed."""
    greedy: dict[Config, list[int]] = {}
    others: list[int] = []
    configs: dict[tuple[str, float], Config | None] = {}
    for row, run in enumerate(runs):
        if SCHEDULERS[run.scheduler].kind != "feedback":
            continue
        kind = run.scheduler, run.multiplier
        if kind not in configs:
            made = _of_run(run, mode)[1]
            configs[kind] = made.config if isinstance(made, GreedyLR) else None
        config = configs[kind]
        (others if config is None else greedy.setdefault(config, [])).append(row)
    for config, rows in greedy.items():
        yield _Greedy(config, rows, [learning_rate(runs[row]) for row in rows])
    if others:
        yield _Objects(others, [_of_run(runs[row], mode) for row in others])


class _Greedy:
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


class _Objects:
    """Any schedulers, each the object itself on a stand-in for the run's optimizer."""

    def __init__(self, rows: Sequence[int], made: Sequence[tuple[Optimizer, Any]]) -> None:
        self.rows = np.array(rows)
        self.groups = [optimizer.param_groups[0] for optimizer, _ in made]
        self.schedulers = [scheduler for _, scheduler in made]
        self.steps = 0
        self.failures: dict[int, tuple[int, str]] = {}  # Of which scheduler, at which step, and why.

    @property
    def lrs(self) -> Floats:
        return np.array([float(group["lr"]) for group in self.groups])

    def observe(self, values: Floats) -> None:
        self.steps += 1
        for number, (scheduler, value) in enumerate(zip(self.schedulers, values.tolist())):
            if number in self.failures:
                continue
            try:
                scheduler.step(value)
            except FAILURES as error:
                self.failures[number] = self.steps, f"{type(error).__name__}: {error}"

    def account(self, results: Sequence[Result], observed: Floats) -> None:
        for number, (steps, reason) in self.failures.items():
            result = results[number]
            del result.losses[steps:], result.lrs[steps:], result.clean_losses[steps:]
            validated = sum(step < steps for step in result.validation_steps)
            del result.validation_steps[validated:], result.validation_losses[validated:]
            result.metric, result.failure = None, reason


_EVENTFUL = np.array([action in CUTS | {Action.RAISED, Action.SPIKE} for action in batched.ACTIONS])
"""Whether there may be an event in an action, by its code."""


def _of_run(run: Run, mode: Mode) -> tuple[Optimizer, Any]:
    return _made(run.optimizer, learning_rate(run), run.scheduler, run.steps, mode)


def _made(optimizer: str, lr: float, scheduler: str, steps: int, mode: Mode) -> tuple[Optimizer, Any]:
    stand_in = OPTIMIZERS[optimizer].build([torch.zeros(1)], lr)
    return stand_in, SCHEDULERS[scheduler].build(stand_in, steps, mode)
