"""GreedyLR in Lightning, from ``configure_optimizers``.

In automatic optimization Lightning steps the scheduler without a loss. What ``training_step`` returns is the loss of a
micro-batch; the hooks around the backward pass see it scaled, in float16, and the end of the batch comes after the
scheduler's step. So :func:`configure` wraps ``training_step`` on the one module. In manual optimization the module
calls ``self.lr_schedulers().step(loss)`` itself, on a GreedyLR that nothing stands in front of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from greedylr.adapters.loop import Composition, LoopScheduler, SkippedSteps
from greedylr.control.observers import Observer, hand_on
from greedylr.torch.scheduler import GreedyLR


def configure(
    module: LightningModule,
    optimizer: Optimizer,
    build: Callable[..., GreedyLR] = GreedyLR,
    *,
    observers: Iterable[Observer] = (),
    batch: Composition | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """What ``configure_optimizers`` returns, so that GreedyLR observes the training loss at every optimizer step.

    The mean over the micro-batches of ``accumulate_grad_batches``, and over ranks, is one observation; a step that
    the float16 scaler skips, or a ``training_step`` that returns None, is none.

    Args:
        module: The module that is being configured.
        optimizer: Its optimizer.
        build: Called with the optimizer and ``settings``: :class:`GreedyLR`, :meth:`GreedyLR.paper`, or a function.
        observers: Each is called with every decision, see :meth:`GreedyLR.subscribe`: a recorder, say. One that has a
            method ``log`` is handed, at the end of every validation, what the module logged under names that begin with
            ``val`` or ``eval``.
        batch: Called with every micro-batch that ``training_step`` gets, says what it is made of, see
            :meth:`GreedyLR.step`. Of an accumulation, the mean of numbers and all labels that occurred are observed.
            In manual optimization the module hands it to ``step`` itself.
        **settings: Handed to ``build``. For :class:`GreedyLR` in automatic optimization ``total_steps`` is the
            trainer's own number of steps unless given; ``total_steps=None`` is open-ended.

    Returns:
        Optimizer and scheduler, the latter at every step, with nothing to monitor.

    Example:
        See ``docs/adapters.md``.
    """
    observers = tuple(observers)
    _watch_validation(module, observers)
    if not module.automatic_optimization:
        return {"optimizer": optimizer, "lr_scheduler": _observed(build(optimizer, **settings), observers)}
    if build is GreedyLR and "total_steps" not in settings:
        steps = module.trainer.estimated_stepping_batches
        settings["total_steps"] = int(steps) if math.isfinite(steps) else None
    scheduler = _Stepped(_observed(build(optimizer, **settings), observers), module, batch)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class _Validations(Callback):
    """Hands on what was logged in a validation, of a module that is being trained."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        known = trainer.callback_metrics.items()
        hand_on(self._observers, {name: value.item() for name, value in known if name.startswith(("val", "eval"))})


def _watch_validation(module: LightningModule, observers: tuple[Observer, ...]) -> None:
    if not any(hasattr(observer, "log") for observer in observers):
        return
    try:
        callbacks: list[Callback] = module.trainer.callbacks  # type: ignore[attr-defined]
    except (RuntimeError, AttributeError):  # There is none, or it is Fabric, which validates in a loop of the user's.
        return
    # In place of the one from before, should the same trainer fit again.
    callbacks[:] = [*(one for one in callbacks if not isinstance(one, _Validations)), _Validations(observers)]


def _observed(scheduler: GreedyLR, observers: Iterable[Observer]) -> GreedyLR:
    for observer in observers:
        scheduler.subscribe(observer)
    return scheduler


class _Stepped(LoopScheduler):
    """What Lightning steps; observes what the module's ``training_step`` returned since."""

    def __init__(self, scheduler: GreedyLR, module: LightningModule, batch: Composition | None) -> None:
        super().__init__(scheduler, mean=True)
        self._module = module
        self._skips: SkippedSteps | None = None
        # Once only, should the module be fitted again.
        original = getattr(module.training_step, "_without_greedylr", module.training_step)

        def training_step(*args: Any, **kwargs: Any) -> Any:
            if self._skips is None:
                self._skips = SkippedSteps()
                self._skips.start(self._scaler())
            # Before the module, which may take out what its network does not know.
            made_of = None if batch is None else batch(args[0] if args else kwargs["batch"])
            output = original(*args, **kwargs)
            loss = output.get("loss") if isinstance(output, Mapping) else output
            if isinstance(loss, Tensor):
                self.add(loss, made_of)
            return output

        training_step._without_greedylr = original  # type: ignore[attr-defined]
        module.training_step = training_step  # type: ignore[method-assign]

    def step(self) -> None:  # type: ignore[override]
        if self._skips is not None and self._skips.skipped(self._scaler()):
            self.clear()
        super().step()

    def _scaler(self) -> Any:
        return getattr(self._module.trainer.precision_plugin, "scaler", None)
