"""One training by the user's own code: what it is told, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import torch
from torch.optim import Optimizer

from greedylr import Decision, GreedyLR
from greedylr.control.families import hears_validation
from greedylr.control.numerals import number
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.comparison.chosen import Chosen, told
from greedylr.lab.results import Result, from_plain, keep_notable, moves, record, to_plain
from greedylr.lab.runs import OWN, Run
from greedylr.presentation.words import count
from greedylr.pulse.recording.storage import settings

if TYPE_CHECKING:
    from transformers import Trainer


class TrialError(RuntimeError):
    """A training function failed, or did not report what it should; the message names the trial."""


class Trial:
    """One training, with one scheduler, at one learning rate, from one seed.

    A training function builds the model and the optimizer, calls :meth:`start`, after every optimizer step
    :meth:`step`, and :meth:`validate` at least once, after the last step. One that builds a Transformers ``Trainer``
    calls :meth:`train` instead of all these.

    Attributes:
        scheduler: Name of the scheduler.
        lr: The initial learning rate: what to build the optimizer with.
        seed: What to seed all that is random with. torch's global generator is seeded already.
        folder: For what is to be kept of this trial alone, if the comparison is kept; else None.
    """

    def __init__(
        self,
        chosen: Chosen,
        lr: float,
        seed: int,
        folder: Path | None = None,
        watch: Callable[[float], None] = lambda share: None,
    ) -> None:
        self.scheduler = chosen.name
        self.lr = lr
        self.seed = seed
        self.folder = folder
        self._watch = watch
        self._chosen = chosen
        self._optimizer: Optimizer | None = None
        self._step: Callable[[float], object] = lambda loss: None
        self._steps = 0
        self._losses: list[float] = []
        self._lrs: list[float] = []
        self._validations: dict[int, float] = {}
        self._hear: Callable[[float], object] = lambda loss: None
        self._decisions: list[Decision] = []
        self._says_nothing = False  # A scheduler that listens, and does not say why it moves.
        self._config: dict[str, Any] = {}
        self._metric: float | None = None

    def start(self, optimizer: Optimizer, steps: int) -> None:
        """Put the learning rate of ``optimizer`` under the scheduler; once, before the first step.

        Args:
            optimizer: Its learning rate, or that of one of its parameter groups, is :attr:`lr`.
            steps: Optimizer steps that the training will take, the same for all trials.

        Raises:
            ValueError: If the learning rate is another, or there are no steps.
            RuntimeError: If the trial has been started before.
        """
        scheduler = self._make(optimizer, steps, self._chosen)
        tell = told(scheduler)
        self._step = tell or (lambda loss: scheduler.step())
        ours, known = isinstance(scheduler, GreedyLR), self._chosen.registered
        # Of one of the user's own it is not known what it does for the loss, and what by the step.
        self._says_nothing = not ours and known is not None and SCHEDULERS[known].moves_for_the_loss
        if ours:
            self._config = settings(scheduler.config)
            scheduler.subscribe(partial(keep_notable, self._decisions))
            if hears_validation(scheduler.config):
                self._hear = scheduler.validate

    def _make(self, optimizer: Optimizer, steps: int, chosen: Chosen) -> Any:
        """The scheduler, made by ``chosen``, on the optimizer of the trial."""
        if self._optimizer is not None:
            raise RuntimeError("trial.start was called twice")
        announced = number(steps)
        if not isinstance(announced, int) or announced < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}")
        lrs = [float(group["lr"]) for group in optimizer.param_groups]
        if not any(math.isclose(lr, self.lr, rel_tol=1e-6) for lr in lrs):
            raise ValueError(f"the optimizer's learning rate is {lrs[0]:g}; build it with lr=trial.lr, {self.lr:g}")
        self._optimizer, self._steps = optimizer, announced
        return chosen.make(optimizer, self._steps)

    def step(self, loss: SupportsFloat) -> None:
        """Report the minibatch loss of an optimizer step that has just been taken, and step the scheduler.

        Args:
            loss: As it was before the step; a number, or a tensor with one element.

        Raises:
            RuntimeError: If the trial has not been started, or has taken all its steps.
        """
        optimizer = self._started()
        if len(self._losses) == self._steps:
            raise RuntimeError(
                f"trial.step was called more often than the {count(self._steps, 'time')} that start was told"
            )
        value = _number(loss)
        self._losses.append(value)
        self._lrs.append(float(optimizer.param_groups[0]["lr"]))
        self._step(value)
        self._watch(len(self._losses) / self._steps)

    def validate(self, loss: SupportsFloat) -> None:
        """Report the validation loss, lower is better; a scheduler that asks for it, ``greedylr-validated``, hears it.

        Schedulers are judged by the one after the last step. Those at a tenth and at half of the steps are compared
        too, if they are there. One before the first step tells who learnt nothing; without it the first minibatch
        loss does.

        Args:
            loss: A number, or a tensor with one element.

        Raises:
            RuntimeError: If the trial has not been started.
        """
        self._started()
        self._validations[len(self._losses)] = value = _number(loss)
        self._hear(value)

    def measure(self, metric: SupportsFloat) -> None:
        """Report the task's own measure of success after the last step: carried along, not judged.

        Args:
            metric: A number, or a tensor with one element.

        Raises:
            RuntimeError: If the trial has not been started.
        """
        self._started()
        self._metric = _number(metric)

    def train(self, trainer: Trainer, validation: Callable[[Mapping[str, float]], float] | None = None) -> None:
        """Train with a Transformers ``Trainer``, or one of TRL's, under the scheduler: in place of ``trainer.train()``.

        All that is random follows from the arguments' ``seed``, so that must be the trial's. The trainer is validated
        where its ``eval_strategy`` says, and at the end in any case. If the comparison is kept, so is the trace of the
        training, in :attr:`folder`; and the trainer's checkpoints belong there as well, as its ``output_dir``:
        a training that was interrupted goes on from the last one.

        Args:
            trainer: Made with ``learning_rate=trial.lr``, ``seed=trial.seed`` and an evaluation set, and no scheduler.
            validation: Gives the loss that schedulers are judged by, from the metrics of an evaluation; None: its
                ``eval_loss``. Where a reward is earned: ``lambda metrics: 1 - metrics["eval_reward"]``, say.

        Raises:
            TypeError: If it is no ``Trainer``.
            ValueError: If it was made with something else.
            RuntimeError: If the trial has been started before.

        Example:
            See ``docs/compare.md``.
        """
        from greedylr.lab.comparison.on_a_trainer import train

        train(self, trainer, validation)

    def state_dict(self) -> dict[str, Any]:
        """Everything reported so far, as plain data: to be saved with the model, by a function that can go on."""
        return {
            "losses": list(self._losses),
            "lrs": list(self._lrs),
            "validations": list(self._validations.items()),
            "decisions": [to_plain(one) for one in self._decisions],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave; the scheduler's own state is another matter."""
        self._losses[:] = state["losses"]
        self._lrs[:] = state["lrs"]
        self._validations = {int(step): float(loss) for step, loss in state["validations"]}
        self._decisions[:] = [from_plain(one) for one in state["decisions"]]

    def result(self, problem: str) -> Result:
        """Outcome of the trial.

        Args:
            problem: What the training is called.

        Raises:
            RuntimeError: If the training function did not call what it should.
        """
        optimizer = self._started()
        done = len(self._losses)
        if not done:
            raise RuntimeError("trial.step was never called: call it with the loss after every optimizer step")
        # Who has met NaN may give up early: nothing would have come of the rest.
        given_up = done < self._steps and not math.isfinite(self._losses[-1])
        if done < self._steps and not given_up:
            raise RuntimeError(
                f"trial.step was called {count(done, 'time')}, but start was told of {count(self._steps, 'step')}"
            )
        if done not in self._validations and not given_up:
            raise RuntimeError("trial.validate was not called after the last step: by that loss schedulers are judged")
        self._validations.setdefault(0, self._losses[0])
        if not math.isfinite(self._validations[0]):
            raise RuntimeError(f"the loss before the first step is {self._validations[0]}: no scheduler can help that")
        lrs = [*self._lrs, float(optimizer.param_groups[0]["lr"])]
        decisions = moves(self._losses, lrs) if self._says_nothing else self._decisions
        kept = record(self._losses, lrs, dict(sorted(self._validations.items())), decisions, config=self._config)
        while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
            optimizer = inner  # Accelerate puts its own around it.
        run = Run(
            problem, self.lr, self.scheduler, self.seed, self._steps, type(optimizer).__name__.lower(), absolute=True
        )
        failure = f"gave up after a loss of {self._losses[-1]}" if given_up else None
        return Result(run, kept, self._metric, failure, OWN)

    def _observe(self, decision: Decision) -> None:
        """Take in a step as a scheduler tells of it, when it has been acted on."""
        self._losses.append(decision.loss)
        self._lrs.append(decision.lr_before[0])
        keep_notable(self._decisions, decision)
        self._watch(len(self._losses) / self._steps)

    def _started(self) -> Optimizer:
        if self._optimizer is None:
            raise RuntimeError("trial.start was not called: call it with the optimizer and the number of steps first")
        return self._optimizer


def run_trial(function: Callable[[Trial], object], problem: str, trial: Trial) -> Result:
    """Call a training function, with torch's global generator seeded, and put back as it was.

    Raises:
        TrialError: If the function raises something, or does not report what it should.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        try:
            function(trial)
            return trial.result(problem)
        except Exception as error:
            name = type(error).__name__
            raise TrialError(f"{trial.scheduler} at lr {trial.lr:g}, seed {trial.seed}: {name}: {error}") from error


def _number(loss: SupportsFloat) -> float:
    if getattr(loss, "shape", ()) not in ((), (1,)):
        raise ValueError(f"a loss must be a number, or a tensor or array with one element, got {loss!r}")
    return float(loss.item() if hasattr(loss, "item") else loss)
