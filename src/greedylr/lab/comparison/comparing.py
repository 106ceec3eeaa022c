"""``compare``: several schedulers on one problem, or on several, or on the user's own training code."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from greedylr.lab.comparison.catalogue import is_fixed, plan, train_planned
from greedylr.lab.comparison.chosen import Chosen, SchedulerFactory, choose
from greedylr.lab.comparison.compared import Compared
from greedylr.lab.comparison.own import run_trials
from greedylr.lab.comparison.trial import Trial
from greedylr.lab.engines.processes import worker_count


def compare(
    training: str | Sequence[str] | Callable[[Trial], object],
    schedulers: Sequence[str] | Mapping[str, str | SchedulerFactory] = ("greedylr", "paper", "cosine", "constant"),
    *,
    seeds: int | Sequence[int] = 3,
    lrs: Sequence[float] | None = None,
    optimizer: str | None = None,
    jobs: int | None = None,
) -> Compared:
    """Train under each scheduler, at each learning rate, from each seed, and compare the first with the others.

    Trainings that differ only in the scheduler start from the same weights and see the same batches, if a training
    function takes all that is random from its trial's seed. ``docs/compare.md`` has examples.

    Args:
        training: The name of a problem that ``greedylr lab list`` knows, or several; or a function that trains. It is
            called with a :class:`Trial` for each scheduler, learning rate and seed, in this process.
        schedulers: Names that ``greedylr lab list`` knows; or a mapping from any name to such a name, or to a function
            ``(optimizer, steps)`` that returns a scheduler. It is told the loss unless its ``step`` takes no argument,
            or an ``epoch``, as torch's fixed schedules do.
        seeds: How many, counted from 0; or which.
        lrs: Initial learning rates. A training function needs them; None: the one that is known to be good for the
            problem.
        optimizer: Name of the optimizer that a problem is trained with; None: AdamW. A function builds its own.
        jobs: Number of cores to train problems on; None: all.

    Returns:
        What came of it: :meth:`~Compared.table`, :meth:`~Compared.plot`, :meth:`~Compared.write`, and the results.

    Raises:
        ValueError: If an argument is outside what is stated above.
        TrialError: If a training function raises something, or does not report what it should; the message names the
            scheduler, the learning rate and the seed, and ``__cause__`` is what was raised.

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
        made = run_trials(training, chosen, rates, which)
        return Compared(tuple(made.results), _names(chosen), made.fixed, absolute=True)
    problems = (training,) if isinstance(training, str) else tuple(training)
    if not problems:
        raise ValueError("training must name a problem, or be a function")
    planned = plan(problems, chosen, rates, which, optimizer or "adamw")
    results = train_planned(planned, chosen, jobs or worker_count(len(planned)))
    fixed = tuple(one.name for one in chosen if is_fixed(one))
    return Compared(tuple(results), _names(chosen), fixed, absolute=rates is not None)


def _names(chosen: Sequence[Chosen]) -> tuple[str, ...]:
    return tuple(one.name for one in chosen)


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    which = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not which or len(set(which)) < len(which):
        raise ValueError(f"seeds must be how many, at least 1, or numbers that differ, got {seeds}")
    return which


def _rates(lrs: Sequence[float]) -> tuple[float, ...]:
    rates = tuple(float(lr) for lr in lrs)
    if not rates or len(set(rates)) < len(rates) or not all(0 < lr < math.inf for lr in rates):
        raise ValueError(f"lrs must be positive finite numbers that differ, got {lrs}")
    return rates
