"""Handwritten digits, the 8 × 8 images that come with scikit-learn: a convolutional network and a perceptron."""

from __future__ import annotations

import torch
from torch import nn

from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.task import Examples


def load_images() -> Data:
    """Images with their one channel, from 0 to 1, and the digit of each; every digit as often in both parts."""
    # Here, for scikit-learn takes longer to import than all else but torch.
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    digits = load_digits()
    inputs = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
    targets = torch.tensor(digits.target, dtype=torch.int64)
    train, validation = train_test_split(range(len(targets)), test_size=0.25, random_state=0, stratify=digits.target)
    examples = Examples(inputs, targets)
    return Data(examples.batch(torch.tensor(train)), examples.batch(torch.tensor(validation)))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def perceptron() -> nn.Module:
    """A perceptron with two hidden layers, from an image or its 64 pixels to ten logits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


DIGITS = Problem(
    name="digits",
    title="CNN on handwritten digits",
    # Of twelve learning rates from 1e-3 to 3e-2, six seeds each (100 to 105), those from 5e-3 to 2e-2 ended within
    # 0.01 nats of each other, best and worst in no order: their middle.
    lr=1e-2,
    lrs={"sgd": 0.1, "adam": 0.01, "adagrad": 0.1, "adafactor": 0.1},
    steps=600,
    batch_size=32,
    load=load_images,
    model=_cnn,
    description="the digit in an 8 × 8 image: two convolutions and two linear layers",
)
"""1,347 images to train on, 450 to validate on."""

MLP = Problem(
    name="mlp",
    title="Perceptron on handwritten digits",
    lr=0.03,
    lrs={"sgd": 0.1, "adam": 0.03, "adagrad": 0.1, "adafactor": 0.3},
    steps=500,
    batch_size=32,
    load=load_images,
    model=perceptron,
    description="the digit in an 8 × 8 image: a perceptron with two hidden layers of 64",
)
"""The images of the convolutional network."""

ENTRIES = (MLP, DIGITS)
