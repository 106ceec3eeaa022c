"""Encoders with a decoder, which write a text for a text."""

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
    WIDTH,
    Architecture,
    library,
)
from greedylr.lab.catalogue.problems.transformers.sets.corpus import Corpus
from greedylr.lab.catalogue.problems.transformers.tokens import END, PADDING, START, VOCABULARY

_USUAL = {
    "d_model": WIDTH,
    "encoder_layers": DEPTH,
    "decoder_layers": DEPTH,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER,
    "max_position_embeddings": POSITIONS,
    "init_std": DEVIATION,
    "bos_token_id": START,
    "forced_eos_token_id": None,
}
_T5 = {"d_model": WIDTH, "num_layers": DEPTH, "num_heads": HEADS, "d_kv": WIDTH // HEADS, "d_ff": INNER}


def _built(config: str, model: str, sizes: dict[str, Any], corpus: Corpus) -> nn.Module:
    special = {"pad_token_id": PADDING, "eos_token_id": END, "decoder_start_token_id": START}
    made: nn.Module = getattr(library(), model)(getattr(library(), config)(vocab_size=VOCABULARY, **special, **sizes))
    return made


ENTRIES = (
    Architecture("t5", "T5", partial(_built, "T5Config", "T5ForConditionalGeneration", _T5)),
    Architecture("bart", "BART", partial(_built, "BartConfig", "BartForConditionalGeneration", _USUAL)),
    Architecture("pegasus", "Pegasus", partial(_built, "PegasusConfig", "PegasusForConditionalGeneration", _USUAL)),
    Architecture("marian", "Marian", partial(_built, "MarianConfig", "MarianMTModel", _USUAL)),
)
