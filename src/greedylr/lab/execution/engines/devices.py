"""Several runs at a time on each CUDA device, one in each of several processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from greedylr.lab.execution.engines.processes import each
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

# Small models leave a device idle between their kernels; a process takes half a gigabyte there.
_AT_A_TIME = 4  # On one device.


class DeviceError(OSError):
    """There is no device to train on."""


class _OnDevice(NamedTuple):
    run: Run
    device: str


def supports(run: Run) -> bool:
    """True if a run can be trained on a device: what disturbs one draws on the processor."""
    return run.perturbation == "none"


def train_all(
    runs: Sequence[Run],
    workers: int,
    keep: Callable[[Result], None],
    wanted: Callable[[Run], bool] = lambda run: True,
    *,
    forward: torch.dtype | None = None,
) -> None:
    """Train every run on the CUDA devices that this process sees.

    The initial weights and the batches are those of every other engine; sums are rounded otherwise, and dropout draws
    other numbers. ``CUDA_VISIBLE_DEVICES`` chooses devices.

    Args:
        runs: What to train, started in this order; none disturbed.
        workers: Number of processes; of more than four for each device, four.
        keep: Called in this process with each result as it comes, in no particular order.
        wanted: Asked when a run is about to be started.
        forward: Of the forward pass; None: as the weights are.

    Raises:
        KeyboardInterrupt: On Ctrl-C, once the workers are gone; runs under way are given up.
        DeviceError: If torch finds no CUDA device.
        concurrent.futures.process.BrokenProcessPool: If a worker was killed.
    """
    devices = torch.cuda.device_count()
    if not devices:
        raise DeviceError("torch finds no CUDA device here; without --engine, runs are trained on the processor")
    tasks = (_OnDevice(run, f"cuda:{number % devices}") for number, run in enumerate(filter(wanted, runs)))
    each(tasks, partial(_train, forward), min(workers, _AT_A_TIME * devices), keep)


train_all_in_bfloat16 = partial(train_all, forward=torch.bfloat16)
"""The same with the forward pass in bfloat16, by torch's autocast; the weights stay as they are."""


def _train(forward: torch.dtype | None, one: _OnDevice, stopped: Callable[[], bool]) -> Result:
    return train(one.run, device=one.device, forward=forward, stopped=stopped)
