"""Many runs at once, one thread each, in processes that go away with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.synchronize import Event

import joblib  # type: ignore[import-untyped]
import torch

from greedylr.lab.runs import Result, Run
from greedylr.lab.train import train

_MOST_WORKERS = 16  # Each takes a few hundred megabytes and two seconds to start.


def worker_count(runs: int) -> int:
    """How many processes to train ``runs`` runs with: one for each core that this process may use."""
    # joblib counts what affinity and container limits leave, where os.cpu_count counts what is built in.
    return max(1, min(runs, int(joblib.cpu_count()), _MOST_WORKERS))


def train_all(runs: Iterable[Run], workers: int, keep: Callable[[Result], None]) -> None:
    """Train every run; the results are the same for any number of workers.

    Args:
        runs: What to train, started in this order, and asked for when there is a process to start it in.
        workers: Number of processes.
        keep: Called in this process with each result as it comes, in no particular order.

    Raises:
        KeyboardInterrupt: On Ctrl-C, once the workers are gone; runs under way are given up.
        concurrent.futures.process.BrokenProcessPool: If a worker was killed.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, _start_worker, (stop,)) as pool:
        pending: set[Future[Result]] = set()
        try:
            for run in runs:
                with _interrupts_held():
                    pending.add(pool.submit(_train, run))
                if len(pending) > workers:  # One more than are trained, so that no process waits for this one.
                    pending = _keep_finished(pending, keep)
            while pending:
                pending = _keep_finished(pending, keep)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _keep_finished(pending: set[Future[Result]], keep: Callable[[Result], None]) -> set[Future[Result]]:
    """Wait for a result, at least, and return what is still to come."""
    finished, unfinished = wait(pending, return_when=FIRST_COMPLETED)
    for future in finished:
        keep(future.result())
    return unfinished


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes are started: they inherit that, and are deaf to it from birth."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_stop: Event  # Of a worker process: set when the parent wants no more of it.


def _start_worker(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business.
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    # SequentialLR of older torch versions calls what they deprecate themselves.
    warnings.filterwarnings("ignore", message="The epoch parameter in `scheduler.step", category=UserWarning)


def _follow_parent() -> None:
    """End this process when the parent has ended, however it did."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(run: Run) -> Result:
    return train(run, stopped=_stop.is_set)
