"""Instructions in French: questions of a FAQ with the first paragraph of their answers, and paragraphs to translate."""

from __future__ import annotations

import html
import random
import re
from pathlib import Path

from greedylr.lab.catalogue.problems.problem import DataError
from greedylr.lab.catalogue.problems.transformers.sets.handbook import pairs
from greedylr.language_models.data.examples import Examples, Row, divide

_FAQ = Path("/usr/share/doc/debian/FAQ/fr")
_HEADING = re.compile(
    r'<h[234] class="title"><a id="[^"]*"></a>[\d.]+\s*(.*?)</h[234]>(.*?)(?=<h[234] class="title">|\Z)', re.DOTALL
)
_LONGEST = 240


def load() -> Examples:
    """Both kinds, in a fixed order.

    Raises:
        DataError: If one of the packages is not installed.
    """
    rows = [*_questions(), *_translations()]
    random.Random(0).shuffle(rows)
    return Examples(*divide(rows))


def _questions() -> list[Row]:
    pages = sorted(_FAQ.glob("*.html"))
    if not pages:
        raise DataError(
            f"there is no {_FAQ}: it is part of the Debian package debian-faq-fr (apt install debian-faq-fr)"
        )
    rows = []
    for page in pages:
        for heading, rest in _HEADING.findall(page.read_text(encoding="utf-8")):
            question, paragraphs = _plain(heading), re.findall(r"<p>(.*?)</p>", rest, re.DOTALL)
            answer = _plain(paragraphs[0]) if paragraphs else ""
            if question.endswith("?") and 20 <= len(answer) <= 2 * _LONGEST:
                rows.append({"prompt": f"Question : {question}\nRéponse :", "completion": f" {answer}"})
    return rows


def _translations() -> list[Row]:
    return [
        {"prompt": f"Traduisez en français : {english}\nRéponse :", "completion": f" {french}"}
        for english, french in pairs("fr-FR")
        if len(english) <= _LONGEST
    ]


def _plain(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", markup)).split())
