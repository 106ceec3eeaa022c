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
from greedylr.lab.execution.engines.batched.account import Account
from greedylr.lab.execution.engines.batched.greedy_rows import GreedyRows, config_of
from greedylr.lab.execution.engines.batched.schedules import Floats, Mode, made_for
from greedylr.lab.execution.setup import FAILURES, learning_rate
from greedylr.lab.results import moves
from greedylr.lab.runs import Run

if TYPE_CHECKING:  # So that what the rule does is no part of runs of other schedulers.
    from greedylr.control.families import Config

Rows = NDArray[np.intp]


class Controller(Protocol):
    """Sets the learning rates of some of the runs.

    Attributes:
        rows: Which runs.
        order: Of the norms of the gradient that it is to be told; None if it does not look at them.
    """

    rows: Rows
    order: int | None

    @property
    def lrs(self) -> Floats:
        """Their learning rates now."""

    def observe(self, values: Floats, norms: Floats | None) -> None:
        """Take in one value for each of the runs.

        Args:
            values: What each is told of its loss.
            norms: Of the gradients, as :func:`greedylr.torch.gradient.norm_order` has them, NaN where one is hidden;
                None if no controller looks at them.
        """

    def validate(self, losses: Floats) -> None:
        """Take in one validation loss for each of the runs."""

    def accounts(self, lrs: Floats, observed: Floats) -> Iterator[Account]:
        """Account of the learning rate of each run, in their order; to be asked once they are over.

        Args:
            lrs: Those before each step, and after the last, by step and run.
            observed: All that they were given, by step and run.
        """


def controllers(runs: Sequence[Run], mode: Mode) -> Iterator[Controller]:
    """Controllers for those of the runs, all of one optimizer, whose learning rates depend on what is observed."""
    greedy: dict[Config, list[int]] = {}
    others: list[int] = []
    configs: dict[tuple[str, float, bool], Config | None] = {}
    for row, run in enumerate(runs):
        if SCHEDULERS[run.scheduler].kind != "feedback":
            continue
        kind = run.scheduler, run.multiplier, run.absolute
        if kind not in configs:
            configs[kind] = config_of(_of_run(run, mode)[1])
        config = configs[kind]
        (others if config is None else greedy.setdefault(config, [])).append(row)
    optimizer = OPTIMIZERS[runs[0].optimizer].build([torch.zeros(1)], 1.0)
    for config, rows in greedy.items():
        yield GreedyRows(config, rows, [learning_rate(runs[row]) for row in rows], optimizer)
    if others:
        tell = [SCHEDULERS[runs[row].scheduler].moves_for_the_loss for row in others]
        yield _Objects(others, [_of_run(runs[row], mode) for row in others], tell, mode)


class _Objects:
    """Any schedulers, each the object itself on a stand-in for the run's optimizer."""

    order: int | None = None

    def __init__(
        self, rows: Sequence[int], made: Sequence[tuple[Optimizer, Any]], tell: Sequence[bool], mode: Mode
    ) -> None:
        self.rows, self.tell, self.mode = np.array(rows), tell, mode  # Whether their learning rates tell of the loss.
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

    def validate(self, losses: Floats) -> None:
        """None of them asks for it."""

    def accounts(self, lrs: Floats, observed: Floats) -> Iterator[Account]:
        for number in range(len(self.rows)):
            steps, reason = self.failures.get(number, (None, None))
            last = len(observed) if steps is None else steps
            told = observed[:last, number].tolist(), lrs[: last + 1, number].tolist()
            yield Account({"mode": self.mode}, moves(*told) if self.tell[number] else [], reason, steps)


def _of_run(run: Run, mode: Mode) -> tuple[Optimizer, Any]:
    return made_for(run.optimizer, learning_rate(run), run.scheduler, run.steps, mode)
