"""Weights that were trained before: made where they are first asked for, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from greedylr.lab.catalogue.problems import models
from greedylr.lab.catalogue.problems.problem import Data
from greedylr.lab.catalogue.problems.task import CLASSIFICATION

_BATCH = 32
_SEED = 1000  # No run has it.


@dataclass(frozen=True)
class Pretraining:
    """A recipe for weights: AdamW, one-cycle, batches of 32, cross-entropy.

    Attributes:
        name: In the name of the file in the cache.
        model: Builds the model.
        load: Reads its data.
        lr: The highest learning rate.
        steps: Optimizer steps.
    """

    name: str
    model: Callable[[], nn.Module]
    load: Callable[[], Data]
    lr: float
    steps: int

    def weights(self) -> dict[str, Tensor]:
        """The trained weights by name, a copy of one's own: from the cache, or made in some seconds.

        Raises:
            DataError: If the data cannot be read.
        """
        return {name: weight.clone() for name, weight in _kept(self).items()}


def cache_folder() -> Path:
    """The folder of all weights: ``greedylr/weights`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "greedylr" / "weights"


@cache
def _kept(made: Pretraining) -> dict[str, Tensor]:
    data = made.load()
    file = cache_folder() / f"{made.name}-{_key(made, data)}.pt"
    if not file.exists():
        weights = _train(made, data)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, and whoever else makes them now makes the same.
        handle, part = tempfile.mkstemp(dir=file.parent, suffix=".part")
        os.close(handle)
        torch.save(weights, part)
        os.replace(part, file)
    loaded: dict[str, Tensor] = torch.load(file, weights_only=True)
    return loaded


def _key(made: Pretraining, data: Data) -> str:
    """A short text that stands for all that the weights depend on: settings, code, data and torch."""
    digest = hashlib.sha256(repr((made.name, made.lr, made.steps, _BATCH, _SEED, torch.__version__)).encode())
    with _drawing():
        digest.update(str(made.model()).encode())
    for code in (_train, models):
        digest.update(inspect.getsource(code).encode())
    for tensor in data.train:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _train(made: Pretraining, data: Data) -> dict[str, Tensor]:
    with _drawing():
        model = made.model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=made.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, made.lr, total_steps=made.steps)
        for _ in range(made.steps):
            batch = data.train.batch(torch.randint(len(data.train.inputs), (_BATCH,)))
            optimizer.zero_grad()
            CLASSIFICATION.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@contextmanager
def _drawing() -> Iterator[None]:
    """The same weights on any machine: one thread, and torch's global generator as it was afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(_SEED)
            yield
    finally:
        torch.set_num_threads(threads)
