"""Experiments, one readable file each: what is trained, on what, and how."""

from greedylr.language_models.recipes.fine_tuning import FineTuning
from greedylr.language_models.recipes.grpo import GRPO
from greedylr.language_models.recipes.pretraining import Pretraining

__all__ = ["GRPO", "FineTuning", "Pretraining"]
