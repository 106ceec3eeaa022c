"""The demonstration: two real problems, three learning rates, four schedulers, a few seeds."""

from __future__ import annotations

from greedylr.lab.catalogue import problems, schedulers
from greedylr.lab.runs import Run

PROBLEMS = {name: problems.PROBLEMS[name] for name in ("digits", "stdlib-text")}
"""Problems of the demonstration."""

SCHEDULERS = {name: schedulers.SCHEDULERS[name] for name in ("greedylr", "paper", "cosine", "constant")}
"""Schedulers of the demonstration."""

MULTIPLIERS = (0.1, 1.0, 10.0)
"""Initial learning rates, as multiples of each problem's good one."""

SEEDS = 2
"""Seeds of a full demonstration."""

QUICK_SEEDS = 1
"""Seeds of a smoke run."""

_QUICK = 10  # A smoke run is this many times shorter.


def plan(seeds: int, quick: bool = False) -> list[Run]:
    """The runs of the demonstration.

    Args:
        seeds: Number of seeds, at least 1.
        quick: Whether to train for a tenth of the steps: enough to see everything work, too little to judge.
    """
    return [
        Run(problem.name, multiplier, scheduler, seed, problem.steps // (_QUICK if quick else 1))
        for seed in range(seeds)
        for multiplier in MULTIPLIERS
        for scheduler in SCHEDULERS
        for problem in PROBLEMS.values()
    ]
