"""Predict the next character of text that comes with Python: Transformers of several shapes, and a GRU."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems import text
from greedylr.lab.catalogue.problems.models import GRU, Transformer
from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.text import CHARACTERS

_CONTEXT = 32
_SHORT_CONTEXT = 16
_SNIPPET = 48
_SNIPPET_FILES = (
    "argparse.py",
    "datetime.py",
    "decimal.py",
    "difflib.py",
    "ipaddress.py",
    "mailbox.py",
    "pickle.py",
    "tarfile.py",
)


def language_model(length: int, width: int, heads: int, depth: int) -> nn.Module:
    """A causal Transformer from characters to the logits of each next one."""
    embedding = nn.Embedding(CHARACTERS, width)
    return Transformer(embedding, length=length, width=width, heads=heads, depth=depth, outputs=CHARACTERS, each=True)


def _code(length: int) -> Data:
    return text.prediction(text.code(), length)


def _prose(length: int) -> Data:
    return text.prediction(text.prose(), length)


def _snippets() -> Data:
    """Snippets of eight files, which overlap by half; the last fifth of each file is validated on."""
    train, validation, trained_on = [], [], []
    for label, file in enumerate(_SNIPPET_FILES):
        whole = text.encode(text.read_source([file]))
        cut = len(whole) * 4 // 5
        train.append(_cut(whole[:cut], label, apart=_SNIPPET // 2))
        validation.append(_cut(whole[cut:], label, apart=6 * _SNIPPET))
        trained_on.append(whole[:cut])
    one, other = (Examples(*map(torch.cat, zip(*parts, strict=True))) for parts in (train, validation))
    return Data(one, text.unseen(other, torch.cat(trained_on)))


def _cut(code: Tensor, label: int, apart: int) -> Examples:
    snippets = code.unfold(0, _SNIPPET, apart)
    return Examples(snippets, torch.full((len(snippets),), label))


STDLIB_TEXT = Problem(
    name="stdlib-text",
    title="Transformer on Python's own source text",
    lr=0.003,
    lrs={"sgd": 0.1, "adam": 0.003, "adagrad": 0.03, "adafactor": 0.1},
    steps=1000,
    batch_size=16,
    load=partial(_code, _CONTEXT),
    model=partial(language_model, _CONTEXT, 64, 4, 1),
    description="the next character of source code: a causal Transformer, one block of width 64, 32 characters",
)
"""About a million characters to train on, 8,192 to validate on, from files of their own."""

LM_PROSE = Problem(
    name="lm-prose",
    title="Language model on Python's manual",
    lr=0.01,
    lrs={"sgd": 0.1, "adam": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    steps=300,
    batch_size=16,
    load=partial(_prose, _CONTEXT),
    model=partial(language_model, _CONTEXT, 32, 4, 2),
    description="the next character of English: a causal Transformer, two blocks of width 32, 32 characters",
)
"""About 330,000 characters to train on."""

DEEP_TRANSFORMER = Problem(
    name="deep-transformer",
    title="Deep narrow Transformer on source code",
    lr=0.01,
    lrs={"sgd": 0.3, "adam": 0.03, "adagrad": 0.03, "adafactor": 0.1},
    steps=250,
    batch_size=16,
    load=partial(_code, _SHORT_CONTEXT),
    model=partial(language_model, _SHORT_CONTEXT, 16, 2, 8),
    description="the next character of source code: a causal Transformer, eight blocks of width 16, 16 characters",
)
"""The files of ``stdlib-text``."""

WIDE_TRANSFORMER = Problem(
    name="wide-transformer",
    title="Wide Transformer on Python's manual",
    lr=0.003,
    lrs={"sgd": 0.03, "adam": 0.003, "adagrad": 0.01, "adafactor": 0.03},
    steps=250,
    batch_size=16,
    load=partial(_prose, _SHORT_CONTEXT),
    model=partial(language_model, _SHORT_CONTEXT, 128, 8, 1),
    description="the next character of English: a causal Transformer, one block of width 128, 16 characters",
)
"""The paragraphs of ``lm-prose``."""

GATED = Problem(
    name="gru",
    title="GRU on Python's manual",
    lr=0.03,
    lrs={"sgd": 1.0, "adam": 0.03, "adagrad": 0.1, "adafactor": 0.1},
    steps=250,
    batch_size=16,
    load=partial(_prose, _SHORT_CONTEXT),
    model=partial(GRU, CHARACTERS, 48),
    description="the next character of English: gated recurrent units of width 48, 16 characters",
)
"""The paragraphs of ``lm-prose``."""

ATTENTION = Problem(
    name="attention",
    title="One attention block that tells source files apart",
    lr=0.003,
    lrs={"sgd": 0.01, "adam": 0.003, "adagrad": 0.03, "adafactor": 0.03},
    steps=400,
    batch_size=32,
    load=_snippets,
    model=lambda: Transformer(
        nn.Embedding(CHARACTERS, 24), length=_SNIPPET, width=24, heads=2, depth=1, outputs=8, each=False
    ),
    description="which of eight source files 48 characters are from: a Transformer, one block of width 24",
)
"""The last fifth of each file is validated on."""

ENTRIES = (GATED, ATTENTION, DEEP_TRANSFORMER, WIDE_TRANSFORMER, LM_PROSE, STDLIB_TEXT)
