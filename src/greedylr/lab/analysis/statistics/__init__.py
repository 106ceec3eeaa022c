"""Claims that the runs support, with their uncertainty; ``docs/statistics.md`` argues every definition."""

from greedylr.lab.analysis.statistics.differences import Difference, difference, differences
from greedylr.lab.analysis.statistics.estimate import (
    Interval,
    Proportion,
    holm,
    mean_interval,
    median_interval,
    proportion,
)
from greedylr.lab.analysis.statistics.outcome import FAILED, NEAR_ZERO, Case, Outcome
from greedylr.lab.analysis.statistics.pairing import Missing, Pair, Pairing, pair, pair_all
from greedylr.lab.analysis.statistics.regret import Entry, Regret, RegretAt, Regrets, regret_by_multiplier, regrets
from greedylr.lab.analysis.statistics.steps import StepsToTarget, first_step, steps_to_target, target_loss
from greedylr.lab.analysis.statistics.verdict import CaseVerdict, Extremes, Tally, Thresholds, Verdict, tally, verdicts

__all__ = [
    "FAILED",
    "NEAR_ZERO",
    "Case",
    "CaseVerdict",
    "Difference",
    "Entry",
    "Extremes",
    "Interval",
    "Missing",
    "Outcome",
    "Pair",
    "Pairing",
    "Proportion",
    "Regret",
    "RegretAt",
    "Regrets",
    "StepsToTarget",
    "Tally",
    "Thresholds",
    "Verdict",
    "difference",
    "differences",
    "first_step",
    "holm",
    "mean_interval",
    "median_interval",
    "pair",
    "pair_all",
    "proportion",
    "regret_by_multiplier",
    "regrets",
    "steps_to_target",
    "tally",
    "target_loss",
    "verdicts",
]
