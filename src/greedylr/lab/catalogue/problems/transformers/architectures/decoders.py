"""Decoders, which go on with a text: of attention, and a recurrent one."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from greedylr.lab.catalogue.problems.transformers.architectures.architecture import (
    DEPTH,
    DEVIATION,
    HEADS,
    INNER,
    POSITIONS,
    SIZES,
    SPECIAL,
    WIDTH,
    Architecture,
    library,
)
from greedylr.lab.catalogue.problems.transformers.sets.corpus import Corpus
from greedylr.lab.catalogue.problems.transformers.tokens import LENGTH, VOCABULARY

_LLAMA = {**SIZES, "max_position_embeddings": POSITIONS}
_GEMMA = {
    **SIZES,
    "num_hidden_layers": DEPTH + 1,  # Two that are recurrent, and one of attention.
    "lru_width": WIDTH,
    "attention_window_size": LENGTH // 2,
}
_GPT2 = {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": HEADS, "n_inner": INNER, "n_positions": POSITIONS}


def _built(config: str, model: str, sizes: dict[str, Any], corpus: Corpus) -> nn.Module:
    made: nn.Module = getattr(library(), model)(
        getattr(library(), config)(
            vocab_size=VOCABULARY,
            initializer_range=DEVIATION,
            use_cache=False,
            loss_type="ForCausalLM",
            **SPECIAL,
            **sizes,
        )
    )
    return made


ENTRIES = (
    Architecture("gpt2", "GPT-2", partial(_built, "GPT2Config", "GPT2LMHeadModel", _GPT2)),
    Architecture("llama", "Llama", partial(_built, "LlamaConfig", "LlamaForCausalLM", _LLAMA)),
    Architecture(
        "recurrentgemma",
        "RecurrentGemma",
        partial(_built, "RecurrentGemmaConfig", "RecurrentGemmaForCausalLM", _GEMMA),
    ),
)
