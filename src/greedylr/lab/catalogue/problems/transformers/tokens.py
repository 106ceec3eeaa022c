"""Text as numbers: a vocabulary of byte pairs that is learnt from the text to train on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PADDING, START, END, BETWEEN = range(4)
"""The numbers that stand for no text: behind a text, before one, after one, and between two."""

IGNORED = -100
"""The target of what is not to be predicted, as Transformers has it."""

VOCABULARY = 1000
"""Count of the numbers that there are."""

LENGTH = 64
"""Numbers of a text, at most; what is longer is cut off."""


@dataclass(frozen=True)
class Tokenizer:
    """Byte pairs, as GPT-2 has them; any text can be told in them and read again.

    Attributes:
        made: What the library has learnt.
    """

    made: Any

    @classmethod
    def of(cls, texts: Iterable[str]) -> Tokenizer:
        """The byte pairs that are the most frequent in some texts."""
        from tokenizers import Tokenizer as Made
        from tokenizers import decoders, models, pre_tokenizers, trainers

        made = Made(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<padding>", "<start>", "<end>", "<between>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        made.train_from_iterator(texts, trainer)
        return cls(made)

    def numbers(self, text: str) -> list[int]:
        """A text, with nothing before or after it."""
        return list(self.made.encode(text).ids)

    def places(self, text: str) -> list[tuple[int, int]]:
        """First and last place in the text of each of its numbers."""
        return list(self.made.encode(text).offsets)

    def texts(self, rows: Tensor) -> list[str]:
        """Texts of rows of numbers, without the numbers that stand for no text."""
        return [self.made.decode([number for number in row if number > BETWEEN]) for row in rows.tolist()]


def inputs(rows: Iterable[Sequence[int]], length: int = LENGTH) -> Tensor:
    """Rows of numbers between a start and an end, cut and padded to one length: (rows, length)."""
    return _padded([[START, *row[: length - 2], END] for row in rows], length, PADDING)


def labels(rows: Iterable[Sequence[int]], length: int = LENGTH) -> Tensor:
    """The same to be predicted: no start, and nothing asked of what pads: (rows, length)."""
    return _padded([[*row[: length - 1], END] for row in rows], length, IGNORED)


def _padded(rows: list[list[int]], length: int, padding: int) -> Tensor:
    return torch.tensor([[*row, *[padding] * (length - len(row))] for row in rows])
