"""Runs with chosen results, for the tests of the statistics."""

import math

from hypothesis import strategies as st

from greedylr.lab.analysis import statistics as lab
from greedylr.lab.analysis.statistics import Outcome

SCHEDULER = ("a", "b")


def run(scheduler, final, seed=0, **changes):
    """A run that starts from a loss of 2 and has its final loss from the first stage on."""
    settings = {"problem": "p", "optimizer": "sgd", "multiplier": 1.0, "start": 2.0} | changes
    stages = settings.pop("stages", {0.1: final, 0.5: final, 1.0: final})
    return Outcome(scheduler=scheduler, seed=seed, stages=stages, **settings)


def by_share(*shares, problem="p"):
    """Runs of a and b, a seed each, in which the benefit of a is the given share of the decrease from 1 to 0."""
    finals = [(max(-share, 0.0), max(share, 0.0)) for share in shares]
    return [
        run(name, final, seed, start=1.0, problem=problem)
        for seed, both in enumerate(finals)
        for name, final in zip(SCHEDULER, both)
    ]


def judge(runs, first="a", second="b", **options):
    return lab.verdicts(lab.pair(runs, first, second), **options)


def verdict_of(*shares, **options):
    (judged,) = judge(by_share(*shares), **options)
    return judged.verdict


any_loss = st.integers(-10_000, 10_000).map(lambda loss: loss / 1000) | st.sampled_from(
    [math.nan, math.inf, -math.inf, 2.0]
)
two_losses = st.tuples(any_loss, any_loss)


@st.composite
def paired_runs(draw, min_size=1):
    """Runs of a and b, of up to three problems, with any losses, diverged ones too."""
    losses = draw(st.lists(st.tuples(st.sampled_from("pqr"), two_losses, two_losses), min_size=min_size, max_size=12))
    return [
        run(name, None, seed, problem=problem, stages={0.1: first[i], 0.5: first[i], 1.0: last[i]})
        for seed, (problem, first, last) in enumerate(losses)
        for i, name in enumerate(SCHEDULER)
    ]
