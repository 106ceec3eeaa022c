"""Suites: which runs together answer a question. One entry each; all else is in the registries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from greedylr.lab.problems import PROBLEMS
from greedylr.lab.runs import Run
from greedylr.lab.schedulers import SCHEDULERS


@dataclass(frozen=True)
class Suite:
    """Every scheduler with every optimizer, at every learning rate and for every seed, on every problem.

    Attributes:
        name: Identifier, on the command line.
        note: What it is for, in a line.
        problems: Names of problems.
        multipliers: Initial learning rates, as multiples of the good one.
        seeds: How many, from 0: those that learning rates were tuned with begin at 100.
        optimizers: Names of optimizers.
        schedulers: Names of schedulers; with an optimizer that one does not suit it is left out.
        perturbations: Names of perturbations.
    """

    name: str
    note: str
    problems: tuple[str, ...]
    multipliers: tuple[float, ...]
    seeds: int
    optimizers: tuple[str, ...] = ("adamw",)
    schedulers: tuple[str, ...] = tuple(SCHEDULERS)
    perturbations: tuple[str, ...] = ("none",)

    def runs(self) -> list[Run]:
        """The runs, seed by seed."""
        every = product(
            range(self.seeds), self.problems, self.optimizers, self.multipliers, self.perturbations, self.schedulers
        )
        return [
            Run(problem, multiplier, scheduler, seed, PROBLEMS[problem].steps, optimizer, perturbation)
            for seed, problem, optimizer, multiplier, perturbation, scheduler in every
            if SCHEDULERS[scheduler].suits(optimizer)
        ]


def _of_kind(kind: str) -> tuple[str, ...]:
    return tuple(problem.name for problem in PROBLEMS.values() if problem.kind == kind)


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "quick",
            "a first look: small problems, eight schedulers; two minutes on two cores",
            problems=("quadratic-noisy", "mlp", "residual-mlp", "gru", "digits"),
            multipliers=(0.1, 1.0, 10.0),
            seeds=3,
            schedulers=(
                "greedylr",
                "greedylr-open",
                "paper",
                "constant",
                "linear",
                "cosine",
                "wsd",
                "schedule-free",
            ),
        ),
        Suite(
            "breadth-small",
            "every scheduler on every problem that learns, at learning rates from far too low to far too high",
            problems=_of_kind("learned"),
            multipliers=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
            seeds=3,
            optimizers=("sgd", "adamw", "adafactor"),
        ),
        Suite(
            "boundary",
            "every scheduler where the loss is a poor guide: domains that alternate, experts, rewards, tasks in turn",
            problems=_of_kind("boundary"),
            multipliers=(0.1, 1.0, 10.0),
            seeds=5,
        ),
    )
}
"""Every suite by its name."""
