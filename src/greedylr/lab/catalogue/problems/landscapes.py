"""Functions with a known minimum, the subject of many a drawing: a point is moved down a landscape.

Each is rotated by a fixed random rotation, so that no optimizer that treats coordinates apart finds them sorted out,
and moved by a fixed random distance, so that weight decay does not lead to the minimum. The minimum is 0 in all. With
noise, a training example is the function plus a random slope of its own; the slopes cancel out over all examples, so
that the function itself is the mean, and what the point is judged by.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.task import Examples, Model, Task

_SLOPES = 4096
_Function = Callable[[Tensor], Tensor]


def _quadratic(point: Tensor, *, condition: float) -> Tensor:
    """Half the squares, with curvatures from 1 down to 1/condition."""
    exponents = torch.linspace(0, -math.log10(condition), len(point), dtype=point.dtype, device=point.device)
    return (10**exponents * point.square()).sum() / 2


def _rosenbrock(point: Tensor) -> Tensor:
    """A narrow curved valley, from around the origin along all dimensions to (1, …, 1)."""
    head, tail = point[:-1], point[1:]
    return (100 * (tail - head.square()).square() + (1 - head).square()).sum()


def _rastrigin(point: Tensor) -> Tensor:
    """A bowl with a dent at every point of whole numbers; the mean over dimensions."""
    return (point.square() + 10 * (1 - torch.cos(2 * math.pi * point))).mean()


def _ackley(point: Tensor) -> Tensor:
    """A funnel with a rim that is almost flat, dented all over."""
    distance = (point.square().mean() + 1e-12).sqrt()  # The root has no slope at 0.
    dents = torch.cos(2 * math.pi * point).mean()
    return 20 * (1 - torch.exp(-distance / 5)) + math.e - torch.exp(dents)


class _Landscape(nn.Module):
    """A point, and the height of a landscape under it, once for each of the slopes given."""

    origin: Tensor
    rotation: Tensor

    def __init__(self, function: _Function, dimensions: int, spread: float) -> None:
        super().__init__()
        self.function = function
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("origin", torch.randn(dimensions, generator=generator))
        square = torch.randn(dimensions, dimensions, generator=generator)
        self.register_buffer("rotation", torch.linalg.qr(square).Q)
        self.point = nn.Parameter(self.origin + spread * torch.randn(dimensions))

    def forward(self, slopes: Tensor) -> Tensor:
        moved = self.point - self.origin
        return self.function(self.rotation @ moved) + slopes @ moved


def _height(model: Model, examples: Examples) -> Tensor:
    return model(examples.inputs).mean()


def _decades(model: Model, examples: Examples) -> Tensor:
    # At most 12: a height that rounding has made zero or less is not infinitely good, nor none at all.
    return -_height(model, examples).clamp(min=1e-12).log10()


LANDSCAPE = Task("height above the minimum", _height, "decades below 1", _decades)
"""The outputs are heights; there are no targets."""


def _load(dimensions: int, noise: float) -> Data:
    if noise:
        slopes = noise * torch.randn(_SLOPES, dimensions, generator=torch.Generator().manual_seed(1))
        slopes = slopes - slopes.mean(0)
    else:
        slopes = torch.zeros(1, dimensions)
    level = torch.zeros(1, dimensions)
    return Data(Examples(slopes, torch.zeros(len(slopes))), Examples(level, torch.zeros(1)))


def _problem(
    name: str,
    title: str,
    function: _Function,
    *,
    dimensions: int,
    spread: float,
    noise: float,
    lr: float,
    lrs: dict[str, float],
) -> Problem:
    """A landscape as a problem.

    Args:
        name: Its identifier.
        title: Its name to show to a person.
        function: The landscape.
        dimensions: Its dimensions.
        spread: Standard deviation of each coordinate of the start, around the origin.
        noise: Standard deviation of the slope of each example in each coordinate; a batch has half of it.
        lr: Good learning rate for AdamW.
        lrs: Those for the other optimizers.
    """
    slopes = f"gradient noise of {noise / 2:g} a coordinate" if noise else "no noise"
    return Problem(
        name=name,
        title=title,
        lr=lr,
        lrs=lrs,
        steps=500,
        batch_size=4 if noise else 1,
        load=partial(_load, dimensions, noise),
        model=partial(_Landscape, function, dimensions, spread),
        kind="analytic",
        description=f"a point in {dimensions} dimensions, rotated; {slopes}",
        task=LANDSCAPE,
    )


ENTRIES = (
    _problem(
        "quadratic-100",
        "Quadratic, condition number 100",
        partial(_quadratic, condition=1e2),
        dimensions=20,
        spread=1.0,
        noise=0.0,
        lr=0.1,
        lrs={"sgd": 0.1, "adam": 0.1, "adagrad": 1.0, "adafactor": 0.03},
    ),
    _problem(
        "quadratic-10000",
        "Quadratic, condition number 10,000",
        partial(_quadratic, condition=1e4),
        dimensions=20,
        spread=1.0,
        noise=0.0,
        lr=0.1,
        lrs={"sgd": 0.3, "adam": 0.3, "adagrad": 1.0, "adafactor": 0.03},
    ),
    _problem(
        "quadratic-noisy",
        "Quadratic, condition number 100, with noise",
        partial(_quadratic, condition=1e2),
        dimensions=20,
        spread=1.0,
        noise=0.4,
        lr=0.1,
        lrs={"sgd": 0.03, "adam": 0.1, "adagrad": 1.0, "adafactor": 0.1},
    ),
    _problem(
        "rosenbrock",
        "Rosenbrock's valley",
        _rosenbrock,
        dimensions=20,
        spread=0.5,
        noise=0.0,
        lr=1.0,
        lrs={"sgd": 0.001, "adam": 1.0, "adagrad": 1.0, "adafactor": 0.1},
    ),
    # With less noise than in the next two, every optimizer stays in the first dent it falls into, at any learning rate.
    _problem(
        "rastrigin",
        "Rastrigin's dents",
        _rastrigin,
        dimensions=4,
        spread=2.0,
        noise=10.0,
        lr=3.0,
        lrs={"sgd": 0.01, "adam": 1.0, "adagrad": 10.0, "adafactor": 1.0},
    ),
    _problem(
        "ackley",
        "Ackley's funnel",
        _ackley,
        dimensions=4,
        spread=3.0,
        noise=2.0,
        lr=1.0,
        lrs={"sgd": 0.1, "adam": 1.0, "adagrad": 10.0, "adafactor": 1.0},
    ),
)
"""Six landscapes; the seed of a run decides where it starts."""
