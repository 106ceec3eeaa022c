"""The process that records, where a run has several. Standard library only."""

from __future__ import annotations

import os
import sys

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "JAX_PROCESS_ID")
# A launcher of one process gives it a number too, and a batch script without srun has one.
_SIZES = {
    "SLURM_PROCID": ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    "OMPI_COMM_WORLD_RANK": ("OMPI_COMM_WORLD_SIZE",),
    "PMI_RANK": ("PMI_SIZE",),
}


def rank() -> int:
    """This process' number among those of the run; 0 records.

    In this order: that of ``torch.distributed``, or of ``jax.distributed``, if it is initialised; the first that is not
    0 among the launchers' environment variables ``RANK``, ``SLURM_PROCID``, ``OMPI_COMM_WORLD_RANK``, ``PMI_RANK`` and
    ``JAX_PROCESS_ID``; ``NODE_RANK`` and ``LOCAL_RANK``, of which any that is not 0 says that this is not the first.
    Else 0.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    jax = sys.modules.get("jax")
    if jax is not None and getattr(jax.distributed, "is_initialized", bool)():  # Asked before, it would start devices.
        return int(jax.process_index())
    for name in _RANKS:
        number = _number(name)
        if number and _size(name) != 1:
            return number  # One that is 0 may be of a launcher around another.
    return (_number("NODE_RANK") or 0) + (_number("LOCAL_RANK") or 0)


def _size(name: str) -> int | None:
    """Number of processes that the launcher has started, by its environment variable; None: unknown."""
    sizes = [_number(size) for size in _SIZES.get(name, ())]
    known = next((size for size in sizes if size is not None), None)
    return 1 if known is None and name == "SLURM_PROCID" else known


def _number(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else None
