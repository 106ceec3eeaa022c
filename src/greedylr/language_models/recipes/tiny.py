"""``tiny``: a Llama of a million weights, pre-trained on Python's standard library in less than a minute, and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
import transformers

from greedylr.adapters.trainer import attach
from greedylr.lab.catalogue.problems.pretraining import cache_folder
from greedylr.language_models.recipes.common import silent
from greedylr.language_models.recipes.pretraining import Pretraining

RECIPE = Pretraining("llama-1m", "library", steps=400, batch=16, length=128)
"""Its recipe."""

LR, SEED = 3e-3, 1000


def folder() -> Path:
    """The folder that it is in: made where it is first asked for, and kept in the user's cache.

    Raises:
        DataError: If the text cannot be read.
    """
    place = _place()
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all; whoever else makes it now makes the same.
        made = Path(tempfile.mkdtemp(dir=place.parent, suffix=".part"))
        _make(made)
        try:
            os.replace(made, place)
        except OSError:
            shutil.rmtree(made)
            if not place.exists():
                raise
    return place


def is_made() -> bool:
    """True if it is in the cache."""
    return _place().exists()


def _place() -> Path:
    told = json.dumps([RECIPE.settings(), LR, SEED, torch.__version__, transformers.__version__], sort_keys=True)
    return cache_folder().parent / "models" / f"tiny-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _make(into: Path) -> None:
    with silent(), tempfile.TemporaryDirectory() as elsewhere, torch.random.fork_rng(devices=[]):
        trainer = RECIPE.trainer(elsewhere, LR, SEED)
        trainer.args.eval_strategy = trainer.args.save_strategy = transformers.IntervalStrategy.NO
        trainer.args.eval_on_start = False
        attach(trainer)
        trainer.train()
        trainer.save_model(str(into))
