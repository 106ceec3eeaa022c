"""Data to fine-tune and to pre-train on: sets made of what packages ship, files, and the hub's."""

from greedylr.lab.catalogue.problems.problem import DataError
from greedylr.language_models.data.examples import SETS, Examples, find
from greedylr.language_models.data.texts import TEXTS, Texts, find_texts

__all__ = ["SETS", "TEXTS", "DataError", "Examples", "Texts", "find", "find_texts"]
