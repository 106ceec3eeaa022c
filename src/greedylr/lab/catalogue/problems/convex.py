"""Linear models on medical data: convex problems, noisy because of their batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.task import REGRESSION, Examples


def _split(bunch: Any, targets: Tensor, classes: Any = None) -> Data:
    """A quarter to validate on; inputs of mean 0 and deviation 1 in the training set."""
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    inputs = torch.tensor(bunch.data, dtype=torch.float32)
    train, validation = train_test_split(torch.arange(len(targets)), test_size=0.25, random_state=0, stratify=classes)
    inputs = (inputs - inputs[train].mean(0)) / inputs[train].std(0)
    examples = Examples(inputs, targets)
    return Data(examples.batch(train), examples.batch(validation))


def _diabetes() -> Data:
    from sklearn.datasets import load_diabetes  # type: ignore[import-untyped]

    bunch = load_diabetes()
    targets = torch.tensor(bunch.target, dtype=torch.float32).unsqueeze(1)
    data = _split(bunch, targets)
    mean, deviation = data.train.targets.mean(), data.train.targets.std()
    train, validation = (part._replace(targets=(part.targets - mean) / deviation) for part in data)
    return Data(train, validation)


def _breast_cancer() -> Data:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return _split(bunch, torch.tensor(bunch.target), bunch.target)


LEAST_SQUARES = Problem(
    name="least-squares",
    title="Linear regression on diabetes",
    lr=0.01,
    lrs={"sgd": 0.03, "adam": 0.01, "adagrad": 0.1, "adafactor": 0.03},
    steps=300,
    batch_size=16,
    load=_diabetes,
    model=lambda: nn.Linear(10, 1),
    kind="analytic",
    description="progression of diabetes from ten measurements: linear regression",
    task=REGRESSION,
)
"""331 patients to train on, 111 to validate on."""

LOGISTIC = Problem(
    name="logistic",
    title="Logistic regression on breast cancer",
    lr=0.03,
    lrs={"sgd": 0.03, "adam": 0.03, "adagrad": 0.3, "adafactor": 0.1},
    steps=300,
    batch_size=16,
    load=_breast_cancer,
    model=lambda: nn.Linear(30, 2),
    kind="analytic",
    description="malignant or benign from thirty measurements of a tumour: logistic regression",
)
"""426 tumours to train on, 143 to validate on."""

ENTRIES = (LEAST_SQUARES, LOGISTIC)
