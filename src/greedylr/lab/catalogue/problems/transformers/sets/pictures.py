"""Images: of clothes, of handwritten digits, and tiles of photographs."""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
from torch import Tensor

from greedylr.lab.catalogue.problems.problem import Data, DataError
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.catalogue.problems.transformers.sets.corpus import TRAIN, VALIDATION, Corpus, apart, divide
from greedylr.lab.catalogue.problems.transformers.tasks import CLASSIFICATION

_FASHION = Path("/usr/share/datasets/fashion-mnist")
_TILE = 16
_ROWS, _COLUMNS = 2, 4  # Regions of a photograph.


def _fashion() -> Data:
    """The first of the images to train on, and the first of those to test with."""
    return apart(_clothes("train", TRAIN), _clothes("t10k", 2 * VALIDATION))


def _clothes(part: str, count: int) -> Examples:
    images = _bytes(f"{part}-images-idx3-ubyte.gz", 16, count * 784).reshape(count, 1, 28, 28)
    return Examples(images / 255 - 0.5, _bytes(f"{part}-labels-idx1-ubyte.gz", 8, count).long())


def _bytes(name: str, after: int, count: int) -> Tensor:
    try:
        with gzip.open(_FASHION / name) as file:
            file.seek(after)
            return torch.frombuffer(bytearray(file.read(count)), dtype=torch.uint8)
    except FileNotFoundError as error:
        raise DataError(f"there is no {_FASHION / name}: it is of the Debian package dataset-fashion-mnist") from error


def _digits() -> Data:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    return _divided(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16 - 0.5, torch.tensor(digits.target))


def _tiles() -> Data:
    from sklearn.datasets import load_sample_images

    photographs = torch.stack([torch.tensor(image) for image in load_sample_images().images]) / 255 - 0.5
    # (photographs, rows, columns, 3, tile, tile)
    tiles = photographs[:, : 427 // _TILE * _TILE].unfold(1, _TILE, _TILE).unfold(2, _TILE, _TILE)
    photograph, row, column = torch.meshgrid(*(torch.arange(size) for size in tiles.shape[:3]), indexing="ij")
    rows, columns = tiles.shape[1:3]
    region = (photograph * _ROWS + row * _ROWS // rows) * _COLUMNS + column * _COLUMNS // columns
    return _divided(tiles.flatten(0, 2).contiguous(), region.flatten().long())


def _divided(images: Tensor, classes: Tensor) -> Data:
    train, validation = divide(range(len(images)), lambda number: images[number].numpy().tobytes())
    return apart(*(Examples(images[part], classes[part]) for part in (train, validation)))


CORPORA = (
    Corpus(
        name="fashion",
        title="Fashion-MNIST",
        source="Fashion-MNIST (MIT), Debian package dataset-fashion-mnist",
        kind="image-classification",
        task=CLASSIFICATION,
        load=_fashion,
        classes=10,
        shape=(1, 28),
    ),
    Corpus(
        name="digits",
        title="Handwritten digits",
        source="the digits of scikit-learn (BSD)",
        kind="image-classification",
        task=CLASSIFICATION,
        load=_digits,
        classes=10,
        shape=(1, 8),
    ),
    Corpus(
        name="tiles",
        title="Tiles of photographs",
        source="the sample images of scikit-learn (CC-BY 2.0)",
        kind="image-classification",
        task=CLASSIFICATION,
        load=_tiles,
        classes=2 * _ROWS * _COLUMNS,
        shape=(3, _TILE),
    ),
)
