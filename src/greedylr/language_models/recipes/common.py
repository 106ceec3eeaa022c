"""Arguments of the trainer that all recipes share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import torch
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from transformers.utils import logging

LOOKS = 10
"""Validations in a training, evenly, beside the one before the first step; as many checkpoints."""


_CHECKPOINTING = next(
    one
    for one in ("activation_checkpointing", "gradient_checkpointing")
    if one in TrainingArguments.__dataclass_fields__
)
"""Argument for checkpointed activations, by the name that the installed version has for it."""


def on_cuda() -> bool:
    """True if there is a CUDA device to train on."""
    return torch.cuda.is_available()


def usual(steps: int) -> dict[str, Any]:
    """Arguments of every trainer here."""
    every = max(1, steps // LOOKS)
    return {
        "max_steps": steps,
        "eval_strategy": "steps",
        "eval_steps": every,
        "eval_on_start": True,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,  # The one before the last is there until the last is whole.
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not on_cuda(),
        "bf16": on_cuda(),
        _CHECKPOINTING: on_cuda(),
    }


@contextmanager
def silent() -> Iterator[None]:
    """Keep libraries from showing a dozen bars a run, and from warning one another of what is to come."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    others = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if not others:
            datasets.enable_progress_bars()


def without_prints(trainer: Trainer) -> None:
    """Let a trainer print nothing: the command shows how far all runs have come."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


MODEL = "model"
"""Folder of a trained model, in that of its run."""


def keep(trainer: Trainer, folder: Path | None) -> None:
    """Keep the trained model and its tokenizer in the folder of a run, if it has one, for ``from_pretrained``."""
    if folder is not None:
        trainer.save_model(str(folder / MODEL))


def that_decide(recipe: Any) -> dict[str, Any]:
    """Attributes of a recipe that its results depend on: all but whether the model is kept."""
    return {name: value for name, value in asdict(recipe).items() if name != "keep_model"}
