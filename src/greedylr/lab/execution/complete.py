"""Get done what a store lacks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from greedylr.lab.execution.engines import ENGINES, assign
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result
from greedylr.lab.runs import Run


def finished(runs: Sequence[Run], store: Store, engine: str | None = None) -> set[Run]:
    """Runs, of ``runs``, that :func:`complete` would not train.

    Args:
        runs: What is to be in the store.
        store: Where.
        engine: Name of the engine, whose kind of result is then asked for; None: any will do.

    Raises:
        greedylr.lab.execution.store.StoreError: If the store cannot be read.
    """
    return store.finished(runs, None if engine is None else ENGINES[engine].arithmetic)


def complete(
    runs: Sequence[Run],
    store: Store,
    jobs: int,
    engine: str | None = None,
    done: Callable[[Run], None] = lambda run: None,
) -> None:
    """Train those of ``runs`` that the store lacks, and store each as soon as it is finished.

    Several processes, each with the store open, may do this at once for the same runs, and share the work. The results
    are the same, bit for bit, however often this was interrupted, and for any number of cores.

    Args:
        runs: What is to be in the store.
        store: Where.
        jobs: Number of cores to use.
        engine: Name of the engine; None: for each run the one to be preferred.
        done: Called for each run that was missing, when it is in the store.

    Raises:
        KeyboardInterrupt: On Ctrl-C. Runs under way are given up, all others are in the store.
        ValueError: If the engine does not support a run.
        greedylr.lab.execution.store.StoreError: If the store cannot be written.
    """
    before = finished(runs, store, engine)

    def keep(result: Result) -> None:
        store.save(result)
        done(result.run)

    def wanted(run: Run) -> bool:
        if run in before:
            return False
        if finished([run], store, engine):
            done(run)  # Another process was faster.
            return False
        return True

    # In any order: processes that share the work seldom begin the same run, and the time that is left can be told
    # from that which has passed. Results do not depend on it.
    every = list(dict.fromkeys(runs))
    random.SystemRandom().shuffle(every)
    for chosen, its in assign(every, engine).items():
        chosen.train(its, jobs, keep, wanted)
