"""Pre-training: Transformers' ``Trainer`` on windows of text, from new weights.

As published: Llama-3.2-1B, 1,000 steps, 100 of them warmup, batches of 1 × 32, bfloat16, AdamW at 2e-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from greedylr.language_models.data import DataError, Texts, find_texts
from greedylr.language_models.models import new
from greedylr.language_models.models.loading import identity_of_configuration
from greedylr.language_models.models.tokenizer import trained
from greedylr.language_models.recipes.common import keep, silent, that_decide, usual, without_prints

if TYPE_CHECKING:
    from greedylr.lab.comparison.trial import Trial

VALIDATION = 64
"""Windows that are validated on, at most."""

_MOST_LEARNT = 2_000_000  # Characters that a tokenizer is trained on; more change hardly a pair.


@dataclass(frozen=True)
class Pretraining:
    """A pre-training: a training function for :func:`greedylr.lab.compare`.

    Attributes:
        config: Of the model: a preset, or a JSON file.
        text: On what: the name of a text, a ``.txt`` file, or a folder of them.
        steps: Optimizer steps.
        batch: Windows of a micro-batch on each device.
        accumulate: Micro-batches of a step.
        length: Tokens of a window.
        vocabulary: Tokens of the tokenizer, which is trained on the text; None: as many as the configuration says.
        keep_model: Whether the trained model is kept in the folder of the run.
    """

    config: str = "llama-1m"
    text: str = "library"
    steps: int = 300
    batch: int = 16
    accumulate: int = 1
    length: int = 128
    vocabulary: int | None = None
    keep_model: bool = False

    @property
    def __name__(self) -> str:
        """Name of the training, on pages and in stored results."""
        return f"{Path(self.config).name.removesuffix('.json')} from new weights on {Path(self.text).name}"

    def __call__(self, trial: Trial) -> None:
        """Train once."""
        with silent():
            trainer = self.trainer(str(trial.folder), trial.lr, trial.seed)
            trial.train(trainer)
            if self.keep_model:
                keep(trainer, trial.folder)

    def trainer(self, folder: str, lr: float, seed: int) -> Trainer:
        """A trainer with new weights."""
        arguments = TrainingArguments(
            output_dir=folder,
            learning_rate=lr,
            seed=seed,
            per_device_train_batch_size=self.batch,
            per_device_eval_batch_size=self.batch,
            gradient_accumulation_steps=self.accumulate,
            **usual(self.steps),
        )
        torch.manual_seed(seed)
        train, validation = self._windows
        trainer = Trainer(
            new(self.config, len(self.tokenizer)),
            arguments,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=self.tokenizer,
        )
        without_prints(trainer)
        return trainer

    def settings(self) -> dict[str, Any]:
        """All that decides a result beside the code."""
        return {**that_decide(self), "identity": identity_of_configuration(self.config), "digest": self._texts.digest()}

    def check(self) -> None:
        """Raise what training would, before anything is trained.

        Raises:
            ModelError: If there is no such configuration.
            DataError: If the text cannot be had, or is too short.
        """
        most = identity_of_configuration(self.config).get("max_position_embeddings")
        if most is not None and self.length > most:
            raise DataError(f"windows of {self.length} tokens are too long: {self.config} takes at most {most}")
        train, validation = self._windows
        if len(train) < self.batch or not len(validation):
            raise DataError(
                f"{self.text} has {len(train)} windows of {self.length} tokens to train on and {len(validation)} to "
                f"validate on; {self.batch} and one are the fewest: give more text, or a smaller length"
            )

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Trained on the part of the text that is trained on."""
        vocabulary = self.vocabulary or int(identity_of_configuration(self.config)["vocab_size"])
        return trained(_first(self._texts.train, _MOST_LEARNT), vocabulary)

    @cached_property
    def _texts(self) -> Texts:
        return find_texts(self.text)

    @cached_property
    def _windows(self) -> tuple[Windows, Windows]:
        train, validation = (self._numbers(part) for part in (self._texts.train, self._texts.validation))
        apart = max(self.length, len(validation) // VALIDATION)
        return Windows(train, self.length, self.length), Windows(validation, self.length, apart)

    def _numbers(self, documents: Sequence[str]) -> Tensor:
        end = self.tokenizer.eos_token_id
        listed = self.tokenizer(list(documents), verbose=False)["input_ids"]
        return torch.tensor([number for document in listed for number in [*document, end]])


class Windows(Dataset[dict[str, Tensor]]):
    """Stretches of a text; the model predicts every token from those before it.

    Args:
        text: Numbers of tokens.
        length: Tokens of a window.
        apart: Tokens from the beginning of one window to that of the next.
    """

    def __init__(self, text: Tensor, length: int, apart: int) -> None:
        self._windows = text.unfold(0, length, apart) if len(text) >= length else torch.empty(0, length)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        window = self._windows[number]
        return {"input_ids": window, "labels": window}


def _first(documents: Sequence[str], characters: int) -> list[str]:
    """Documents, as many as so many characters need."""
    taken: list[str] = []
    for document in documents:
        if characters <= 0:
            break
        taken.append(document[:characters])
        characters -= len(document)
    return taken


PUBLISHED = {"steps": 1000, "batch": 1, "accumulate": 32, "length": 2048}
"""The authors' settings for pre-training Llama-3.2-1B; the length is not known."""

PUBLISHED_LR = 2e-4
