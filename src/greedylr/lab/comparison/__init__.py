"""Schedulers side by side on a problem of the catalogue, or on training code of the user's own."""

from greedylr.lab.comparison.compared import Compared
from greedylr.lab.comparison.trial import Trial, TrialError

__all__ = ["Compared", "Trial", "TrialError"]
