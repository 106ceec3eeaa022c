"""Reinforcement learning: TRL's ``GRPOTrainer``, rewarded for answers that are like the right ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets  # type: ignore[import-untyped]
from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]

from greedylr.language_models.data import DataError, Examples, find
from greedylr.language_models.models import identity, load
from greedylr.language_models.recipes.common import keep, silent, that_decide, usual, without_prints

if TYPE_CHECKING:
    from greedylr.lab.comparison.trial import Trial

VALIDATION = 16
"""Prompts that are validated on."""


@dataclass(frozen=True)
class GRPO:
    """A training on rewards: a training function for :func:`greedylr.lab.compare`.

    Schedulers are told the mean reward of each step; they are judged by 1 minus that on prompts that are not trained
    on, of answers that are drawn as in training.

    Attributes:
        model: As for :class:`greedylr.language_models.recipes.FineTuning`.
        data: Likewise; its rows have a prompt and a completion.
        steps: Optimizer steps.
        answers: Answers drawn for each prompt.
        prompts: Prompts of a step.
        tokens: The most tokens of an answer.
        keep_model: Whether the trained model is kept in the folder of the run.
    """

    model: str = "tiny"
    data: str = "sql"
    steps: int = 100
    answers: int = 8
    prompts: int = 2
    tokens: int = 32
    keep_model: bool = False

    @property
    def __name__(self) -> str:
        """Name of the training, on pages and in stored results."""
        return f"{Path(self.model).name} on rewards for {Path(self.data).name}"

    def __call__(self, trial: Trial) -> None:
        """Train once."""
        with silent():
            self._train(trial)

    def _train(self, trial: Trial) -> None:
        model, tokenizer = load(self.model)
        examples = self._examples
        arguments = GRPOConfig(
            output_dir=str(trial.folder),
            learning_rate=trial.lr,
            seed=trial.seed,
            per_device_train_batch_size=self.answers * self.prompts,
            per_device_eval_batch_size=self.answers * self.prompts,
            num_generations=self.answers,
            num_generations_eval=self.answers,
            max_completion_length=self.tokens,
            **usual(self.steps),
        )
        trainer = GRPOTrainer(
            model,
            likeness,
            args=arguments,
            train_dataset=_asked(examples.train),
            eval_dataset=_asked(examples.validation[:VALIDATION]),
            processing_class=tokenizer,
        )
        without_prints(trainer)
        trial.train(trainer, _lost)
        if self.keep_model:
            keep(trainer, trial.folder)

    def settings(self) -> dict[str, Any]:
        """All that decides a result beside the code."""
        return {**that_decide(self), "identity": identity(self.model), "digest": self._examples.digest()}

    def check(self) -> None:
        """Raise what training would, before anything is trained.

        Raises:
            ModelError: If the model cannot be had.
            DataError: If the data cannot be had, or have no completions.
        """
        with silent():
            load(self.model)
        if not all("completion" in row for row in self._examples.train):
            raise DataError(f"rows of {self.data} must have a prompt and a completion, by which answers are rewarded")

    @cached_property
    def _examples(self) -> Examples:
        return find(self.data)


def likeness(completions: Sequence[str], right: Sequence[str], **others: Any) -> list[float | None]:
    """Reward of each answer: the likeness of its first line to the right one, from 0 to 1."""
    firsts = [answer.strip().split("\n")[0] for answer in completions]
    return [SequenceMatcher(None, *pair, autojunk=False).ratio() for pair in zip(firsts, right, strict=True)]


def _asked(rows: Sequence[Mapping[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"prompt": row["prompt"], "right": row["completion"].strip()} for row in rows])


def _lost(metrics: Mapping[str, float]) -> float:
    return 1.0 - metrics["eval_reward"]
