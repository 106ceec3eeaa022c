"""Losses from the device to the host without stopping either for the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Observed(NamedTuple):
    """The loss of one step and its slope.

    Attributes:
        loss: The loss.
        slope: Its slope, NaN if it is not known.
    """

    loss: float
    slope: float


Decode = Callable[[list[float]], Observed]


def observed(numbers: list[float]) -> Observed:
    """Observation of a loss alone, or of a loss and its slope."""
    loss, slope = numbers if len(numbers) == 2 else (*numbers, math.nan)
    return Observed(loss, slope)


class DeferredReader:
    """Hands out each device loss, with its slope, exactly one call after it was given, whatever the timing.

    The value is copied to pinned host memory in stream order and read at the next call, when the device has
    had a whole training step to get there. The device never waits; the host waits only where it has run more
    than one step ahead. Devices other than CUDA have no such copy: there the value stays on the
    device for that one call, and reading it then waits as ``item()`` does.
    """

    def __init__(self) -> None:
        self._value: Observed | Tensor | None = None
        self._decode: Decode = observed
        self._event: torch.cuda.Event | None = None
        self._buffer: Tensor | None = None

    def put(self, numbers: Tensor, decode: Decode) -> None:
        """Begin to read ``numbers``, on a device; those before must have been taken.

        Args:
            numbers: The loss and its slope, or what they are made of.
            decode: Makes the two of the numbers once they are on the host.
        """
        self._decode = decode
        if numbers.device.type != "cuda":
            self._value = numbers.detach().clone()
            return
        flat = numbers.detach().to(torch.float64).reshape(-1)
        if self._buffer is None or self._buffer.shape != flat.shape:
            # On the host, whatever the default device is.
            self._buffer = torch.empty(flat.shape, dtype=torch.float64, device="cpu", pin_memory=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        assert self._event is not None
        # Converted on the device: a copy that also converts may have to wait.
        self._buffer.copy_(flat, non_blocking=True)
        self._event.record(torch.cuda.current_stream(numbers.device))
        self._value = self._buffer

    def peek(self) -> Observed | None:
        """The loss that was given last, or None if it has been taken."""
        if isinstance(self._value, Tensor):
            if self._value is self._buffer and self._event is not None:
                self._event.synchronize()
            self._value = self._decode([float(number) for number in self._value.reshape(-1)])
        return self._value

    @property
    def holds(self) -> bool:
        """True if a loss is on its way."""
        return self._value is not None

    def take(self) -> Observed | None:
        """The loss of :meth:`peek`, once."""
        value = self.peek()
        self._value = None
        return value

    def restore(self, value: Observed | None) -> None:
        """Set what the next :meth:`take` returns."""
        self._value = value
