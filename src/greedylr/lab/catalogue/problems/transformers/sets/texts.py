"""Text to go on with: Python's manual, and the source code of its standard library."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from greedylr.lab.catalogue.problems import text
from greedylr.lab.catalogue.problems.problem import Data
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.transformers.sets.corpus import TRAIN, VALIDATION, Corpus, apart, spread
from greedylr.lab.catalogue.problems.transformers.tasks import LANGUAGE_MODELLING
from greedylr.lab.catalogue.problems.transformers.tokens import LENGTH, Tokenizer


def _windows(read: Callable[[], text.Text]) -> Data:
    """Windows that overlap by half to train on, and windows that do not, of other text, to validate on."""
    train, validation = (bytes(part.tolist()).decode("ascii") for part in read())
    tokenizer = Tokenizer.of([train])
    return apart(
        _cut(torch.tensor(tokenizer.numbers(train)), LENGTH // 2, TRAIN),
        _cut(torch.tensor(tokenizer.numbers(validation)), LENGTH, VALIDATION),
    )


def _cut(numbers: Tensor, step: int, most: int) -> Examples:
    windows = numbers.unfold(0, LENGTH, step)
    chosen = windows[spread(range(len(windows)), most)]
    return Examples(chosen, chosen)


CORPORA = (
    Corpus(
        name="prose",
        title="Python's manual",
        source="the language reference that comes with Python (PSF licence)",
        kind="language-modelling",
        task=LANGUAGE_MODELLING,
        load=partial(_windows, text.prose),
    ),
    Corpus(
        name="code",
        title="Source code",
        source="the standard library of Python (PSF licence)",
        kind="language-modelling",
        task=LANGUAGE_MODELLING,
        load=partial(_windows, text.code),
    ),
)
