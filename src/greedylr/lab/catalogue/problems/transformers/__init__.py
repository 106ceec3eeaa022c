"""Transformers' architectures on real data: which learns what."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import cycle

from greedylr.lab.catalogue.problems.problem import Problem
from greedylr.lab.catalogue.problems.transformers.architectures import decoders, encoders, vision, writers
from greedylr.lab.catalogue.problems.transformers.architectures.architecture import Architecture
from greedylr.lab.catalogue.problems.transformers.learning_rates import LEARNING_RATES
from greedylr.lab.catalogue.problems.transformers.sets import documentation, handbook, pictures, texts, words
from greedylr.lab.catalogue.problems.transformers.sets.corpus import Corpus

_FAMILIES = (encoders, writers, decoders, vision)
_SOURCES = (handbook, words, documentation, texts, pictures)

ARCHITECTURES: dict[str, Architecture] = {entry.name: entry for family in _FAMILIES for entry in family.ENTRIES}
"""Every architecture by its name."""

CORPORA: dict[str, Corpus] = {corpus.name: corpus for source in _SOURCES for corpus in source.CORPORA}
"""Every set of data by its name."""


def pairs() -> Iterator[tuple[str, str]]:
    """Pairs of an architecture and a set of data: by turns, in the order of the lists, before any result was known.

    Each encoder learns a classification, and to find an answer or to mark a text; each encoder with a decoder two
    translations, and to write a shorter text; each decoder a text to go on with; each classifier of images two sets.
    """
    classified = cycle(("modules", "categories", "subpackages"))
    found = cycle(("types", "marked", "defaults", "marked"))
    translated, shortened = cycle(("french", "german", "spanish")), cycle(("summaries", "names", "phonemes"))
    continued, seen = cycle(("prose", "code")), cycle(("fashion", "tiles", "digits"))
    for family, kinds in (
        (encoders, (classified, found)),
        (writers, (translated, translated, shortened)),
        (decoders, (continued,)),
        (vision, (seen, seen)),
    ):
        for architecture in family.ENTRIES:
            for kind in kinds:
                yield architecture.name, next(kind)


def _problem(architecture: Architecture, corpus: Corpus) -> Problem:
    name = f"{architecture.name}-{corpus.name}"
    lrs = LEARNING_RATES[name]
    return Problem(
        name=name,
        title=f"{architecture.title}: {corpus.title}",
        lr=lrs["adamw"],
        lrs=lrs,
        steps=300,
        batch_size=16,
        load=corpus.load,
        model=partial(architecture.build, corpus),
        kind="architecture",
        description=f"{corpus.source}: {architecture.title}",
        task=corpus.task,
        stackable=False,
    )


ENTRIES = tuple(_problem(ARCHITECTURES[architecture], CORPORA[corpus]) for architecture, corpus in pairs())

_HOMES = {
    **{entry.name: family.__name__ for family in _FAMILIES for entry in family.ENTRIES},
    **{corpus.name: source.__name__ for source in _SOURCES for corpus in source.CORPORA},
}
MODULES: dict[str, tuple[str, ...]] = {"-".join(pair): tuple(_HOMES[part] for part in pair) for pair in pairs()}
"""The modules that a problem is made of: that of its architecture, and that of its data."""
