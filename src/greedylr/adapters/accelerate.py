"""GreedyLR in a loop that Accelerate has prepared: one observation per optimizer step, whatever runs underneath.

``accelerator.prepare(scheduler)`` is not for GreedyLR. The wrapper that it returns drops the losses of all
micro-batches but the last, and calls ``step`` once for each process, because it is made for schedules that count
samples. What :func:`attach` returns takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from greedylr.adapters.loop import LoopScheduler, SkippedSteps, hear_clipping
from greedylr.extras import missing
from greedylr.torch.scheduler import GreedyLR

try:
    from accelerate import Accelerator  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise missing(error, "accelerate") from error


class AttachedGreedyLR:
    """GreedyLR in an accelerated loop; made by :func:`attach`. Everything but ``step`` is the scheduler's.

    Attributes:
        scheduler: The scheduler itself.
    """

    def __init__(self, accelerator: Accelerator, scheduler: GreedyLR) -> None:
        self.scheduler = scheduler
        self._accelerator = accelerator
        self._loop = LoopScheduler(scheduler, mean=True)
        self._skips = SkippedSteps()
        self._skips.start(accelerator.scaler)
        hear_clipping(accelerator, self._loop)

    def step(self, loss: float | Tensor, *, composition: Mapping[str, Any] | None = None) -> None:
        """Take in the loss of one micro-batch, after ``optimizer.step()``.

        The learning rates follow once per optimizer step that was made: on the mean over the micro-batches of the
        accumulation, and over all processes.

        Args:
            loss: What was given to ``accelerator.backward``, which divides it by the accumulation steps itself.
            composition: What the micro-batch was made of, see :meth:`GreedyLR.step`. Of an accumulation, the mean of
                numbers and all labels that occurred.
        """
        self._loop.add(loss, composition)
        if not self._accelerator.sync_gradients:
            return
        # Of its own optimizer, where that is the prepared one; others may skip on their own.
        told_by = self.scheduler.optimizer if hasattr(self.scheduler.optimizer, "step_was_skipped") else None
        skipped = self._accelerator.optimizer_step_was_skipped if told_by is None else told_by.step_was_skipped
        if self._skips.skipped(self._accelerator.scaler) or skipped:
            self._loop.clear()
        self._loop.step()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._loop.load_state_dict(state_dict)
        self._skips.start(self._accelerator.scaler)

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.scheduler, name)


def attach(accelerator: Accelerator, scheduler: GreedyLR) -> AttachedGreedyLR:
    """Fit GreedyLR into a loop with gradient accumulation, several processes, mixed precision, FSDP or DeepSpeed.

    ``accelerator.save_state`` and ``load_state`` include it from here on.

    Args:
        accelerator: The one that prepared the optimizer.
        scheduler: Built on the optimizer that ``accelerator.prepare`` returned.

    Returns:
        What to call ``step(loss)`` of for every micro-batch, after ``optimizer.step()``.

    Example:
        >>> import torch
        >>> accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        >>> model = torch.nn.Linear(2, 1)
        >>> model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> scheduler = attach(accelerator, GreedyLR(optimizer))
        >>> for batch in torch.ones(6, 4, 2):
        ...     with accelerator.accumulate(model):
        ...         loss = model(batch).square().mean()
        ...         accelerator.backward(loss)
        ...         optimizer.step()
        ...         scheduler.step(loss)
        ...         optimizer.zero_grad()
        >>> scheduler.last_epoch
        3
    """
    attached = AttachedGreedyLR(accelerator, scheduler)
    accelerator.register_for_checkpointing(attached)
    return attached
