"""Catalogue of torch's optimizers, one entry each."""

from functools import partial

import torch

from greedylr.lab.catalogue.optimizers.optimizer import OptimizerEntry, forget

OPTIMIZERS: dict[str, OptimizerEntry] = {
    entry.name: entry
    for entry in (
        OptimizerEntry("sgd", "SGD, momentum 0.9", partial(torch.optim.SGD, momentum=0.9)),
        OptimizerEntry("adam", "Adam", torch.optim.Adam),
        OptimizerEntry("adamw", "AdamW", torch.optim.AdamW),
        OptimizerEntry("adagrad", "Adagrad", torch.optim.Adagrad),
        OptimizerEntry("adafactor", "Adafactor", torch.optim.Adafactor, elementwise=False),
    )
}
"""Every optimizer by its name."""

__all__ = ["OPTIMIZERS", "OptimizerEntry", "forget"]
