"""Entry for an architecture, and the sizes that all of one kind share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from greedylr.lab.catalogue.problems.transformers.sets.corpus import Corpus
from greedylr.lab.catalogue.problems.transformers.tokens import END, LENGTH, PADDING, START

WIDTH, HEADS, DEPTH, INNER = 64, 4, 2, 256
"""Sizes of a Transformer: hidden state, heads of attention, blocks, and numbers between a block's two layers."""

POSITIONS = 2 * LENGTH
"""More than any text has: some count from behind the padding."""

SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
}
"""The same by the names that most configurations have for them."""

SPECIAL = {"pad_token_id": PADDING, "bos_token_id": START, "eos_token_id": END}
"""The numbers that stand for no text."""

DEVIATION = 0.07
"""Standard deviation of the initial weights.

The usual 0.02 is for a width of 768; what a layer adds up grows as the root of the width.
"""


@dataclass(frozen=True)
class Architecture:
    """A family of models in Transformers.

    Attributes:
        name: Identifier, before that of a set of data in the name of a problem.
        title: Name to show to a person.
        build: Makes the model for a set of data, with random weights.
    """

    name: str
    title: str
    build: Callable[[Corpus], nn.Module]


def library() -> Any:
    """Transformers, which takes seconds to import."""
    import transformers

    return transformers
