"""One task after the other: handwritten digits whose pixels change places at known steps."""

from __future__ import annotations

import torch

from greedylr.lab.catalogue.problems.digits import load_images, perceptron
from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.samplers import blocks
from greedylr.lab.catalogue.problems.task import Examples

TASKS = 4
"""Orders of the pixels, the first as in the image."""

STEPS_EACH = 100
"""Steps from one order to the next."""


def _load() -> Data:
    generator = torch.Generator().manual_seed(0)
    orders = [torch.arange(64), *(torch.randperm(64, generator=generator) for _ in range(TASKS - 1))]
    train, validation = (
        Examples(torch.cat([part.inputs.flatten(1)[:, order] for order in orders]), part.targets.repeat(TASKS))
        for part in load_images()
    )
    return Data(train, validation)


CONTINUAL = Problem(
    name="continual",
    title="Permuted digits, one order after the other",
    lr=0.003,
    lrs={"sgd": 0.03, "adam": 0.003, "adagrad": 0.1, "adafactor": 1.0},
    steps=TASKS * STEPS_EACH,
    batch_size=32,
    load=_load,
    model=perceptron,
    kind="boundary",
    description=f"the digit in an image, in {TASKS} orders of the pixels, {STEPS_EACH} steps each: a perceptron, two "
    "hidden layers of 64",
    sampler=blocks(TASKS, STEPS_EACH),
)
"""Validated on all orders, so that what is forgotten counts."""

ENTRIES = (CONTINUAL,)
