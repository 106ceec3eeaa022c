"""The user's own training code, called for every scheduler, learning rate and seed."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from greedylr.lab.analysis.statistics.outcome import UNLIKE
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.comparison.chosen import Chosen, is_fixed
from greedylr.lab.comparison.trial import Trial, TrialError, run_trial
from greedylr.lab.execution.engines.processes import each
from greedylr.lab.execution.fingerprint import key_of, settings_of_function
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result
from greedylr.lab.runs import OWN
from greedylr.torch.distributed import is_active, is_main


@dataclass(frozen=True)
class Trials:
    """Outcome of a training function.

    Attributes:
        results: One for each trial.
        fixed: Names of the schedulers that go by the step alone.
        folders: Where each trial keeps what is its own.
    """

    results: list[Result]
    fixed: tuple[str, ...]
    folders: list[Path]


class Planned(NamedTuple):
    """A trial that is to be run.

    Attributes:
        function: Trains.
        problem: What the training is called.
        chosen: The scheduler.
        lr: The initial learning rate.
        seed: The seed.
        about: All that the result depends on.
        folder: Where the trial keeps what is its own.
    """

    function: Callable[[Trial], object]
    problem: str
    chosen: Chosen
    lr: float
    seed: int
    about: dict[str, Any]
    folder: Path


def run_trials(
    function: Callable[[Trial], object],
    chosen: Sequence[Chosen],
    lrs: Sequence[float],
    seeds: Sequence[int],
    *,
    store: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    jobs: int = 1,
    done: Callable[[Result, bool], None] = lambda result, before: None,
    watch: Callable[[float], None] = lambda share: None,
) -> Trials:
    """Call a training function once for each scheduler, learning rate and seed.

    Args:
        function: Trains, and reports to the trial that it is given.
        chosen: The schedulers.
        lrs: Initial learning rates.
        seeds: The seeds.
        store: Where results are kept, and taken from where they are there already; None: nowhere.
        settings: What results depend on beside the function's own code, as plain data.
        jobs: Number of processes; with more than one, the function is pickled, and is of a module.
        done: Called with each result, and whether it was there before.
        watch: Called after every step with the share of the trial that is done; not from other processes.

    Raises:
        ValueError: If a scheduler is a whole optimizer.
        TrialError: If a trial raises something, or does not report what it should, or trials that differ only in the
            scheduler do not start alike.
        greedylr.lab.execution.store.StoreError: If the store cannot be read or written.
    """
    for one in chosen:
        if one.registered is not None and SCHEDULERS[one.registered].kind == "optimizer":
            raise ValueError(
                f"schedulers: {one.registered} is a whole optimizer, and a training function builds its own; it can be "
                "compared on the problems of the catalogue"
            )
    with _folder_for(store) as folder:
        planned = [
            _plan(function, one, lr, seed, settings or {}, folder) for seed in seeds for lr in lrs for one in chosen
        ]
        # Of several ranks, the first keeps; what it has, no rank trains.
        keeps = store is not None and is_main()
        with Store(store) if store is not None and keeps else contextlib.nullcontext() as kept:
            found = {} if kept is None else {key_of(one.about): kept.find(one.about) for one in planned}
            results = {name: result for name, result in _as_the_first_rank(found).items() if result is not None}
            for result in results.values():
                done(result, True)

            def keep(answer: tuple[Planned, Result]) -> None:
                trained, result = answer
                results[key_of(trained.about)] = result
                _check_all_alike(planned, results, trained)
                if kept is not None:
                    kept.save(result, trained.about)
                for checkpoint in trained.folder.glob("checkpoint-*") if is_main() else ():
                    shutil.rmtree(checkpoint)
                done(result, False)

            missing = [one for one in planned if key_of(one.about) not in results]
            if jobs == 1:
                for trial in missing:
                    keep((trial, _run(trial, watch)))
            else:
                each(missing, _run_elsewhere, jobs, keep)
    fixed = tuple(one.name for one in chosen if is_fixed(one))
    return Trials([results[key_of(one.about)] for one in planned], fixed, [one.folder for one in planned])


@contextmanager
def _folder_for(store: Path | None) -> Iterator[Path]:
    """The folder of all trials: beside the store, or a temporary one."""
    if store is not None:
        yield store.with_suffix("")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _plan(
    function: Callable[[Trial], object],
    chosen: Chosen,
    lr: float,
    seed: int,
    settings: Mapping[str, Any],
    folder: Path,
) -> Planned:
    problem = getattr(function, "__name__", type(function).__name__)
    about = {
        "trial": {"problem": problem, "scheduler": chosen.name, "seed": seed},
        "lr": lr,
        "settings": dict(settings),
        "arithmetic": OWN,
        **settings_of_function(function, chosen.registered or chosen.make),
    }
    name = re.sub(r"[^\w.=-]+", "-", f"{chosen.name}-lr{lr:g}-seed{seed}")
    return Planned(function, problem, chosen, lr, seed, about, folder / f"{name}-{key_of(about)[:6]}")


def _run(one: Planned, watch: Callable[[float], None]) -> Result:
    return run_trial(one.function, one.problem, Trial(one.chosen, one.lr, one.seed, one.folder, watch))


def _run_elsewhere(one: Planned, given_up: Callable[[], bool]) -> tuple[Planned, Result]:
    def watch(share: float) -> None:
        if given_up():
            raise KeyboardInterrupt

    return one, _run(one, watch)


def _as_the_first_rank(found: dict[str, Result | None]) -> dict[str, Result | None]:
    if not is_active():
        return found
    told = [found]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def _check_all_alike(planned: Sequence[Planned], results: Mapping[str, Result], new: Planned) -> None:
    """Compare a trial with one before that differs in the scheduler alone."""
    for one in planned:
        other = results.get(key_of(one.about))
        if other is not None and one.about != new.about and (one.lr, one.seed) == (new.lr, new.seed):
            _check_alike(other, results[key_of(new.about)])
            return


def _check_alike(first: Result, other: Result) -> None:
    """Raise if two trials that differ only in the scheduler cannot be compared."""
    run = other.run
    where = f"{first.run.scheduler} and {run.scheduler} at lr {run.multiplier:g}, seed {run.seed}"
    if first.run.steps != run.steps or first.run.optimizer != run.optimizer:
        raise TrialError(f"{where}: trials must have the same steps and optimizer whatever the scheduler")
    starts = first.start_loss, other.start_loss
    if abs(starts[0] - starts[1]) > UNLIKE * max(map(abs, starts)):
        raise TrialError(
            f"{where}: they start from the losses {starts[0]:g} and {starts[1]:g}, and must start alike: seed all that "
            "is random with trial.seed"
        )
