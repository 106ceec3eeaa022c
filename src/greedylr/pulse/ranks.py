"""The process that records, where a run has several. Standard library only."""

from __future__ import annotations

import os
import sys

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "JAX_PROCESS_ID")
_SIZES = {"SLURM_PROCID": "SLURM_NTASKS"}  # A batch script without srun has a number too, and is the only one.


def rank() -> int:
    """This process' number among those of the run; 0 records.

    In this order: that of ``torch.distributed`` if it is initialised; the first number among the launchers' environment
    variables ``RANK``, ``SLURM_PROCID``, ``OMPI_COMM_WORLD_RANK``, ``PMI_RANK`` and ``JAX_PROCESS_ID``;
    ``NODE_RANK`` and ``LOCAL_RANK``, of which any that is not 0 says that this is not the first. Else 0.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    for name in _RANKS:
        number = _number(name)
        if number is not None and not (name in _SIZES and _number(_SIZES[name]) in (None, 1)):
            return number
    return (_number("NODE_RANK") or 0) + (_number("LOCAL_RANK") or 0)


def _number(name: str) -> int | None:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else None
