"""``compare``: several schedulers on one problem, or on several, or on the user's own training code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from greedylr.control.numerals import number, numbers
from greedylr.lab.comparison.chosen import Chosen, SchedulerFactory, choose, is_fixed
from greedylr.lab.comparison.compared import Compared
from greedylr.lab.comparison.on_a_function import run_trials
from greedylr.lab.comparison.on_problems import plan, train_planned
from greedylr.lab.comparison.trial import Trial
from greedylr.lab.execution.engines.processes import worker_count


def compare(
    training: str | Sequence[str] | Callable[[Trial], object],
    schedulers: Sequence[str] | Mapping[str, str | SchedulerFactory] = ("greedylr", "paper", "cosine", "constant"),
    *,
    seeds: int | Sequence[int] = 3,
    lrs: Sequence[float] | None = None,
    optimizer: str | None = None,
    jobs: int | None = None,
    store: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Compared:
    """Train under each scheduler, at each learning rate, from each seed, and compare the first with the others.

    Trainings that differ only in the scheduler start from the same weights and see the same batches, if a training
    function takes all that is random from its trial's seed. ``docs/compare.md`` has examples.

    Args:
        training: The name of a problem that ``greedylr lab list`` knows, or several; or a function that trains. It is
            called with a :class:`Trial` for each scheduler, learning rate and seed, in this process.
        schedulers: Names that ``greedylr lab list`` knows, some with settings, ``paper:factor=0.5``; or a mapping from
            any name to such a name, or to a function ``(optimizer, steps)`` that returns a scheduler. It is told the
            loss if its ``step`` has an argument called ``loss``, ``metrics``, ``metric`` or ``value``, or one that must
            be given and is not called ``epoch``, ``step`` or the like.
        seeds: How many, counted from 0; or which.
        lrs: Initial learning rates. A training function needs them; None: the one that is known to be good for the
            problem.
        optimizer: Name of the optimizer that a problem is trained with; None: AdamW. A function builds its own.
        jobs: Number of cores to train problems on, in processes that do not run the calling script; None: all.
        store: A file to keep the results of a training function in, made if it is not there: what is in it is not
            trained again. Beside it, in a folder of the same name, each trial has one of its own.
        settings: Numbers and words by name: what results depend on beside the function's own lines, such as the name
            of a model. Results with other settings are others.

    Returns:
        What came of it: :meth:`~Compared.table`, :meth:`~Compared.plot`, :meth:`~Compared.write`, and the results.

    Raises:
        ValueError: If an argument is outside what is stated above.
        TrialError: If a training function raises something, or does not report what it should; the message names the
            scheduler, the learning rate and the seed, and ``__cause__`` is what was raised.
        greedylr.lab.execution.store.StoreError: If the store cannot be read or written.

    Example:
        >>> compared = compare("quadratic-100", ("greedylr", "cosine"), seeds=1, jobs=1)
        >>> [result.run.scheduler for result in compared.results]
        ['greedylr', 'cosine']
    """
    chosen = choose(schedulers)
    which = _seeds(seeds)
    rates = None if lrs is None else _rates(lrs)
    if callable(training):
        if rates is None:
            raise ValueError("lrs must be given for a training function: which learning rates are to be tried?")
        for name, given in (("optimizer", optimizer), ("jobs", jobs)):
            if given is not None:
                raise ValueError(f"{name} is for problems of the catalogue; a training function is called as it is")
        kept = None if store is None else Path(store)
        made = run_trials(training, chosen, rates, which, store=kept, settings=_plain(settings))
        return Compared(tuple(made.results), _names(chosen), made.fixed)
    for name, told in (("store", store), ("settings", settings)):
        if told is not None:
            raise ValueError(f"{name} is for a training function; greedylr lab run keeps the results of problems")
    problems = (training,) if isinstance(training, str) else tuple(training)
    if not problems:
        raise ValueError("training must name a problem, or be a function")
    planned = plan(problems, chosen, rates, which, optimizer or "adamw")
    cores = worker_count(len(planned)) if jobs is None else number(jobs)
    if not isinstance(cores, int) or cores < 1:
        raise ValueError(f"jobs must be a number of cores, at least 1, got {jobs!r}")
    results = train_planned(planned, chosen, cores)
    fixed = tuple(one.name for one in chosen if is_fixed(one))
    return Compared(tuple(results), _names(chosen), fixed)


def _plain(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(settings or {})))
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings must be numbers and words by name, got {settings!r}") from error
    return plain


def _names(chosen: Sequence[Chosen]) -> tuple[str, ...]:
    return tuple(one.name for one in chosen)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    count = number(seeds)
    which = range(count) if isinstance(count, int) else [number(seed) for seed in numbers(seeds) or ()]
    kept = tuple(seed for seed in which if isinstance(seed, int) and 0 <= seed < 2**63)  # what torch can be seeded with
    if not kept or len(kept) < len(which) or len(set(kept)) < len(kept):
        raise ValueError(f"seeds must be how many, at least 1, or integers from 0 on that differ, got {seeds!r}")
    return kept


def _rates(lrs: Sequence[float]) -> tuple[float, ...]:
    rates = [number(lr) for lr in numbers(lrs) or ()]
    kept = tuple(float(lr) for lr in rates if lr is not None and 0 < lr < math.inf)
    if not kept or len(kept) < len(rates) or len(set(kept)) < len(kept):
        raise ValueError(f"lrs must be a list of positive finite numbers that differ, got {lrs!r}")
    return kept
