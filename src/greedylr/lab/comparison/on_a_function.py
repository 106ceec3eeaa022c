"""The user's own training code, called for every scheduler, learning rate and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greedylr.lab.analysis.statistics.outcome import UNLIKE
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.comparison.chosen import Chosen
from greedylr.lab.comparison.trial import Trial, TrialError, run_trial
from greedylr.lab.runs import Result


@dataclass(frozen=True)
class Trials:
    """Outcome of a training function.

    Attributes:
        results: One for each trial.
        fixed: Names of the schedulers that go by the step alone.
    """

    results: list[Result]
    fixed: tuple[str, ...]


def run_trials(
    function: Callable[[Trial], object], chosen: Sequence[Chosen], lrs: Sequence[float], seeds: Sequence[int]
) -> Trials:
    """Call a training function once for each scheduler, learning rate and seed, one after the other.

    Args:
        function: Trains, and reports to the trial that it is given.
        chosen: The schedulers.
        lrs: Initial learning rates.
        seeds: The seeds.

    Raises:
        ValueError: If a scheduler is a whole optimizer.
        TrialError: If a trial raises something, or does not report what it should, or trials that differ only in the
            scheduler do not start alike.
    """
    for one in chosen:
        if one.registered is not None and SCHEDULERS[one.registered].kind == "optimizer":
            raise ValueError(
                f"schedulers: {one.registered} is a whole optimizer, and a training function builds its own; it can be "
                "compared on the problems of the catalogue"
            )
    name = getattr(function, "__name__", type(function).__name__)
    trials = [Trial(one, lr, seed) for seed in seeds for lr in lrs for one in chosen]
    results: list[Result] = []
    for number, trial in enumerate(trials):
        results.append(run_trial(function, name, trial))
        _check_alike(results[number - number % len(chosen)], results[-1])
    return Trials(results, tuple(dict.fromkeys(trial.scheduler for trial in trials if trial.fixed)))


def _check_alike(first: Result, other: Result) -> None:
    """Raise if two trials that differ only in the scheduler cannot be compared."""
    run = other.run
    where = f"{first.run.scheduler} and {run.scheduler} at lr {run.multiplier:g}, seed {run.seed}"
    if first.run.steps != run.steps or first.run.optimizer != run.optimizer:
        raise TrialError(f"{where}: trials must have the same steps and optimizer whatever the scheduler")
    starts = first.validation_losses[0], other.validation_losses[0]
    if abs(starts[0] - starts[1]) > UNLIKE * max(map(abs, starts)):
        raise TrialError(
            f"{where}: they start from the losses {starts[0]:g} and {starts[1]:g}, and must start alike: seed all that "
            "is random with trial.seed"
        )
