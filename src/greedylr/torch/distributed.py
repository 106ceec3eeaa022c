"""One loss for all ranks, so one learning rate for all ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_active() -> bool:
    """Whether this process is one of several in an initialised default process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_main() -> bool:
    """Whether this process speaks for all ranks."""
    return not is_active() or dist.get_rank() == 0


def mean_over_ranks(loss: float | Tensor) -> Tensor:
    """The mean of every rank's loss, the same bits on every rank; NaN if any rank has NaN.

    One all-reduce of one number. Every rank must call it equally often.

    Args:
        loss: This rank's loss: a number, or a tensor with one element on any device.

    Returns:
        A 0-d float64 tensor, on a device that the process group's backend can reduce.
    """
    device = loss.device if isinstance(loss, Tensor) else torch.device("cpu")
    if device.type == "cpu" and dist.get_backend() == "nccl":
        device = torch.device("cuda", torch.cuda.current_device())
    value = torch.as_tensor(loss, dtype=torch.float64).detach().to(device=device, copy=True).reshape(())
    dist.all_reduce(value)
    return value / dist.get_world_size()
