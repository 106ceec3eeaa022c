"""Losses from the device to the host without stopping either for the other."""

from __future__ import annotations

from collections.abc import Callable

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
        self._decode: Decode = _only
        self._event: torch.cuda.Event | None = None
        self._buffer: Tensor | None = None

    def put(self, numbers: Tensor, decode: Decode | None = None) -> None:
        """Begin to read ``numbers``, on a device; those before must have been taken.

        Args:
            numbers: The loss, one element, or what the loss is made of.
            decode: Makes the loss of the numbers once they are on the host; None: it is the only one.
        """
        self._decode = _only if decode is None else decode
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

    def peek(self) -> float | None:
        """The loss that was given last, or None if it has been taken."""
        if isinstance(self._value, Tensor):
            if self._value is self._buffer and self._event is not None:
                self._event.synchronize()
            self._value = self._decode([float(number) for number in self._value.reshape(-1)])
        return self._value

    @property
    def holds(self) -> bool:
        """Whether a loss is on its way."""
        return self._value is not None

    def take(self) -> float | None:
        """As :meth:`peek`, once."""
        value = self.peek()
        self._value = None
        return value

    def restore(self, value: float | None) -> None:
        """Set what the next :meth:`take` returns."""
        self._value = value


Decode = Callable[[list[float]], float]


def _only(numbers: list[float]) -> float:
    (number,) = numbers
    return number
