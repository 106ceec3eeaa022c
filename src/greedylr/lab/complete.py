"""Get done what a store lacks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from greedylr.lab.engines import assign
from greedylr.lab.runs import Result, Run
from greedylr.lab.store import Store


def complete(
    runs: Sequence[Run],
    store: Store,
    jobs: int,
    engine: str | None = None,
    done: Callable[[Run], None] = lambda run: None,
) -> None:
    """Train those of ``runs`` that the store lacks, and store each as soon as it is finished.

    Several processes, each with the store open, may do this at once for the same runs, and share the work.

    Args:
        runs: What is to be in the store.
        store: Where.
        jobs: Number of cores to use.
        engine: Name of the engine; None: for each run the one to be preferred.
        done: Called for each run that was missing, when it is in the store.

    Raises:
        KeyboardInterrupt: On Ctrl-C. Runs under way are given up, all others are in the store.
        ValueError: If the engine does not support a run.
        greedylr.lab.store.StoreError: If the store cannot be written.
    """
    finished = store.finished(runs)
    missing = [run for run in dict.fromkeys(runs) if run not in finished]
    # In any order: processes that share the work seldom begin the same run, and the time that is left can be told
    # from that which has passed. Results do not depend on it.
    random.SystemRandom().shuffle(missing)

    def keep(result: Result) -> None:
        store.save(result)
        done(result.run)

    def wanted(run: Run) -> bool:
        if store.finished([run]):
            done(run)  # Another process was faster.
            return False
        return True

    for chosen, its in assign(missing, engine).items():
        chosen.train(its, jobs, keep, wanted)
