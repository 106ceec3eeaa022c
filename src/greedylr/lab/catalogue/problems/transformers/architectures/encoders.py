"""Encoders, with a head for what is asked."""

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

_HEADS = {
    "text-classification": "ForSequenceClassification",
    "question-answering": "ForQuestionAnswering",
    "token-classification": "ForTokenClassification",
}
_USUAL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
}


def _built(name: str, sizes: dict[str, Any], corpus: Corpus) -> nn.Module:
    special = {"pad_token_id": PADDING, "bos_token_id": START, "eos_token_id": END}
    classes = {"num_labels": corpus.classes} if corpus.classes else {}
    config = getattr(library(), f"{name}Config")(
        vocab_size=VOCABULARY, initializer_range=DEVIATION, **special, **sizes, **classes
    )
    model: nn.Module = getattr(library(), name + _HEADS[corpus.kind])(config)
    return model


ENTRIES = (
    Architecture("bert", "BERT", partial(_built, "Bert", _USUAL)),
    Architecture("roberta", "RoBERTa", partial(_built, "Roberta", _USUAL)),
    Architecture("camembert", "CamemBERT", partial(_built, "Camembert", _USUAL)),
    Architecture(
        "distilbert",
        "DistilBERT",
        partial(
            _built,
            "DistilBert",
            {
                "dim": WIDTH,
                "n_layers": DEPTH,
                "n_heads": HEADS,
                "hidden_dim": INNER,
                "max_position_embeddings": POSITIONS,
            },
        ),
    ),
    Architecture("electra", "ELECTRA", partial(_built, "Electra", {**_USUAL, "embedding_size": WIDTH})),
)
