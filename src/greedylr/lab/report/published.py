"""Figures that the authors of the method report, to be shown beside our own."""

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


METHOD = (
    *("greedylr", "greedylr-open", "paper", "core"),
    *("transformers-greedylr", "transformers-greedylr-smooth", "transformers-greedylr-forgetful"),
)
"""The schedulers that such figures belong beside: versions of the same method."""

SOURCE = "arXiv:2512.14527"
"""Source of these figures."""

EXPERIMENTS = (
    "132 experiments with models of fewer than 500 million parameters on translation, question answering, "
    "summarisation, entity recognition and images, with AdamW, Adafactor, Adagrad and SGD"
)
"""Experiments that they were measured on."""

SMALL_MODELS = (
    Published("published, small models", 86.73, 57.14, 24.49, 13.27, 0.16, 2.3, -0.62),
    Published("published, after 100% of training", 85.94),
    Published("published, after 50% of training", 81.81),
    Published("published, after 10% of training", 92.42),
)
"""Their figures for small models: over all stages together, then by stage."""


class PublishedRobustness(NamedTuple):
    """Figures that the authors report of one scheduler in their robustness study, as far as they are stated.

    Attributes:
        what: Which scheduler.
        final: Median final training loss.
        ratio: Median of the largest over the last training loss, called recovery ratio.
        steps: Steps to recover.
    """

    what: str
    final: float
    ratio: float | None = None
    steps: int | None = None


ROBUSTNESS = (
    PublishedRobustness("published, GreedyLR", 0.148, 134, 12),
    PublishedRobustness("published, cosine", 0.232, 132, 45),
    PublishedRobustness("published, cosine with restarts", 0.226),
    PublishedRobustness("published, exponential", 0.249),
)
"""Their figures on robustness."""

ROBUSTNESS_BESIDE = ("cosine", "cosine-restarts", "exponential")
"""The schedulers of ours that these belong beside, beside the versions of the method."""

ROBUSTNESS_PROTOCOL = (
    "8,100 runs in which a number was added to the loss that does not depend on the parameters: its gradient is zero, "
    "and the scheduler was given the loss without it. They measured clean training"
)
"""Experiments that they were measured on."""


class PublishedBenefit(NamedTuple):
    """A share, in percent, by which the loss was below cosine's.

    Attributes:
        stage: Share of training done.
        benefit: Of cosine's loss.
    """

    stage: float
    benefit: float


FINE_TUNING = (
    "published, fine-tuning of Phi-2, Falcon-7B and Gemma-7B against cosine: as good or better 83.33%, clearly better "
    "62.5%; on average 2.89% below its loss, at best 47% (early), at worst 28% above (at the end)"
)
"""Their figures for fine-tuning."""

PRETRAINING = (PublishedBenefit(0.1, 1.0), PublishedBenefit(0.5, 3.0), PublishedBenefit(1.0, 5.4))
"""Their figures for pre-training Llama-3.2-1B against cosine: 1,000 steps, one seed."""

FACTOR_SWEEP = {0.25: 7.78, 0.5: 1.89, 0.75: 1.92, 0.99: 1.91}
"""Final loss by F that they report of fine-tuning Phi-2 for 250 steps, from 2.28: at 0.25 it diverges."""
