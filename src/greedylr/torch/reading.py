"""Losses from the device to the host without stopping either for the other."""

from __future__ import annotations

import torch
from torch import Tensor


class DeferredReader:
    """Hands out each device loss exactly one call after it was given, whatever the timing.

    The value is copied to pinned host memory in stream order and read at the next call, when the device has
    had a whole training step to get there. The device never waits; the host waits only where it has run more
    than one step ahead. Devices other than CUDA have no such copy: there the value stays on the
    device for that one call, and reading it then waits as ``item()`` does.
    """

    def __init__(self) -> None:
        self._value: float | Tensor | None = None
        self._event: torch.cuda.Event | None = None
        self._buffer: Tensor | None = None

    def put(self, loss: Tensor) -> None:
        """Begin to read ``loss`` (one element, on a device); the one before must have been taken."""
        if loss.device.type != "cuda":
            self._value = loss.detach().clone()
            return
        if self._buffer is None:
            self._buffer = torch.empty(
                (), dtype=torch.float64, device="cpu", pin_memory=True
            )  # whatever the default is
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        assert self._event is not None
        # Converted on the device: a copy that also converts may have to wait.
        self._buffer.copy_(loss.detach().to(torch.float64).reshape(()), non_blocking=True)
        self._event.record(torch.cuda.current_stream(loss.device))
        self._value = self._buffer

    def peek(self) -> float | None:
        """The loss that was given last, or None if it has been taken."""
        if isinstance(self._value, Tensor):
            if self._value is self._buffer and self._event is not None:
                self._event.synchronize()
            self._value = float(self._value)
        return self._value

    def take(self) -> float | None:
        """As :meth:`peek`, once."""
        value = self.peek()
        self._value = None
        return value

    def restore(self, value: float | None) -> None:
        """Set what the next :meth:`take` returns."""
        self._value = value
