"""GreedyLR for training loops that belong to a library and call ``scheduler.step()`` without a loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from greedylr.control.default.config import DefaultConfig
from greedylr.torch.scheduler import GreedyLR

Composition = Callable[[Any], Mapping[str, Any]]
"""Says what a batch, as its loop has it, was made of: numbers and labels by name."""


class LoopScheduler(LRScheduler):
    """Scheduler of such a loop: it receives the losses of the micro-batches first, then ``step()``.

    What was added since the last optimizer step is one observation. A step without anything added is none, so that a
    loop may call :meth:`step` more often than it optimises. Everything else is passed on to the scheduler.

    Args:
        scheduler: What is to be stepped; available as the attribute of that name.
        mean: Whether the mean of the micro-batches is observed; else their sum, for loops that have divided already.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> loop = LoopScheduler(GreedyLR(optimizer))
        >>> unsubscribe = loop.subscribe(lambda decision: print(decision.loss))
        >>> loop.add(torch.tensor(0.25)); loop.add(torch.tensor(0.5)); loop.step()
        0.75
        >>> loop.add(torch.tensor(9.0)); loop.clear(); loop.step()
    """

    grad_norm: float | Tensor | None
    """The norm of the gradient before it was clipped for the step to come, if it is known."""
    _loss: float | Tensor | None
    _count: int
    _batches: list[Mapping[str, Any]]

    def __init__(self, scheduler: GreedyLR, mean: bool = False) -> None:
        # Not LRScheduler.__init__, whose attributes are the scheduler's, by way of __getattr__. Some loops take
        # only what is an LRScheduler.
        self.scheduler = scheduler
        self._mean = mean
        self.said: list[str] = []
        self.clear()

    def add(self, loss: float | Tensor, composition: Mapping[str, Any] | None = None) -> None:
        """Take in the loss of one micro-batch and what it was made of; on a device nothing is waited for."""
        if isinstance(loss, Tensor):
            # At least float32, as half precision would lose the later shares.
            loss = loss.detach().to(torch.promote_types(loss.dtype, torch.float32))
        self._loss = loss if self._loss is None else self._loss + loss
        self._count += 1
        if composition is not None:
            self._batches.append(composition)

    def clear(self) -> None:
        """Forget what was added: the optimizer step was skipped, or never came."""
        self._loss, self._count, self._batches, self.grad_norm = None, 0, [], None

    def step(self) -> None:  # type: ignore[override]
        """Observe what was added since the last step, if anything was."""
        loss, count, composition, norm = self._loss, self._count, _together(self._batches), self.grad_norm
        self.clear()
        if loss is not None:
            self.scheduler.step(
                loss / count if self._mean and count > 1 else loss, composition=composition, grad_norm=norm
            )

    def get_lr(self) -> list[float | Tensor]:
        """The scheduler's."""
        return self.scheduler.get_lr()

    def get_last_lr(self) -> list[float | Tensor]:
        """The scheduler's."""
        return self.scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's. Micro-batches are not in it: libraries save between optimizer steps."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.clear()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.scheduler.load_state_dict(state_dict)
        # Some loops swallow what is said here, and their adapter says it again.
        self.said = [str(one.message) for one in told]
        for message in self.said:
            warnings.warn(message, UserWarning, stacklevel=2)

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.scheduler, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.scheduler!r})"


def _together(batches: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Composition of several micro-batches: the mean of numbers, and all labels that occurred, where known."""
    if len(batches) <= 1:
        return batches[0] if batches else None
    together: dict[str, Any] = {}
    for name in dict.fromkeys(name for batch in batches for name in batch):
        values = [value for batch in batches if (value := batch.get(name)) is not None]
        if not values:
            continue
        if any(isinstance(value, str) for value in values):
            together[name] = " + ".join(sorted({str(value) for value in values}))
        else:
            together[name] = sum(map(float, values)) / len(values)
    return together


def with_length(settings: Mapping[str, Any], steps: int | None) -> dict[str, Any]:
    """Settings of :class:`GreedyLR` with the length of the run as the loop knows it, unless they say it."""
    config = settings.get("config")
    said = "total_steps" in settings or (isinstance(config, DefaultConfig) and config.total_steps is not None)
    return dict(settings) if said else {**settings, "total_steps": steps}


def hear_clipping(accelerator: Any, loop: LoopScheduler) -> None:
    """Have an ``accelerate.Accelerator`` tell ``loop`` the norm of the gradient whenever it clips it."""
    clip = getattr(accelerator.clip_grad_norm_, "of_greedylr", accelerator.clip_grad_norm_)

    def clip_grad_norm_(*args: Any, **kwargs: Any) -> Any:
        loop.grad_norm = clip(*args, **kwargs)
        return loop.grad_norm

    clip_grad_norm_.of_greedylr = clip  # type: ignore[attr-defined]
    accelerator.clip_grad_norm_ = clip_grad_norm_


class SkippedSteps:
    """True if a ``GradScaler`` skipped the optimizer step; its scale falls then and only then.

    Fused optimizers are called in any case and skip the update themselves, which Accelerate's flag does not show.
    Reading the scale waits for the device: float16 costs that, everything else has no scaler.
    """

    def __init__(self) -> None:
        self._scale = 0.0

    def start(self, scaler: Any) -> None:
        """Before the first step, or after a checkpoint was loaded; ``scaler`` may be None."""
        self._scale = 0.0 if scaler is None else float(scaler.get_scale())

    def skipped(self, scaler: Any) -> bool:
        """After every optimizer step and the ``update`` of the scaler."""
        before = self._scale
        self.start(scaler)
        return self._scale < before
