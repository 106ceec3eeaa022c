"""Fine-tuning: TRL's ``SFTTrainer`` on prompts and completions, in full or by low-rank adapters.

As published: Phi-2, Falcon-7B and Gemma-7B, AdamW at 2e-4, batches of 3, 6,000 examples, adapters of rank 8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets  # type: ignore[import-untyped]
import torch
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from greedylr.language_models.data import DataError, Examples, find
from greedylr.language_models.data.examples import BLOCK, Row
from greedylr.language_models.models import PRESETS, ModelError, identity, load
from greedylr.language_models.models.presets import RANK
from greedylr.language_models.recipes.common import keep, on_cuda, silent, that_decide, usual, without_prints

if TYPE_CHECKING:
    from greedylr.lab.comparison.trial import Trial

SCORED = 32
"""Validation examples that are answered after training, where there is a score."""


@dataclass(frozen=True)
class FineTuning:
    """A fine-tuning: a training function for :func:`greedylr.lab.compare`.

    Attributes:
        model: What to train: ``tiny``, a preset, a folder, or a name on the hub.
        data: On what: the name of a set, a JSONL file, or a name on the hub.
        lora: Whether adapters are trained, or all weights.
        steps: Optimizer steps.
        batch: Examples of a micro-batch on each device.
        accumulate: Micro-batches of a step.
        length: The most tokens of an example; None: as many as the longest has.
        examples: How many to train on, at most; None: all there are.
        in_turns: Whether examples come in the order of the data, set after set, and not shuffled; each seed begins
            with another block.
        keep_model: Whether the trained model, or its adapters, are kept in the folder of the run.
    """

    model: str = "tiny"
    data: str = "sql"
    lora: bool = False
    steps: int = 100
    batch: int = 8
    accumulate: int = 1
    length: int | None = None
    examples: int | None = None
    in_turns: bool = False
    keep_model: bool = False

    @property
    def __name__(self) -> str:
        """Name of the training, on pages and in stored results."""
        return f"{Path(self.model).name} on {Path(self.data).name}{', by adapters' if self.lora else ''}"

    def __call__(self, trial: Trial) -> None:
        """Train once."""
        with silent():
            self._train(trial)

    def _train(self, trial: Trial) -> None:
        model, tokenizer = load(self.model, torch.bfloat16 if self.lora and on_cuda() else torch.float32)
        examples = self._examples
        length = self._length(examples, tokenizer, model.config)
        arguments = SFTConfig(
            output_dir=str(trial.folder),
            learning_rate=trial.lr,
            seed=trial.seed,
            per_device_train_batch_size=self.batch,
            per_device_eval_batch_size=self.batch,
            gradient_accumulation_steps=self.accumulate,
            max_length=length,
            train_sampling_strategy="sequential" if self.in_turns else "random",
            **usual(self.steps),
        )
        trainer = SFTTrainer(
            model,
            arguments,
            train_dataset=datasets.Dataset.from_list(self._ordered(examples.train, trial.seed)),
            eval_dataset=datasets.Dataset.from_list(examples.validation),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, task_type="CAUSAL_LM") if self.lora else None,
        )
        without_prints(trainer)
        trial.train(trainer)
        if self.keep_model:
            keep(trainer, trial.folder)
        trial.measure(self._score(trainer, tokenizer, examples))

    def settings(self) -> dict[str, Any]:
        """All that decides a result beside the code."""
        return {**that_decide(self), "identity": identity(self.model), "digest": self._examples.digest()}

    def check(self) -> None:
        """Raise what training would, before anything is trained.

        Raises:
            ModelError: If the model cannot be had.
            DataError: If the data cannot be had, or an example is too long.
        """
        with silent():
            model, tokenizer = load(self.model)
        self._length(self._examples, tokenizer, model.config)

    @cached_property
    def _examples(self) -> Examples:
        return find(self.data).first(self.examples)

    def _ordered(self, rows: list[Row], seed: int) -> list[Row]:
        first = seed * BLOCK % len(rows) if self.in_turns else 0
        return rows[first:] + rows[:first]

    def _length(self, examples: Examples, tokenizer: PreTrainedTokenizerBase, config: Any) -> int:
        """The most tokens of an example."""
        try:
            lengths = [_tokens(row, tokenizer) for row in [*examples.train, *examples.validation]]
        except ValueError as error:
            raise ModelError(f"{self.model} cannot read {self.data}: {error}") from error
        longest = max(lengths)
        most = int(getattr(config, "max_position_embeddings", None) or longest)
        allowed = min(self.length or most, most)
        if longest > allowed:
            too_long = sum(length > allowed for length in lengths)
            who = f"{self.model} takes at most {most}" if allowed == most else f"--length allows {allowed}"
            raise DataError(
                f"{too_long} of {len(lengths)} examples of {self.data} are too long: the longest has {longest} tokens, "
                f"and {who}. Shorten them, or leave them out"
            )
        return longest

    def _score(self, trainer: SFTTrainer, tokenizer: PreTrainedTokenizerBase, examples: Examples) -> float:
        """The task's own measure; without one, the share of the tokens that were predicted."""
        if examples.score is None:
            logged = [entry["eval_mean_token_accuracy"] for entry in trainer.state.log_history if "eval_loss" in entry]
            return float(logged[-1])
        rows = examples.validation[:SCORED]
        return examples.score(_answers(trainer.model, tokenizer, rows), rows)


def _tokens(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> int:
    if "messages" in row:
        if tokenizer.chat_template is None:
            raise ValueError("its tokenizer has no chat template; give rows with a prompt and a completion")
        return len(tokenizer.apply_chat_template(row["messages"], return_dict=False))
    text = row["text"] if "text" in row else row["prompt"] + row["completion"]
    return len(tokenizer(text)["input_ids"]) + 1  # with the end


@torch.no_grad()
def _answers(model: Any, tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]]) -> list[str]:
    """Continuation of each prompt, the likeliest token at a time."""
    longest = max(len(tokenizer(row["completion"])["input_ids"]) for row in rows) + 8
    model.eval()
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    batch = tokenizer([row["prompt"] for row in rows], return_tensors="pt", padding=True).to(model.device)
    tokenizer.padding_side = side
    if not all(map(math.isfinite, (float(weight.sum()) for weight in model.parameters()))):
        return [""] * len(rows)
    made = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=longest,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return list(tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True))


PUBLISHED = {"lora": True, "steps": 2000, "batch": 3, "examples": 6000}
"""The authors' settings for fine-tuning, as far as they are known."""

PUBLISHED_LR = 2e-4


def is_published(model: str) -> bool:
    """True if a model is one of those that they fine-tuned."""
    return model in PRESETS and model.split("-")[0] in ("phi", "falcon", "gemma")
