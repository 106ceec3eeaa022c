"""Loads a model and its tokenizer by name: from the hub, a folder, or made here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from greedylr.language_models.models.presets import PRESETS, configuration

TINY = "tiny"
"""The model of a million weights that is pre-trained here."""


class ModelError(Exception):
    """A model cannot be had; the message says which, why, and what to do."""


class Loaded(NamedTuple):
    """A model and what makes numbers of its text."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(name: str, dtype: torch.dtype = torch.float32) -> Loaded:
    """A pre-trained model, ready to be trained on.

    Args:
        name: ``tiny``; a preset that has weights; a folder that ``save_pretrained`` wrote, of a model or of adapters;
            or a name on the hub.
        dtype: Of its weights.

    Raises:
        ModelError: If it cannot be had.
    """
    place = _place(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype)
        if getattr(model, "_hf_peft_config_loaded", False):
            # Adapters are put into the weights, so that all of them, or new adapters, can be trained further.
            model = AutoPeftModelForCausalLM.from_pretrained(place, dtype=dtype).merge_and_unload()
            model.requires_grad_(True)
    except (OSError, ValueError, KeyError) as error:
        where = "in that folder" if Path(place).is_dir() else "on the hub, or in the cache of what was loaded before"
        raise ModelError(
            f"the model {name} cannot be loaded: there is no causal language model {where}, or no network. Give the "
            f"folder of one that save_pretrained wrote, a name on the hub, or tiny. {_first_line(error)}"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Loaded(model, tokenizer)


def new(config: str, vocabulary: int | None = None) -> PreTrainedModel:
    """A model with new weights, drawn by torch's generator.

    Args:
        config: A preset, or a JSON file as Transformers writes them.
        vocabulary: Number of tokens, in place of the configuration's.

    Raises:
        ModelError: If there is no such configuration.
    """
    made = _configuration(config)
    if vocabulary is not None:
        made.vocab_size = vocabulary
    model: PreTrainedModel = AutoModelForCausalLM.from_config(made)  # type: ignore[no-untyped-call]
    return model


def identity(name: str) -> Any:
    """Identity of a model: of a folder, a digest of its files; of the hub, the name."""
    place = Path(_place(name))
    if not place.is_dir():
        return str(name)
    digest = hashlib.sha256()
    for file in sorted(place.iterdir()):
        if file.suffix in (".json", ".safetensors"):
            digest.update(f"{file.name} {file.stat().st_size} ".encode())
            with file.open("rb") as stream:  # The head of large files has the shapes, and the first weights.
                digest.update(stream.read(1 << 20))
    return digest.hexdigest()[:16]


def identity_of_configuration(config: str) -> dict[str, Any]:
    """All numbers in a configuration.

    Raises:
        ModelError: If there is no such configuration.
    """
    told: dict[str, Any] = json.loads(_configuration(config).to_json_string())
    told.pop("transformers_version", None)
    return told


def _configuration(config: str) -> Any:
    if config in PRESETS:
        return PRESETS[config].configuration()
    try:
        return configuration(Path(config))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"there is no configuration {config}: {_first_line(error)}. Give the JSON file of one, or one of "
            f"{', '.join(PRESETS)}"
        ) from error


def _place(name: str) -> str:
    if name == TINY:
        from greedylr.language_models.recipes.tiny import folder

        return str(folder())
    if name in PRESETS:
        weights = PRESETS[name].weights
        if weights is None:
            raise ModelError(f"{name} has no weights yet: greedylr lm pretrain {name} TEXT --keep-models makes some")
        return weights
    return name


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
