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
    SIZES,
    SPECIAL,
    WIDTH,
    Architecture,
    library,
)
from greedylr.lab.catalogue.problems.transformers.sets.corpus import Corpus
from greedylr.lab.catalogue.problems.transformers.tokens import VOCABULARY

_HEADS = {
    "text-classification": "ForSequenceClassification",
    "question-answering": "ForQuestionAnswering",
    "token-classification": "ForTokenClassification",
}
_USUAL = {**SIZES, "max_position_embeddings": POSITIONS}


def _built(name: str, sizes: dict[str, Any], corpus: Corpus) -> nn.Module:
    classes = {"num_labels": corpus.classes} if corpus.classes else {}
    config = getattr(library(), f"{name}Config")(
        vocab_size=VOCABULARY, initializer_range=DEVIATION, **SPECIAL, **sizes, **classes
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
