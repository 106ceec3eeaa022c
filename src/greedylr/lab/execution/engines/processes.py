"""Work for many processes, one thread each, that go away with their parent, and do not run its script again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from types import ModuleType
from typing import TypeVar

import joblib  # type: ignore[import-untyped]
import torch

Task = TypeVar("Task")
Answer = TypeVar("Answer")

# The C library then keeps memory from step to step. Without it, on Linux, up to a quarter of the time of a large step
# goes into handing it back to the system and asking for it again.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Environment variables of the processes."""

_MOST_WORKERS = 16  # Each takes a few hundred megabytes and two seconds to start.


def worker_count(tasks: int) -> int:
    """Number of processes for so many tasks: one for each core that this process may use."""
    # joblib counts what affinity and container limits leave, where os.cpu_count counts what is built in.
    return max(1, min(tasks, int(joblib.cpu_count()), _MOST_WORKERS))


def each(
    tasks: Iterable[Task],
    do: Callable[[Task, Callable[[], bool]], Answer],
    workers: int,
    keep: Callable[[Answer], None],
) -> None:
    """Do every task in one of several processes.

    Args:
        tasks: Started in this order, and asked for when there is a process to start one in.
        do: Does one, in another process: pickled, and of a module, not of the script. It is given a function to ask,
            often, whether to give up.
        workers: Number of processes.
        keep: Called in this process with each answer as it comes, in no particular order.

    Raises:
        KeyboardInterrupt: On Ctrl-C, once the workers are gone; tasks under way are given up.
        concurrent.futures.process.BrokenProcessPool: If a worker was killed.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, _start_worker, (stop,)) as pool:
        pending: set[Future[Answer]] = set()
        try:
            for task in tasks:
                with _interrupts_held(), _environment(ENVIRONMENT), _script_hidden():
                    pending.add(pool.submit(_do, do, task))
                if len(pending) > workers:  # One more than are done, so that no process waits for this one.
                    pending = _keep_finished(pending, keep)
            while pending:
                pending = _keep_finished(pending, keep)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _keep_finished(pending: set[Future[Answer]], keep: Callable[[Answer], None]) -> set[Future[Answer]]:
    """Wait for an answer, at least, and return what is still to come."""
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


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what is not set, for the processes that are started meanwhile."""
    new = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in new})
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


@contextmanager
def _script_hidden() -> Iterator[None]:
    """Keep processes that are started meanwhile from running the script that runs in this one.

    They would do so in search of functions to call, of which none is there. A script that is not protected by
    ``if __name__ == "__main__"`` would call what started them again, and fail.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


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


def _do(do: Callable[[Task, Callable[[], bool]], Answer], task: Task) -> Answer:
    return do(task, _stop.is_set)
