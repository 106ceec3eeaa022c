"""Pre-trained models that are trained on: in full or by low-rank adapters, on much new data or on very little."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems import text
from greedylr.lab.catalogue.problems.digits import load_images
from greedylr.lab.catalogue.problems.images import tiles
from greedylr.lab.catalogue.problems.models import GRU, LowRank, Transformer
from greedylr.lab.catalogue.problems.pretraining import Pretraining
from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.stdlib_text import language_model
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.text import CHARACTERS

_CONTEXT = 32
_RANK = 4


def _part(text: Tensor, length: int) -> Tensor:
    """A part of a text, from its middle."""
    first = (len(text) - length) // 2
    return text[first : first + length]


def _scarce(whole: text.Text, length: int) -> Data:
    """So few characters to train on that they are seen many times over; the same to validate on as ever."""
    return text.prediction(text.Text(_part(whole.train, length), whole.validation), _CONTEXT)


def _classes(data: Data, first: int, last: int) -> Data:
    """The examples of some classes, numbered from 0."""

    def chosen(part: Examples) -> Examples:
        which = (part.targets >= first) & (part.targets <= last)
        return Examples(part.inputs[which], part.targets[which] - first)

    return Data(*map(chosen, data))


def few(data: Data, each: int) -> Data:
    """So many training examples of each class, spread evenly over those there are."""
    targets = data.train.targets
    kept = [
        of_class[torch.arange(each) * len(of_class) // each]
        for of_class in (torch.nonzero(targets == label).flatten() for label in torch.unique(targets))
    ]
    return Data(data.train.batch(torch.cat(kept)), data.validation)


def _encoder(classes: int) -> nn.Module:
    """A small convolutional network."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, classes),
    )


def _patches(classes: int) -> nn.Module:
    """A small vision Transformer."""
    return Transformer(nn.Linear(48, 32), length=16, width=32, heads=4, depth=2, outputs=classes, each=False)


_ON_CODE = Pretraining(
    "transformer-code",
    partial(language_model, _CONTEXT, 32, 4, 2),
    lambda: text.prediction(text.code(), _CONTEXT),
    lr=0.01,
    steps=2000,
)
_ON_PROSE = Pretraining(
    "gru-prose", partial(GRU, CHARACTERS, 48), lambda: text.prediction(text.prose(), 16), lr=0.02, steps=2000
)
_DIGITS = Pretraining("digits", partial(_encoder, 5), lambda: _classes(load_images(), 0, 4), lr=0.01, steps=600)
_TEMPLE = Pretraining("temple", partial(_patches, 8), lambda: _classes(tiles(), 0, 7), lr=0.005, steps=600)


def _full(pretraining: Pretraining) -> nn.Module:
    """The pre-trained model, all of which is trained."""
    model = pretraining.model()
    model.load_state_dict(pretraining.weights())
    return model


def _adapters(pretraining: Pretraining) -> nn.Module:
    """The pre-trained model with adapters, which alone are trained."""
    return LowRank.of(_full(pretraining), rank=_RANK)


def _new_head(pretraining: Pretraining, make: Callable[[int], nn.Module], classes: int, head: str) -> nn.Module:
    """The pre-trained model with a last layer for other classes, drawn anew."""
    model = make(classes)
    known = {name: weight for name, weight in pretraining.weights().items() if not name.startswith(head)}
    model.load_state_dict(known, strict=False)
    return model


FINE_TUNED_SCARCE = Problem(
    name="tuned-scarce",
    title="Language model of code, tuned on 12 kB of prose",
    lr=0.0001,
    lrs={"sgd": 0.001, "adam": 0.0001, "adagrad": 0.001, "adafactor": 0.0003},
    steps=800,
    batch_size=16,
    load=lambda: _scarce(text.prose(), 12_000),
    model=partial(_full, _ON_CODE),
    kind="pre-trained",
    description="the next character of English: a causal Transformer that was trained on code, two blocks of width 32",
)
"""Seen 34 times over: it overfits."""

FINE_TUNED_ADAPTERS = Problem(
    name="tuned-adapters",
    title="Language model of code, tuned on prose by adapters",
    lr=0.03,
    lrs={"sgd": 0.3, "adam": 0.03, "adagrad": 0.1, "adafactor": 1},
    steps=400,
    batch_size=16,
    load=lambda: text.prediction(text.prose(), _CONTEXT),
    model=partial(_adapters, _ON_CODE),
    kind="pre-trained",
    description="the next character of English: the same Transformer, whose linear layers get adapters of rank 4",
)
"""About 330,000 characters to train on."""

FINE_TUNED_DIGITS = Problem(
    name="tuned-digits",
    title="CNN on the digits 0 to 4, tuned on 5 to 9",
    lr=0.01,
    lrs={"sgd": 0.03, "adam": 0.01, "adagrad": 0.1, "adafactor": 0.1},
    steps=300,
    batch_size=16,
    load=lambda: few(_classes(load_images(), 5, 9), 12),
    model=partial(_new_head, _DIGITS, _encoder, 5, "7."),
    kind="pre-trained",
    description="the digit, from 5 to 9: two convolutions that were trained on 0 to 4, and a new last layer",
)
"""60 images to train on, seen 80 times over."""

FINE_TUNED_GRU = Problem(
    name="tuned-gru",
    title="GRU of prose, tuned on 10 kB of code",
    lr=0.0001,
    lrs={"sgd": 0.003, "adam": 0.0001, "adagrad": 0.001, "adafactor": 0.0003},
    steps=600,
    batch_size=16,
    load=lambda: _scarce(text.code(), 10_000),
    model=partial(_full, _ON_PROSE),
    kind="pre-trained",
    description="the next character of code: gated recurrent units of width 48 that were trained on English",
)
"""Seen 31 times over: it overfits."""

FINE_TUNED_ADAPTERS_NAMES = Problem(
    name="tuned-names",
    title="Language model of code, tuned on Unicode names by adapters",
    lr=0.001,
    lrs={"sgd": 0.01, "adam": 0.001, "adagrad": 0.01, "adafactor": 0.03},
    steps=300,
    batch_size=16,
    load=lambda: _scarce(text.names(), 20_000),
    model=partial(_adapters, _ON_CODE),
    kind="pre-trained",
    description="the next character of the names of characters: the Transformer trained on code, with adapters",
)
"""20,000 characters to train on, seen 8 times over."""

FINE_TUNED_VIT = Problem(
    name="tuned-vit",
    title="Vision Transformer on one photograph, tuned on another",
    lr=0.0003,
    lrs={"sgd": 0.003, "adam": 0.0003, "adagrad": 0.003, "adafactor": 0.003},
    steps=300,
    batch_size=16,
    load=lambda: few(_classes(tiles(), 8, 15), 20),
    model=partial(_new_head, _TEMPLE, _patches, 8, "head."),
    kind="pre-trained",
    description="which of eight regions of the flower a tile is from: a Transformer that was trained on the temple, "
    "and a new last layer",
)
"""160 tiles to train on, seen 30 times over."""

ENTRIES = (
    FINE_TUNED_SCARCE,
    FINE_TUNED_ADAPTERS,
    FINE_TUNED_DIGITS,
    FINE_TUNED_GRU,
    FINE_TUNED_ADAPTERS_NAMES,
    FINE_TUNED_VIT,
)
