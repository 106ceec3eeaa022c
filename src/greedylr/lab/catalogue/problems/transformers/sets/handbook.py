"""The Debian Administrator's Handbook: the same paragraphs in several languages."""

from __future__ import annotations

import html
import re
from functools import cache, partial
from pathlib import Path

from torch import Tensor

from greedylr.lab.catalogue.problems.problem import Data, DataError
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.transformers.sets.corpus import Corpus, apart, divide
from greedylr.lab.catalogue.problems.transformers.tasks import generation
from greedylr.lab.catalogue.problems.transformers.tokens import Tokenizer, inputs, labels

_FOLDER = Path("/usr/share/doc/debian-handbook/html")
_SHORTEST, _LONGEST = 20, 220  # characters of a paragraph


def _paragraphs(language: str) -> dict[str, list[str]]:
    """The paragraphs of each page."""
    pages = sorted((_FOLDER / language).glob("*.html"))
    if not pages:
        raise DataError(f"there is no {_FOLDER / language}: it is part of the Debian package debian-handbook")
    return {page.name: _plain(page.read_text(encoding="utf-8")) for page in pages}


def _plain(page: str) -> list[str]:
    found = re.findall(r'<div class="para">(.*?)</div>', page, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split()) for text in found]


def pairs(language: str) -> list[tuple[str, str]]:
    """Paragraphs and their translations, of the pages that have as many of them, in the order of the book."""
    ours, theirs = _paragraphs("en-US"), _paragraphs(language)
    alike = [name for name, paragraphs in ours.items() if len(theirs.get(name, ())) == len(paragraphs)]
    pairs = [pair for name in alike for pair in zip(ours[name], theirs[name])]
    return [pair for pair in pairs if pair[0] != pair[1] and all(_SHORTEST <= len(text) <= _LONGEST for text in pair)]


@cache
def _divided(language: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    return divide(pairs(language), lambda pair: pair[0])


@cache
def _tokenizer(language: str) -> Tokenizer:
    train, _ = _divided(language)
    return Tokenizer.of(text for pair in train for text in pair)


def _load(language: str) -> Data:
    tokenizer = _tokenizer(language)
    return apart(
        *(
            Examples(
                inputs(tokenizer.numbers(text) for text, _ in part),
                labels(tokenizer.numbers(text) for _, text in part),
            )
            for part in _divided(language)
        )
    )


def _read(language: str, rows: Tensor) -> list[str]:
    return _tokenizer(language).texts(rows)


def _translation(name: str, language: str, locale: str) -> Corpus:
    return Corpus(
        name=name,
        title=f"English to {language}",
        source="paragraphs of the Debian Administrator's Handbook (CC-BY-SA 3.0 or GPL 2), "
        "Debian package debian-handbook",
        kind="translation",
        task=generation(partial(_read, locale)),
        load=partial(_load, locale),
    )


CORPORA = (
    _translation("french", "French", "fr-FR"),
    _translation("german", "German", "de-DE"),
    _translation("spanish", "Spanish", "es-ES"),
)
