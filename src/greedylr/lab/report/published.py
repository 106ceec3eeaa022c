"""What the authors of the method report, to be shown beside our own numbers."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row of shares of cases, in percent, as far as they are stated.

    Attributes:
        what: Which of their experiments.
        as_good_or_better: At least as good as the rival.
        better: Better.
        clearly_better: Clearly better.
        worse: Worse.
        average: Average benefit in units of the loss.
        largest_benefit: The best case.
        largest_deficit: The worst case, negative.
    """

    what: str
    as_good_or_better: float
    better: float | None = None
    clearly_better: float | None = None
    worse: float | None = None
    average: float | None = None
    largest_benefit: float | None = None
    largest_deficit: float | None = None


METHOD = ("greedylr", "greedylr-open", "paper", "core", "transformers-greedylr", "transformers-greedylr-smooth")
"""The schedulers that such figures belong beside: versions of the same method."""

SOURCE = "arXiv:2512.14527"
"""Where these figures are from."""

EXPERIMENTS = (
    "132 experiments with models of fewer than 500 million parameters on translation, question answering, "
    "summarisation, entity recognition and images, with AdamW, Adafactor, Adagrad and SGD"
)
"""What they were measured on."""

SMALL_MODELS = (
    Published("published, small models", 86.73, 57.14, 24.49, 13.27, 0.16, 2.3, -0.62),
    Published("published, after 100% of training", 85.94),
    Published("published, after 50% of training", 81.81),
    Published("published, after 10% of training", 92.42),
)
"""Their figures for small models: over all stages together, then by stage."""
