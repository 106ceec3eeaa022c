"""The learning rates of many runs that depend on the loss: controllers, which are told it at every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer

from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.execution.engines.batched.greedy_rows import GreedyRows, config_of
from greedylr.lab.execution.engines.batched.schedules import Floats, Mode, made_for
from greedylr.lab.execution.setup import FAILURES, learning_rate
from greedylr.lab.runs import Result, Run
from greedylr.torch import gradient

if TYPE_CHECKING:  # So that what the rule does is no part of runs of other schedulers.
    from greedylr.control.families import Config

Rows = NDArray[np.intp]


class Controller(Protocol):
    """Sets the learning rates of some of the runs.

    Attributes:
        rows: Which runs.
    """

    rows: Rows

    @property
    def lrs(self) -> Floats:
        """Their learning rates now."""

    def observe(self, values: Floats, norms: Floats | None) -> None:
        """Take in one value for each of the runs.

        Args:
            values: What each is told of its loss.
            norms: That norm of each gradient from which the slope of the loss follows, NaN if it is hidden; None if the
                optimizer is one of which no slope is known, or nobody wants it.
        """

    def account(self, results: Sequence[Result], observed: Floats) -> None:
        """Add to the results of the runs, once they are over, what became of the learning rate.

        Args:
            results: Of the runs, in their order.
            observed: All that they were given, by step and run.
        """


def controllers(runs: Sequence[Run], mode: Mode, order: int | None) -> Iterator[Controller]:
    """Controllers for those of the runs whose learning rates depend on what is observed.

    Args:
        runs: All of one optimizer.
        mode: Whether they are told a loss or a reward.
        order: Of the norms that they are going to be told; None if they are not.
    """
    greedy: dict[Config, list[int]] = {}
    others: list[int] = []
    configs: dict[tuple[str, float], Config | None] = {}
    for row, run in enumerate(runs):
        if SCHEDULERS[run.scheduler].kind != "feedback":
            continue
        kind = run.scheduler, run.multiplier
        if kind not in configs:
            configs[kind] = config_of(_of_run(run, mode)[1])
        config = configs[kind]
        (others if config is None else greedy.setdefault(config, [])).append(row)
    for config, rows in greedy.items():
        per_unit = None
        if order is not None and getattr(config, "hears_slope", False):
            per_unit = gradient.per_unit(
                order, OPTIMIZERS[runs[0].optimizer].build([torch.zeros(1)], 1.0).param_groups[0]
            )
        yield GreedyRows(config, rows, [learning_rate(runs[row]) for row in rows], per_unit)
    if others:
        yield _Objects(others, [_of_run(runs[row], mode) for row in others])


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

    def observe(self, values: Floats, norms: Floats | None) -> None:
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


def _of_run(run: Run, mode: Mode) -> tuple[Optimizer, Any]:
    return made_for(run.optimizer, learning_rate(run), run.scheduler, run.steps, mode)
