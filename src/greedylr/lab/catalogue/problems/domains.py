"""Text of several domains: by turns, mixed for experts to share out, and sorted by how hard it is.

In each, the level of the loss depends on the batch as much as on the model, which a scheduler that goes by the loss
can mistake for progress, or for the lack of it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems import text
from greedylr.lab.catalogue.problems.models import Experts, Residual
from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.samplers import blocks, neighbours
from greedylr.lab.catalogue.problems.stdlib_text import language_model
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.text import CHARACTERS

_CONTEXT = 16
_TRAIN, _VALIDATION = 20_000, 128  # Windows of each domain.
SWITCH = 25
"""Steps from one domain to the other."""


def _domains(*domains: text.Text) -> Data:
    """Equally many windows of each domain, one domain after the other."""
    train = [text.spread(domain.train, _CONTEXT, _TRAIN) for domain in domains]
    validation = [text.held_out(domain, _CONTEXT, _VALIDATION) for domain in domains]
    return Data(*(Examples(*map(torch.cat, zip(*parts, strict=True))) for parts in (train, validation)))


def _alternating() -> Data:
    return _domains(text.prose(), text.names())


def _last_characters() -> Data:
    """All three domains; one character to predict, from those before it."""
    data = _domains(text.prose(), text.code(), text.names())
    train, validation = (part._replace(targets=part.targets[:, -1]) for part in data)
    return Data(train, validation)


def _sorted() -> Data:
    """All three domains; the windows to train on sorted by how surprising their characters are."""
    data = _domains(text.prose(), text.code(), text.names())
    return data._replace(train=data.train.batch(surprise(data.train).argsort(stable=True)))


def surprise(examples: Examples) -> Tensor:
    """Mean surprise of each example in nats, for one who knows how often each pair of characters occurs."""
    pairs = examples.inputs * CHARACTERS + examples.targets
    counts = torch.bincount(pairs.flatten(), minlength=CHARACTERS**2).reshape(CHARACTERS, CHARACTERS)
    surprise = -(counts / counts.sum(1, keepdim=True).clamp(min=1)).log()
    return surprise.flatten()[pairs].mean(1)


def _mixture() -> nn.Module:
    width = 64
    return nn.Sequential(
        nn.Embedding(CHARACTERS, 8),
        nn.Flatten(),
        nn.Linear(8 * _CONTEXT, width),
        nn.ReLU(),
        Residual(nn.LayerNorm(width), Experts(4, width, 64)),
        nn.LayerNorm(width),
        nn.Linear(width, CHARACTERS),
    )


DOMAINS = Problem(
    name="domains",
    title="Two domains of text by turns",
    lr=0.003,
    lrs={"sgd": 0.01, "adam": 0.003, "adagrad": 0.03, "adafactor": 0.1},
    steps=300,
    batch_size=16,
    load=_alternating,
    model=partial(language_model, _CONTEXT, 32, 4, 1),
    kind="boundary",
    description=f"the next character of English and of Unicode names, every {SWITCH} steps the other: a causal "
    "Transformer, one block of width 32",
    sampler=blocks(2, SWITCH),
)
"""Validated on both domains."""

EXPERTS = Problem(
    name="experts",
    title="Mixture of experts on three domains of text",
    lr=0.1,
    lrs={"sgd": 0.3, "adam": 0.1, "adagrad": 0.3, "adafactor": 0.3},
    steps=500,
    batch_size=32,
    load=_last_characters,
    model=_mixture,
    kind="boundary",
    description="the character after 16 of English, source code or Unicode names: a perceptron with four experts, one "
    "to an input",
)
"""The gate is trained by nothing but the loss, so that a sudden change of experts shows in it."""

UNEVEN = Problem(
    name="uneven",
    title="Batches of uneven difficulty",
    lr=0.01,
    lrs={"sgd": 0.1, "adam": 0.01, "adagrad": 0.03, "adafactor": 0.1},
    steps=300,
    batch_size=16,
    load=_sorted,
    model=partial(language_model, _CONTEXT, 32, 4, 1),
    kind="boundary",
    description="the next character of English, source code and Unicode names, each batch of about one difficulty: a "
    "causal Transformer, one block of width 32",
    sampler=neighbours(2_000),
)
"""A batch is drawn from 2,000 neighbours of 60,000 windows in the order of their difficulty."""

ENTRIES = (DOMAINS, EXPERTS, UNEVEN)
