"""A trial whose training is a Transformers ``Trainer``'s: the scheduler goes in, losses and validations come out."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from greedylr import Action, Decision, GreedyLR
from greedylr.adapters.trainer import attach as on_the_loss
from greedylr.adapters.trainer import safe_for
from greedylr.control.default.config import DefaultConfig
from greedylr.control.observers import Observer, introduce, tell
from greedylr.lab.catalogue.grammar import read, write
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.comparison.chosen import Chosen, told
from greedylr.pulse import Recorder
from greedylr.pulse.recording.storage import settings as recorded

if TYPE_CHECKING:
    from greedylr.lab.comparison.trial import Trial

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

HOPELESS = 10
"""Losses in a row that are not finite, after which a training is given up."""

_REPORTED = "trial.json"
"""File of a checkpoint that is written last: without it, the checkpoint is not whole."""


Validation = Callable[[Mapping[str, float]], float]
"""Gives the loss that schedulers are judged by, from the metrics of an evaluation."""


def train(trial: Trial, trainer: Trainer, validation: Validation | None = None) -> None:
    """Train, and report to the trial; see :meth:`greedylr.lab.comparison.Trial.train`."""
    if not isinstance(trainer, Trainer):
        raise TypeError(f"trial.train takes a transformers.Trainer, got {type(trainer).__name__}: see docs/compare.md")
    arguments = trainer.args
    if not math.isclose(arguments.learning_rate, trial.lr, rel_tol=1e-6):
        raise ValueError(f"the trainer's learning_rate is {arguments.learning_rate:g}; give it trial.lr, {trial.lr:g}")
    if arguments.seed != trial.seed:
        raise ValueError(f"the trainer's seed is {arguments.seed}; give it trial.seed, {trial.seed}")
    if trainer.eval_dataset is None:
        raise ValueError("the trainer has no eval_dataset: schedulers are judged by the loss on one")
    mode: Literal["min", "max"] = "min"
    attach = on_the_loss
    if _earns_rewards(trainer):
        from greedylr.adapters.trl import attach as on_the_reward

        mode, attach = "max", on_the_reward
    chosen = _for_a_trainer(trial._chosen, trainer, mode)
    made: list[Any] = []

    def build(optimizer: Optimizer, **settings: Any) -> Any:
        scheduler = trial._make(optimizer, trainer.state.max_steps, chosen)
        ours = isinstance(scheduler, GreedyLR)
        trial._config = recorded(scheduler.config) if ours else {"mode": mode}
        made.append(scheduler if ours else _Foreign(Named(chosen.name, mode), scheduler, optimizer))
        return made[-1]

    meta: dict[str, float | str] = {"scheduler": trial.scheduler, "lr": trial.lr, "seed": trial.seed}
    with Recorder(trial.folder, meta=meta) if trial.folder is not None else nullcontext() as recorder:
        attach(trainer, build, observers=[trial._observe, *([] if recorder is None else [recorder])])
        trainer.add_callback(_Reporter(trial, made, validation or _eval_loss))
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(trial, arguments))
        last = _still_on_the_device(made[-1])
        if last is not None:
            trial._observe(last)
        if trainer.state.global_step not in trial._validations:
            trainer.evaluate()


def _earns_rewards(trainer: Trainer) -> bool:
    if "trl" not in sys.modules:  # Nobody has made one of TRL's trainers.
        return False
    from greedylr.adapters.trl import earns_rewards, steps_per_generation

    if not earns_rewards(trainer):
        return False
    if steps_per_generation(trainer) > 1:
        raise ValueError(
            "a generation of the trainer is used for several optimizer steps; schedulers are compared where each step "
            "has one of its own: steps_per_generation=gradient_accumulation_steps, num_iterations=1"
        )
    return True


def _eval_loss(metrics: Mapping[str, float]) -> float:
    return metrics["eval_loss"]


def _for_a_trainer(chosen: Chosen, trainer: Trainer, mode: Literal["min", "max"]) -> Chosen:
    """The default family as the adapter sets it up, which knows whether the model is pre-trained."""
    if chosen.registered is None:
        return chosen
    made = chosen.make(SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), 1000)
    name = chosen.registered
    if isinstance(made, GreedyLR) and isinstance(made.config, DefaultConfig):
        entry, settings = read(name)
        name = write(entry, safe_for(trainer, GreedyLR, settings, on_the_loss=mode == "min") | settings)
    return replace(chosen, make=partial(SCHEDULERS[name].build, mode=mode))


def _last_whole_checkpoint(trial: Trial, arguments: TrainingArguments) -> str | None:
    """The last one that was written to the end, with what had been reported by then taken in; None if there is none."""
    if trial.folder is None or Path(str(arguments.output_dir)) != trial.folder:
        return None
    whole = [file.parent for file in trial.folder.glob(f"checkpoint-*/{_REPORTED}")]
    if not whole:
        return None
    last = max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))
    trial.load_state_dict(json.loads((last / _REPORTED).read_text(encoding="utf-8")))
    return str(last)


def _still_on_the_device(scheduler: Any) -> Decision | None:
    """The last loss, if a scheduler that reads losses a step later has not acted on it."""
    if not isinstance(scheduler, GreedyLR):
        return None
    state = scheduler.state_dict()
    if state["pending_loss"] is None:
        return None
    lrs = tuple(float(group["lr"]) for group in scheduler.optimizer.param_groups)
    return Decision(scheduler.last_epoch + 1, float(state["pending_loss"]), Action.GATHERING, lrs, lrs, {})


class _Reporter(TrainerCallback):
    """Tells the trial how validations went, and keeps with every checkpoint what it has been told."""

    def __init__(self, trial: Trial, made: list[Any], validation: Validation) -> None:
        self._trial, self._made, self._validation = trial, made, validation

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Report a validation, given the metrics of the evaluation set."""
        self._trial._validations[state.global_step] = float(self._validation(kwargs["metrics"]))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Comes after the scheduler's step."""
        last = self._trial._losses[-HOPELESS:]
        if len(last) == HOPELESS and not any(map(math.isfinite, last)):
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Comes after everything else of the checkpoint has been written."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        goes_on = hasattr(getattr(self._made[-1], "scheduler", self._made[-1]), "state_dict")
        if state.is_world_process_zero and folder.is_dir() and goes_on:
            part = folder / f"{_REPORTED}.part"
            part.write_text(json.dumps(self._trial.state_dict()), encoding="utf-8")
            os.replace(part, folder / _REPORTED)


@dataclass(frozen=True)
class Named:
    """The settings of a scheduler of another kind, as the trace keeps them.

    Attributes:
        scheduler: Its name.
        mode: Whether the observed value is to go down, a loss, or up, a reward.
    """

    scheduler: str
    mode: str = "min"


class _Foreign:
    """A scheduler of another kind, with what :func:`attach` needs of one: told the loss that was optimised, watched."""

    def __init__(self, config: Named, scheduler: Any, optimizer: Optimizer) -> None:
        self.config = config
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.last_epoch = 0
        self._tell = told(scheduler)
        self._observers: list[Observer] = []

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        introduce(observer, self)
        self._observers.append(observer)
        return lambda: self._observers.remove(observer)

    def step(self, loss: float | Tensor, composition: object = None, grad_norm: object = None) -> None:
        value = _mean_over_ranks(loss)
        before = self._lrs()
        if self._tell is None:
            self.scheduler.step()
        else:
            self._tell(value)
        self.last_epoch += 1
        after = self._lrs()
        tell(self._observers, Decision(self.last_epoch, value, self._action(before, after), before, after, {}))

    def _action(self, before: tuple[float, ...], after: tuple[float, ...]) -> Action:
        if self._tell is None:
            return Action.WARMING_UP if after > before else Action.ANNEALING
        if after == before:
            return Action.PATIENCE
        return Action.RAISED if after > before else Action.CUT

    def _lrs(self) -> tuple[float, ...]:
        return tuple(float(group["lr"]) for group in self.optimizer.param_groups)

    def get_last_lr(self) -> list[float]:
        return list(self._lrs())

    def state_dict(self) -> dict[str, Any]:
        state = self.scheduler.state_dict() if hasattr(self.scheduler, "state_dict") else None
        return {"last_epoch": self.last_epoch, "scheduler": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last_epoch = state["last_epoch"]
        self.scheduler.load_state_dict(state["scheduler"])
        for observer in self._observers:
            introduce(observer, self)


def _mean_over_ranks(loss: float | Tensor) -> float:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return float(loss)
    mean = torch.as_tensor(loss, dtype=torch.float32).detach().clone().reshape(())
    distributed.all_reduce(mean)
    return float(mean) / distributed.get_world_size()
