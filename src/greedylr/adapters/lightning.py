"""GreedyLR in Lightning, from ``configure_optimizers``.

In automatic optimization Lightning steps the scheduler without a loss. What ``training_step`` returns is the loss of a
micro-batch; the hooks around the backward pass see it scaled, in float16, and the end of the batch comes after the
scheduler's step. So :func:`attach` wraps ``training_step`` on the one module, until the fit is over. In manual
optimization the module calls ``self.lr_schedulers().step(loss)`` itself, on a GreedyLR that nothing stands in front of.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from greedylr.adapters.loop import Composition, LoopScheduler, SkippedSteps, with_length
from greedylr.control.families import hears_validation
from greedylr.control.observers import Observer, hand_on
from greedylr.extras import missing
from greedylr.torch.scheduler import GreedyLR

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise missing(error, "lightning") from error


def attach(
    module: LightningModule,
    optimizer: Optimizer,
    build: Callable[..., GreedyLR] = GreedyLR,
    *,
    observers: Iterable[Observer] | Callable[[], Iterable[Observer]] = (),
    composition: Composition | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Return value for ``configure_optimizers`` that lets GreedyLR observe the training loss at every optimizer step.

    The mean over the micro-batches of ``accumulate_grad_batches``, and over ranks, is one observation; a step that
    the float16 scaler skips, or a ``training_step`` that returns None, is none.

    Args:
        module: The module that is being configured.
        optimizer: Its optimizer.
        build: Called with the optimizer and ``settings``: :class:`GreedyLR`, :meth:`GreedyLR.paper`, or a function.
        observers: Each is called with every decision, see :meth:`GreedyLR.subscribe`: a recorder, say; or a function
            that makes them. Lightning configures optimizers anew for every fit, a search for a learning rate included:
            what the function makes is closed when that fit is over. One that has a method ``log`` is handed, at the
            end of every validation, what the module logged under names that begin with ``val`` or ``eval``.
        composition: Called with every micro-batch that ``training_step`` gets, says what it is made of, see
            :meth:`GreedyLR.step`. Of an accumulation, the mean of numbers and all labels that occurred are observed.
            In manual optimization the module hands it to ``step`` itself.
        **settings: Handed to ``build``. For :class:`GreedyLR` in automatic optimization ``total_steps`` is the
            trainer's own number of steps unless given; ``total_steps=None`` is open-ended. With
            ``await_validation=True`` it is told what the module logs as ``val_loss``, see :meth:`GreedyLR.validate`.

    Returns:
        Optimizer and scheduler, the latter at every step, with nothing to monitor.

    Example:
        See ``docs/adapters.md``.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
    if not callable(build):
        raise TypeError(f"build must be GreedyLR, GreedyLR.paper or a function of the optimizer, got {build!r}")
    _end_of_the_fit_before(module)
    made = tuple(observers()) if callable(observers) else ()
    known = made if callable(observers) else tuple(observers)
    if not module.automatic_optimization:
        scheduler = _observed(build(optimizer, **settings), known)
        _watch(module, _Fit(scheduler, known, made, None))
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
    if build is GreedyLR:
        steps = module.trainer.estimated_stepping_batches
        settings = with_length(settings, int(steps) if math.isfinite(steps) else None)
    scheduler = _observed(build(optimizer, **settings), known)
    stepped = _Stepped(scheduler, module)
    step = _TrainingStep(module, stepped, composition)
    vars(module)["training_step"] = step
    _watch(module, _Fit(scheduler, known, made, step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": stepped, "interval": "step"}}


class _Fit(Callback):
    """Hands on what was logged in validations, and leaves the module as it was when the fit is over."""

    def __init__(
        self,
        scheduler: GreedyLR,
        observers: tuple[Observer, ...],
        made: tuple[Observer, ...],
        step: _TrainingStep | None,
    ) -> None:
        self._scheduler, self._observers, self._made, self._step = scheduler, observers, made, step
        self.optimizers: Any = None  # of the trainer, while its optimizers are being configured

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if "val_loss" in trainer.callback_metrics and hears_validation(self._scheduler.config):
            self._scheduler.validate(trainer.callback_metrics["val_loss"])
        known = trainer.callback_metrics.items()
        hand_on(self._observers, {name: value.item() for name, value in known if name.startswith(("val", "eval"))})

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.end(trainer, pl_module)

    def end(self, trainer: Any, module: LightningModule) -> None:
        if self._step is not None:
            self._step.remove()
        # Another list: this one may be being gone through.
        trainer.callbacks = [one for one in trainer.callbacks if one is not self]
        for observer in self._made:
            close = getattr(observer, "close", None)
            if close is not None:
                close()
        self._made = ()


def _end_of_the_fit_before(module: LightningModule) -> None:
    """A search for a learning rate is a fit without an end."""
    trainer = _trainer_of(module)
    for callback in () if trainer is None else trainer.callbacks:
        if isinstance(callback, _Fit) and callback.optimizers is not trainer.strategy.optimizers:
            callback.end(trainer, module)


def _trainer_of(module: LightningModule) -> Any:
    try:
        return module.trainer if hasattr(module.trainer, "callbacks") else None
    except (RuntimeError, AttributeError):  # There is none, or it is Fabric, which has a loop of the user's.
        return None


def _watch(module: LightningModule, fit: _Fit) -> None:
    trainer = _trainer_of(module)
    if trainer is not None:
        # The same list for all calls of one configure_optimizers, which it is replaced after.
        fit.optimizers = trainer.strategy.optimizers
        trainer.callbacks = [*trainer.callbacks, fit]


def _observed(scheduler: GreedyLR, observers: Iterable[Observer]) -> GreedyLR:
    for observer in observers:
        scheduler.subscribe(observer)
    return scheduler


class _Stepped(LoopScheduler):
    """Scheduler that Lightning steps; observes the losses that the module's ``training_step`` has returned since."""

    def __init__(self, scheduler: GreedyLR, module: LightningModule) -> None:
        super().__init__(scheduler, mean=True)
        self._module = module
        self._skips: SkippedSteps | None = None

    def start(self) -> None:
        """Before every micro-batch; what the first of them begins is the watch for skipped steps."""
        if self._skips is None:
            self._skips = SkippedSteps()
            self._skips.start(self._scaler())

    def step(self) -> None:  # type: ignore[override]
        if self._skips is not None and self._skips.skipped(self._scaler()):
            self.clear()
        super().step()

    def _scaler(self) -> Any:
        return getattr(self._module.trainer.precision_plugin, "scaler", None)


class _TrainingStep:
    """Stands in place of a module's ``training_step``. A copy of the module, pickled or not, has its own again."""

    def __init__(self, module: LightningModule, stepped: _Stepped, composition: Composition | None) -> None:
        before = vars(module).get("training_step")  # somebody else's wrapper
        self._before: Any = before.original if isinstance(before, _TrainingStep) else before
        self._module, self._stepped, self._composition = module, stepped, composition
        functools.update_wrapper(self, type(module).training_step)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._stepped.start()
        # Before the module, which may take out what its network does not know.
        made_of = None if self._composition is None else self._composition(args[0] if args else kwargs["batch"])
        original = type(self._module).training_step.__get__(self._module) if self._before is None else self._before
        output = original(*args, **kwargs)
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if isinstance(loss, Tensor):
            self._stepped.add(loss, made_of)
        return output

    @property
    def original(self) -> Any:
        """The attribute that it replaces, unless that is the method of the module's class."""
        return self._before

    def remove(self) -> None:
        """Let the module have its own again, if this is what it has."""
        if vars(self._module).get("training_step") is not self:
            return
        if self._before is None:
            vars(self._module).pop("training_step", None)
        else:
            vars(self._module)["training_step"] = self._before

    def __reduce__(self) -> Any:
        return _own_step, (type(self._module), self._module, self._before)


def _own_step(kind: type, module: LightningModule, before: Any) -> Any:
    """Placeholder for this object in a copy."""
    return kind.training_step.__get__(module) if before is None else before  # type: ignore[attr-defined]
