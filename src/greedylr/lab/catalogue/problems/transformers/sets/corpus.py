"""Entry for a set of data, and the split into training and validation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from greedylr.lab.catalogue.problems.problem import Data
from greedylr.lab.catalogue.problems.task import Examples, Task

TRAIN, VALIDATION = 4000, 128
"""Examples of a set, at most."""

_HELD_OUT = 8  # One in so many is validated on.

T = TypeVar("T")

Kind = Literal[
    "text-classification",
    "question-answering",
    "token-classification",
    "translation",
    "summarization",
    "language-modelling",
    "image-classification",
]
"""The task, by the name that Transformers' pipelines have for it; it decides the class of the model."""


@dataclass(frozen=True)
class Corpus:
    """A set of data.

    Attributes:
        name: Identifier, behind that of an architecture in the name of a problem.
        title: Name to show to a person.
        source: What it is read from, and under which licence.
        kind: The task.
        task: Its loss and metric.
        load: Reads it, the same at every call; raises :class:`DataError` if it cannot.
        classes: How many there are, where there are any.
        shape: Channels and side of the images, where it is of images.
    """

    name: str
    title: str
    source: str
    kind: Kind
    task: Task
    load: Callable[[], Data]
    classes: int = 0
    shape: tuple[int, int] = (0, 0)


def divide(items: Iterable[T], what: Callable[[T], Hashable]) -> tuple[list[T], list[T]]:
    """Every eighth to validate on, the others to train on; spread evenly where there are too many.

    What is given to the model is in one part alone: an item of which ``what`` occurs in both is not validated on.

    Args:
        items: In an order that does not change.
        what: What the model is given of an item.
    """
    listed = list(items)
    train = [item for number, item in enumerate(listed) if number % _HELD_OUT]
    known = {what(item) for item in train}
    new = [item for item in listed[::_HELD_OUT] if what(item) not in known]
    return spread(train, TRAIN), spread(new, VALIDATION)


def apart(train: Examples, validation: Examples) -> Data:
    """Both, without what is validated on and, cut and made numbers, happens to be trained on as well."""
    known = {row.numpy().tobytes() for row in train.inputs}
    new = [number for number, row in enumerate(validation.inputs) if row.numpy().tobytes() not in known]
    return Data(train, validation.batch(torch.tensor(new)))


def spread(items: Sequence[T], most: int) -> list[T]:
    """So many of them, evenly; all if there are fewer."""
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]
