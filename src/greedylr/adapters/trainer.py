"""GreedyLR in a Transformers ``Trainer``: on the loss that was optimised, at every optimizer step.

Where the loss comes from: what ``training_step`` returns for a micro-batch is, by its contract, that micro-batch's
share of the optimised loss, detached; the ``Trainer`` adds these up to log them. That method is wrapped on the one
trainer, so that subclasses work as they are. The alternatives lack something: the logged loss comes every
``logging_steps`` and without its NaNs, callbacks are not told the loss, and ``compute_loss`` returns it before
it is divided by the accumulation steps.

When it is acted on: the ``Trainer`` calls ``lr_scheduler.step()`` right after each optimizer step that was not skipped,
before any callback sees the end of the step and before a checkpoint is written. That call is the observation, so the
order of callbacks does not matter.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import SGD, Optimizer

from greedylr.adapters.loop import Composition, LoopScheduler, SkippedSteps, hear_clipping, with_length
from greedylr.control.decision import Action, Decision
from greedylr.control.default.config import DefaultConfig
from greedylr.control.families import hears_validation
from greedylr.control.observers import Observer, hand_on
from greedylr.extras import missing
from greedylr.torch.scheduler import GreedyLR

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise missing(error, "trainer") from error

Observe = Callable[[Trainer], float | Tensor | None]

_TAKEN = ("_runtime", "_samples_per_second", "_steps_per_second", "_model_preparation_time", "_jit_compilation_time")
"""Endings of the names of an evaluation's timings, which say nothing of the model."""


def attach(
    trainer: Trainer,
    build: Callable[..., GreedyLR] = GreedyLR,
    *,
    observe: str | Observe = "loss",
    observers: Iterable[Observer] = (),
    composition: Composition | None = None,
    **settings: Any,
) -> None:
    """Let GreedyLR set the learning rates of a ``Trainer``, of any subclass, in place of its ``lr_scheduler_type``.

    Call it once, between building the trainer and ``train()``. Checkpoints, ``resume_from_checkpoint`` and the logged
    ``learning_rate`` work as with any other scheduler. How many decisions of each kind were made since the last log is
    logged beside it, as ``greedylr/raised`` and the like.

    Args:
        trainer: The trainer; it must have been given no scheduler.
        build: Called with the optimizer and ``settings``: :class:`GreedyLR`, :meth:`GreedyLR.paper`, or a function.
        observe: ``"loss"``: the optimised training loss, at every optimizer step. ``"metric"``: the trainer's
            ``metric_for_best_model``, at evaluations; its ``greater_is_better`` sets the mode. Or a function of
            the trainer, called after every optimizer step, that returns a number or, where there is nothing to
            observe, None; on all ranks alike.
        observers: Each is called with every decision, see :meth:`GreedyLR.subscribe`: a recorder, say. One that has a
            method ``log`` is handed the metrics of evaluations, ``eval_loss`` and so on, at the step that they follow.
        composition: Called with the inputs of every micro-batch before the model sees them, says what they are made of,
            see :meth:`GreedyLR.step`; it may take out what the model does not know. Of an accumulation, the mean of
            numbers and all labels that occurred are observed.
        **settings: Handed to ``build``. For :class:`GreedyLR` on the loss, ``total_steps`` is the trainer's own number
            of steps unless given; ``total_steps=None`` is open-ended. For :class:`GreedyLR`, ``max_scale`` is 1 unless
            given where the model is pre-trained, see :func:`is_pretrained`: where data are scarce, a falling training
            loss is no argument for a higher learning rate than the one that was given. A falling validation loss is:
            where the trainer evaluates, ``await_validation`` is set instead.

    With ``await_validation`` the ``eval_loss`` of every evaluation while it trains is told, see
    :meth:`GreedyLR.validate`. Of several evaluation sets none is.

    Raises:
        TypeError: If ``trainer`` is no ``Trainer``, ``build`` no function, or a setting unknown.
        ValueError: If a setting is outside its range; if the trainer has a scheduler already, or no metric that could
            be observed; if ``composition`` is given and the loss is not observed.

    Warns:
        UserWarning: If the training arguments ask for a schedule or a warmup, which are not used.

    Example:
        See ``docs/adapters.md``.
    """
    if not isinstance(trainer, Trainer):
        raise TypeError(
            f"attach(trainer, ...) takes a transformers.Trainer, got {type(trainer).__name__}: in a loop of your own "
            "use GreedyLR(optimizer)"
        )
    settings = safe_for(trainer, build, settings, observe == "loss") | settings
    _check_build(build, settings)
    if trainer.lr_scheduler is not None:
        raise ValueError("the trainer was given a scheduler: pass optimizers=(optimizer, None), and attach only once")
    if any(isinstance(callback, _Attached) for callback in trainer.callback_handler.callbacks):
        raise ValueError("this trainer has been given GreedyLR already: attach only once")
    if not callable(observe) and observe not in ("loss", "metric"):
        raise ValueError(f"observe must be 'loss', 'metric' or a function of the trainer, got {observe!r}")
    if composition is not None and observe != "loss":
        raise ValueError(
            f"composition says what the training loss was made of, which observe={observe!r} does not look at"
        )
    if observe == "metric":
        metric, strategy = trainer.args.metric_for_best_model, trainer.args.eval_strategy
        if metric is None or strategy == "no":
            raise ValueError(
                "observe='metric' needs metric_for_best_model and an eval_strategy in the training arguments, "
                f"got {metric!r} and {str(getattr(strategy, 'value', strategy))!r}"
            )
        settings.setdefault("mode", "max" if trainer.args.greater_is_better else "min")
    _say_what_is_dropped(trainer.args)
    _Attached(trainer, build, observe, tuple(observers), composition, settings)


def safe_for(
    trainer: Trainer, build: Callable[..., GreedyLR], settings: Mapping[str, Any], on_the_loss: bool = True
) -> dict[str, Any]:
    """Settings of :class:`GreedyLR` that follow from the trainer's model, unless others say it: see :func:`attach`."""
    config = settings.get("config")
    said = isinstance(config, DefaultConfig) and config.max_scale != DefaultConfig().max_scale
    said = said or "max_scale" in settings or "await_validation" in settings
    if build is not GreedyLR or said or not is_pretrained(trainer.model):
        return {}
    return {"await_validation": True} if on_the_loss and _evaluates(trainer) else {"max_scale": 1}


def _evaluates(trainer: Trainer) -> bool:
    """True if there will be an ``eval_loss``."""
    return trainer.args.eval_strategy != "no" and not isinstance(trainer.eval_dataset, dict)


def is_pretrained(model: Any) -> bool:
    """True if a model comes from a hub or a folder, by its ``name_or_path``, or has PEFT's adapters.

    A model with new weights that was built from the configuration of another is taken for that one.
    """
    config = getattr(model, "config", None)
    return hasattr(model, "peft_config") or bool(getattr(config, "name_or_path", ""))


def _check_build(build: Any, settings: dict[str, Any]) -> None:
    """Raise what building would, as long as nothing has been trained yet."""
    if not callable(build) or isinstance(build, GreedyLR):
        raise TypeError(
            f"build must be GreedyLR, GreedyLR.paper or a function of the optimizer, got {build!r}: settings follow by "
            "name, as in attach(trainer, GreedyLR.paper, patience=5)"
        )
    if build not in (GreedyLR, GreedyLR.paper, GreedyLR.core):
        return
    config = settings.get("config")
    bounds = [*settings.values(), *(getattr(config, name, None) for name in DefaultConfig.bounds)]
    groups = max((len(bound) for bound in bounds if isinstance(bound, (list, tuple))), default=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of learning rates that are not the real ones
        build(SGD([{"params": [Parameter(torch.zeros(1))]} for _ in range(groups)], lr=1.0), **settings)


def _say_what_is_dropped(arguments: TrainingArguments) -> None:
    """GreedyLR takes the place of a schedule that somebody may have asked for."""
    defaults = {field.name: field.default for field in fields(TrainingArguments)}
    asked = {
        name: getattr(arguments, name)
        for name in ("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio")
        if name in defaults
    }
    dropped = [
        f"{name}={getattr(value, 'value', value)!r}"
        for name, value in asked.items()
        if value and value != defaults[name]
    ]
    if dropped and arguments.process_index == 0:
        warnings.warn(
            f"GreedyLR takes the place of the schedule in the training arguments: {', '.join(dropped)} is not used",
            UserWarning,
            stacklevel=3,
        )


class _Attached(TrainerCallback):
    """Link between one trainer and its scheduler."""

    def __init__(
        self,
        trainer: Trainer,
        build: Callable[..., GreedyLR],
        observe: str | Observe,
        observers: tuple[Observer, ...],
        composition: Composition | None,
        settings: dict[str, Any],
    ) -> None:
        self._trainer: Any = trainer  # its annotations know fewer schedulers than it takes
        self._build, self._observe, self._observers, self._settings = build, observe, observers, settings
        self._composition = composition
        self._loop: LoopScheduler | None = None
        self._counts: Counter[Action] = Counter()
        self._trained = False  # whether there was an optimizer step since the last evaluation
        self._training = False  # whether there was one since training began, which has not ended
        self._begun = False  # whether training has begun, and not ended
        self._skips = SkippedSteps()
        self._training_step, self._log = trainer.training_step, trainer.log
        for name in ("create_scheduler", "training_step", "log"):
            setattr(trainer, name, getattr(self, name))
        trainer.add_callback(self)

    # In place of the trainer's own methods.

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LoopScheduler:
        """Called once in every ``train()``, when the optimizer is there and before a checkpoint is loaded."""
        trainer, settings = self._trainer, dict(self._settings)
        if self._build is GreedyLR and self._observe == "loss":
            settings = with_length(settings, num_training_steps)
        scheduler = self._build(trainer.optimizer if optimizer is None else optimizer, **settings)
        for observer in (self._count, *self._observers):
            scheduler.subscribe(observer)
        self._loop = trainer.lr_scheduler = LoopScheduler(scheduler)
        hear_clipping(trainer.accelerator, self._loop)
        return self._loop

    def training_step(self, model: Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        """One micro-batch: forward, backward, and its share of the loss back."""
        composition = None if self._composition is None else self._composition(inputs)
        loss: Tensor = self._training_step(model, inputs, *args, **kwargs)
        if self._observe == "loss" and self._loop is not None:
            self._loop.add(loss, composition)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log with the decisions since the last time, where it is the training that is logged."""
        if "learning_rate" in logs:
            counts = {Action.RAISED: 0, Action.CUT: 0} | self._counts
            logs = {**logs, **{f"greedylr/{action.name.lower()}": count for action, count in counts.items()}}
            self._counts.clear()
        self._log(logs, *args, **kwargs)

    # Events.

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start anew: an earlier ``train()`` may have been interrupted anywhere."""
        self._trained = self._training = False
        self._begun = True
        self._counts.clear()
        self._skips.start(self._trainer.accelerator.scaler)
        # The Trainer swallows what is said when a checkpoint is loaded.
        for message in () if self._loop is None else self._loop.said:
            warnings.warn(message, UserWarning, stacklevel=2)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Comes before ``lr_scheduler.step()``, and for skipped steps too."""
        if self._loop is None:
            return
        if callable(self._observe):
            value = self._observe(self._trainer)
            if value is not None:
                self._loop.add(value)
        if self._skips.skipped(self._trainer.accelerator.scaler):
            self._loop.clear()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Comes after ``lr_scheduler.step()``: what is still there belongs to a step that was skipped."""
        if self._loop is not None:
            self._loop.clear()
        self._trained = self._training = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Comes before the checkpoint is written; also for evaluations that no training step led to."""
        metrics = kwargs["metrics"]
        if self._observe == "metric" and self._loop is not None and self._trained:
            name = str(args.metric_for_best_model)
            name = name if name.startswith("eval_") else f"eval_{name}"
            # Each of several evaluation sets comes with metrics of its own; if none has this one, the Trainer raises.
            if name in metrics:
                self._loop.add(float(metrics[name]))
                self._loop.step()
                self._trained = False
        loop = self._loop
        heard = self._begun and self._observe == "loss" and "eval_loss" in metrics
        if heard and loop is not None and hears_validation(loop.config):
            loop.scheduler.validate(float(metrics["eval_loss"]))
        if self._training:
            known = {name: one for name, one in metrics.items() if name.startswith("eval_")}
            hand_on(self._observers, {name: one for name, one in known.items() if not name.endswith(_TAKEN)})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluations from here on are the user's own."""
        self._trained = self._training = self._begun = False

    def _count(self, decision: Decision) -> None:
        self._counts[decision.action] += 1
