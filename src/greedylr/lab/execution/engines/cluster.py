"""One run at a time on each core of a Ray cluster: many machines, some of which may fail."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from greedylr.lab.execution.engines.processes import ENVIRONMENT
from greedylr.lab.execution.fingerprint import key
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

_RETRIES = 5  # Of one run: more machines than that are hardly lost under it by chance, but may be because of it.
_MEMORY = 10**8  # Bytes of the store of a cluster that is started here; a result takes some tens of thousands.


class ClusterError(OSError):
    """There is no cluster, or none of use; the message says why."""


def train_all(
    runs: Sequence[Run],
    workers: int,
    keep: Callable[[Result], None],
    wanted: Callable[[Run], bool] = lambda run: True,
) -> None:
    """Train every run on a cluster; the results are the same, bit for bit, for any number of machines of one kind.

    The cluster is the one that the environment variable ``RAY_ADDRESS`` names, with all its cores; there, each machine
    needs the same version of this package. Without the variable, one is started on this machine, and stopped.

    A run whose process or machine is lost is trained again elsewhere.

    Args:
        runs: What to train, started in this order.
        workers: Number of cores of the cluster if it is started here.
        keep: Called in this process with each result as it comes, in no particular order.
        wanted: Asked when a run is about to be started.

    Raises:
        KeyboardInterrupt: On Ctrl-C; runs under way are given up. They end with the connection: in a process that was
            connected before, they go on, and nobody hears of them. (To cancel a task that is just about to finish
            aborts the process that asks for it, as of Ray 2.60: its issues 54738 and 54846.)
        ClusterError: If Ray is not installed, there is no cluster at the address, a machine has other code than this
            one, or a run is lost for good.
    """
    ray = _ray()
    with _connected(ray, workers):
        options = {"num_cpus": 1, "max_retries": _RETRIES, "runtime_env": {"env_vars": ENVIRONMENT}}
        task = ray.remote(**options)(_train)
        pending: list[Any] = []
        for run in filter(wanted, runs):
            pending.append(task.remote(run))
            # One more than are trained, so that no core waits for this process. Machines may come and go.
            while len(pending) > ray.cluster_resources().get("CPU", 1):
                pending = _keep_finished(ray, pending, keep)
        while pending:
            pending = _keep_finished(ray, pending, keep)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ClusterError(
            "the engine ray needs a package that is not installed: pip install 'greedylr[ray]'"
        ) from error


@contextmanager
def _connected(ray: Any, workers: int) -> Iterator[None]:
    """Have a cluster; what was there before is there afterwards."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    if address is not None:
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except (ValueError, OSError, RuntimeError) as error:
            raise ClusterError(f"there is no cluster at RAY_ADDRESS={address}: {error}") from error
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # It would tell its makers over the network.
        ray.init(address="local", num_cpus=workers, object_store_memory=_MEMORY, include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """See that somebody is there: Ray itself would wait for them without end."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _keep_finished(ray: Any, pending: list[Any], keep: Callable[[Result], None]) -> list[Any]:
    """Wait for a result, and return what is still to come."""
    (finished,), unfinished = ray.wait(pending, num_returns=1)
    try:
        there, result = ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # as if it had been trained here
    except ray.exceptions.RayError as error:
        raise ClusterError(f"a run was lost for good: {error}") from error
    if there != key(result.run, arithmetic=result.arithmetic):
        raise ClusterError("a machine of the cluster has another version of greedylr, or of what it stands on")
    keep(result)
    return list(unfinished)


def _train(run: Run) -> tuple[str, Result]:
    """Train a run in a process of the cluster, and say by its key what with."""
    torch.set_num_threads(1)
    result = train(run)
    return key(run, arithmetic=result.arithmetic), result
