"""Models that can be named: their configurations, where their weights are, and what they need."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

_CONFIGURATIONS = Path(__file__).parent / "configurations"

RANK = 8
"""Rank of adapters, as in the published fine-tuning."""


@dataclass(frozen=True)
class Preset:
    """A model that can be named.

    Attributes:
        name: Its name; that of a file in ``configurations`` as well.
        title: Name to show to a person.
        weights: Name on the hub of its trained weights; None: there are none, it is for pre-training.
    """

    name: str
    title: str
    weights: str | None = None

    def configuration(self) -> PretrainedConfig:
        """The sizes of its layers, from the file that comes with this package: no network."""
        return configuration(_CONFIGURATIONS / f"{self.name}.json")

    def size(self) -> Size:
        """Its size, counted on a model without memory."""
        return size(self.name)


@dataclass(frozen=True)
class Size:
    """Number of weights of a model, and memory that follows from it.

    Attributes:
        parameters: Number of weights.
        adapters: Number of weights in low-rank adapters of rank 8.
        targets: The layers that get adapters, by the last part of their names.
    """

    parameters: int
    adapters: int
    targets: tuple[str, ...]

    @property
    def full(self) -> float:
        """Bytes of weights, gradients and AdamW's two moments in float32, all trained; activations come on top."""
        return 16.0 * self.parameters

    @property
    def low_rank(self) -> float:
        """Bytes with weights in bfloat16, of which only adapters are trained; activations come on top."""
        return 2.0 * self.parameters + 16.0 * self.adapters


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("llama-1m", "Llama, 1 M"),
        Preset("llama-3m", "Llama, 3 M"),
        Preset("llama-3.2-1b", "Llama 3.2, 1 B", "meta-llama/Llama-3.2-1B"),
        Preset("phi-2", "Phi-2, 2.8 B", "microsoft/phi-2"),
        Preset("falcon-7b", "Falcon, 7 B", "tiiuae/falcon-7b"),
        Preset("gemma-7b", "Gemma, 7 B", "google/gemma-7b"),
    )
}
"""Every model that can be named, by its name."""


def configuration(file: Path) -> PretrainedConfig:
    """The configuration in a JSON file, as Transformers writes them.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no configuration; the message says what is wrong.
    """
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(told, dict) or "model_type" not in told:
        raise ValueError('it has no "model_type", such as "llama"')
    made: PretrainedConfig = AutoConfig.for_model(**told)
    return made


@cache
def size(name: str) -> Size:
    """Size of a preset."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(PRESETS[name].configuration())  # type: ignore[no-untyped-call]
    parameters = sum(one.numel() for one in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's, by Transformers
        adapted: Any = get_peft_model(model, LoraConfig(r=RANK, task_type="CAUSAL_LM"))
    targets = sorted({one.rpartition(".")[2] for one in adapted.base_model.targeted_module_names})
    adapters = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    return Size(parameters, adapters, tuple(targets))
