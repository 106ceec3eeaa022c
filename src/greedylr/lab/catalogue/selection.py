"""Parts of a suite: runs that meet conditions such as ``task=translation``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.problems.transformers import CORPORA
from greedylr.lab.runs import Run

KEYS = ("problem", "kind", "architecture", "data", "task", "optimizer", "scheduler", "seed")
"""Properties of a run that a condition can be about; the third to fifth are of Transformers' architectures alone."""


def properties(run: Run) -> dict[str, str]:
    """The value of each of :data:`KEYS` that a run has.

    Raises:
        KeyError: If there is no such problem.
    """
    kind = PROBLEMS[run.problem].kind
    found = {"problem": run.problem, "kind": kind, "optimizer": run.optimizer, "scheduler": run.scheduler}
    found["seed"] = str(run.seed)
    if kind == "architecture":
        architecture, _, data = run.problem.partition("-")
        found |= {"architecture": architecture, "data": data, "task": CORPORA[data].kind}
    return found


def select(runs: Iterable[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs that meet conditions, in the same order.

    Args:
        runs: Runs of problems of the catalogue.
        conditions: Each ``KEY=VALUE``, the value with the wildcards of a shell. Of several with one key one must hold;
            of those with different keys all.

    Raises:
        ValueError: If a condition is not of this form, its key is none of :data:`KEYS`, or no run meets all.

    Example:
        >>> runs = [Run("mlp", 1.0, name, 0, 100, "sgd") for name in ("cosine", "cosine-restarts", "linear")]
        >>> [run.scheduler for run in select(runs, ["scheduler=cosine*", "optimizer=sgd"])]
        ['cosine', 'cosine-restarts']
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, pattern = condition.partition("=")
        if key not in KEYS or not equals or not pattern:
            raise ValueError(f"a condition must be KEY=VALUE with a KEY of {', '.join(KEYS)}, got {condition!r}")
        wanted.setdefault(key, []).append(pattern)
    listed = list(runs)
    every = [properties(run) for run in listed]
    for key, patterns in wanted.items():
        values = {found[key] for found in every if key in found}
        for pattern in patterns:
            if not any(fnmatchcase(value, pattern) for value in values):
                there_are = ", ".join(sorted(values)) or "none"
                raise ValueError(f"no run has {key}={pattern}: values of {key} here are {there_are}")
    chosen = [
        run
        for run, found in zip(listed, every)
        if all(any(fnmatchcase(found.get(key, ""), one) for one in patterns) for key, patterns in wanted.items())
    ]
    if not chosen:
        raise ValueError(f"no run meets all of the conditions {' '.join(conditions)}")
    return chosen
