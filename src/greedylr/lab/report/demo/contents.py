"""The demonstration: the suite ``demo``, with as many seeds as one likes, or shorter."""

from __future__ import annotations

from dataclasses import replace

from greedylr.lab.catalogue import problems, schedulers
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.runs import Run

SUITE = SUITES["demo"]

PROBLEMS = {name: problems.PROBLEMS[name] for name in SUITE.problems}
"""Problems of the demonstration."""

SCHEDULERS = {name: schedulers.SCHEDULERS[name] for name in SUITE.schedulers}
"""Schedulers of the demonstration."""

_QUICK_SEEDS = 1
_QUICK = 10  # A smoke run is this many times shorter.


def plan(seeds: int | None = None, quick: bool = False) -> list[Run]:
    """The runs of the demonstration.

    Args:
        seeds: Number of seeds, at least 1; None for as many as suit.
        quick: Whether to train for a tenth of the steps: enough to see everything work, too little to judge.
    """
    suite = replace(SUITE, seeds=seeds or (_QUICK_SEEDS if quick else SUITE.seeds))
    return [run._replace(steps=run.steps // _QUICK) if quick else run for run in suite.runs()]
