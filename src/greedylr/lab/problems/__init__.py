"""What there is to train: one file a family, one line here to add a problem."""

from greedylr.lab.problems.bandit import BANDIT
from greedylr.lab.problems.continual import CONTINUAL
from greedylr.lab.problems.convex import LEAST_SQUARES, LOGISTIC
from greedylr.lab.problems.digits import DIGITS, MLP
from greedylr.lab.problems.domains import DOMAINS, EXPERTS, UNEVEN
from greedylr.lab.problems.images import RESIDUAL_MLP, VIT
from greedylr.lab.problems.landscapes import LANDSCAPES
from greedylr.lab.problems.problem import Data, DataError, Problem
from greedylr.lab.problems.stdlib_text import (
    ATTENTION,
    DEEP_TRANSFORMER,
    GATED,
    LM_PROSE,
    STDLIB_TEXT,
    WIDE_TRANSFORMER,
)
from greedylr.lab.problems.task import Examples, Task

PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        *LANDSCAPES,
        LEAST_SQUARES,
        LOGISTIC,
        MLP,
        RESIDUAL_MLP,
        DIGITS,
        GATED,
        ATTENTION,
        VIT,
        DEEP_TRANSFORMER,
        WIDE_TRANSFORMER,
        LM_PROSE,
        STDLIB_TEXT,
        DOMAINS,
        EXPERTS,
        UNEVEN,
        BANDIT,
        CONTINUAL,
    )
}
"""Every problem by its name."""

__all__ = ["PROBLEMS", "Data", "DataError", "Examples", "Problem", "Task"]
