"""Statements about the rule that can be computed: curvature, stability, guarantees and the factor.

Each function says where its statement holds; proofs and measurements are in ``docs/theory.md``.
"""

from greedylr.theory.convergence import Bound, convergence_bound
from greedylr.theory.curvature import Sharpness, sharpness
from greedylr.theory.growth import GrowthRate, cycle_growth_rate, growth_rate, mean_growth_rate
from greedylr.theory.stability import Stability, stability

__all__ = [
    "Bound",
    "GrowthRate",
    "Sharpness",
    "Stability",
    "convergence_bound",
    "cycle_growth_rate",
    "growth_rate",
    "mean_growth_rate",
    "sharpness",
    "stability",
]
