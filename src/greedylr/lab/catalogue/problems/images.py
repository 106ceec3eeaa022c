"""The photographs that come with scikit-learn, a temple in China and a flower: a Transformer, a residual network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems.models import Residual, Transformer
from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.task import REGRESSION, Examples

_TILE, _PATCH = 16, 4
_ROWS, _COLUMNS = 2, 4  # Regions of a photograph.
_SHRINK = 4  # Each pixel of the small photograph is the mean of so many by so many.
_WAVES = 32


def _photographs() -> Tensor:
    """Both, (2, 427, 640, 3), from 0 to 1."""
    from sklearn.datasets import load_sample_images  # type: ignore[import-untyped]

    return torch.stack([torch.tensor(image) for image in load_sample_images().images]) / 255


def _split(examples: Examples, of: int) -> Data:
    """One in ``of`` at random to validate on."""
    order = torch.randperm(len(examples.inputs), generator=torch.Generator().manual_seed(0))
    held_out = len(order) // of
    return Data(examples.batch(order[held_out:]), examples.batch(order[:held_out]))


def tiles() -> Data:
    """Tiles that do not overlap, each as a sequence of patches; the target is the photograph and region it is from."""
    photographs = _photographs()[:, : 427 // _TILE * _TILE] - 0.5
    tiles = photographs.unfold(1, _TILE, _TILE).unfold(2, _TILE, _TILE)  # (2, rows, columns, 3, tile, tile)
    rows, columns = tiles.shape[1:3]
    patches = tiles.unfold(4, _PATCH, _PATCH).unfold(5, _PATCH, _PATCH).movedim(3, 5).flatten(5).flatten(3, 4)
    photograph, row, column = torch.meshgrid(
        torch.arange(2),
        torch.arange(rows) * _ROWS // rows,
        torch.arange(columns) * _COLUMNS // columns,
        indexing="ij",
    )
    region = (photograph * _ROWS + row) * _COLUMNS + column
    return _split(Examples(patches.flatten(0, 2), region.flatten()), of=4)


def _pixels() -> Data:
    """The pixels of the flower, made small: waves of its position in, colour out."""
    flower = _photographs()[1].movedim(-1, 0)
    small = nn.functional.avg_pool2d(flower, _SHRINK).movedim(0, -1)
    height, width = small.shape[:2]
    row, column = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / height, indexing="ij")
    # Random waves of all directions, a few across the picture: from the bare position, it learns little but blur.
    directions = 4 * torch.randn(2, _WAVES // 2, generator=torch.Generator().manual_seed(1))
    phases = 2 * math.pi * torch.stack([row, column], -1).flatten(0, 1) @ directions
    inputs = torch.cat([phases.sin(), phases.cos()], -1)
    colours = small.flatten(0, 1)
    return _split(Examples(inputs, (colours - colours.mean(0)) / colours.std()), of=5)


VIT = Problem(
    name="vit",
    title="Vision Transformer on tiles of photographs",
    lr=0.003,
    lrs={"sgd": 0.01, "adam": 0.003, "adagrad": 0.03, "adafactor": 0.03},
    steps=300,
    batch_size=32,
    load=tiles,
    model=lambda: Transformer(
        nn.Linear(3 * _PATCH**2, 32),
        length=(_TILE // _PATCH) ** 2,
        width=32,
        heads=4,
        depth=2,
        outputs=2 * _ROWS * _COLUMNS,
        each=False,
    ),
    description="which of 16 regions of two photographs a 16 × 16 tile is from: a Transformer on 4 × 4 patches, "
    "two blocks of width 32",
)
"""1,560 tiles to train on, 520 to validate on."""

RESIDUAL_MLP = Problem(
    name="residual-mlp",
    title="Residual perceptron that paints a photograph",
    lr=0.003,
    lrs={"sgd": 0.03, "adam": 0.003, "adagrad": 0.03, "adafactor": 0.03},
    steps=400,
    batch_size=64,
    load=_pixels,
    model=lambda: nn.Sequential(
        nn.Linear(_WAVES, 64),
        *(Residual(nn.LayerNorm(64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(3)),
        nn.LayerNorm(64),
        nn.Linear(64, 3),
    ),
    description="the colour of a photograph at a position: a perceptron with three residual blocks of width 64",
    task=REGRESSION,
)
"""13,568 pixels to train on, 3,392 to validate on."""

ENTRIES = (RESIDUAL_MLP, VIT)
