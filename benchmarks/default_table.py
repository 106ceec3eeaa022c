"""The tables of docs/default.md: regret of every scheduler at each learning rate, and verdicts on the default.

greedylr lab run default-confirmation --store default.sqlite
python benchmarks/default_table.py default.sqlite default-confirmation
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path

from greedylr.lab.analysis.statistics import CaseVerdict
from greedylr.lab.analysis.statistics.steps import first_step, target_loss
from greedylr.lab.analysis.statistics.verdict import tally
from greedylr.lab.analysis.summary import outcome, summarize
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.suites import SUITES, Suite
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result

SOON = (0.1, 1.0, 3.0)
"""Learning rates, as multiples of the good one, of which the time is told."""
PARTS = (0.9, 0.99)
"""Shares of what tuned cosine lowers the loss by."""


def how_soon(suite: Suite, path: Path) -> None:
    """Print when the loss has come down to where tuned cosine ends: the median task, its median seed."""
    found: dict[tuple[str, float], dict[tuple[str, str], list[Result]]] = defaultdict(lambda: defaultdict(list))
    soon = [rate for rate in SOON if rate in suite.multipliers]
    with Store(path) as store:
        for one in store.load([run for run in suite.runs() if run.multiplier in soon]):
            found[one.run.scheduler, one.run.multiplier][one.run.problem, one.run.optimizer].append(one)
    goals = {
        (task, part): target_loss(map(outcome, runs), part)
        for task, runs in found["cosine", 1.0].items()
        for part in PARTS
    }
    print("\nThe part of the run after which, in the median, and in how many tasks:\n")
    head = [f"{part:.0%} at {rate:g} ×" for rate in soon for part in PARTS]
    print("| of what tuned cosine gains | " + " | ".join(head) + " |\n|" + "---|" * (len(head) + 1))
    for name in suite.schedulers:
        cells = []
        for rate, part in product(soon, PARTS):
            its = found[name, rate].items()
            times = [statistics.median(time_to(one, goals[task, part]) for one in runs) for task, runs in its]
            median, reached = statistics.median(times), f"{sum(map(math.isfinite, times))} of {len(times)}"
            cells.append(f"{median:.2f}, {reached}" if math.isfinite(median) else f"–, {reached}")
        print(f"| {SCHEDULERS[name].title} | " + " | ".join(cells) + " |")


def time_to(result: Result, goal: float) -> float:
    """The part of the run after which the validation loss is as low; infinite if it never is."""
    step = first_step(result.validation_steps, result.validation_losses, goal)
    return math.inf if step is None else step / result.run.steps


def main() -> None:
    suite = SUITES[sys.argv[2]]
    with Store(Path(sys.argv[1])) as store:
        summary = summarize(store.load(suite.runs()))
    rates = sorted({one.multiplier for one in summary.regret_by_multiplier})
    regret = {(one.scheduler, one.multiplier): one for one in summary.regret_by_multiplier}
    failures = {one.scheduler: one for one in summary.failures}
    ends = {one.difference.second: one.tally for one in summary.comparisons if one.difference.stage == 1.0}

    print(f"{len(summary.outcomes):,} runs\n")
    head = ["median regret at LR ×", *(f"{rate:g}" for rate in rates), "failed", "GreedyLR as good or better"]
    print("| " + " | ".join([*head, "clearly better", "clearly worse"]) + " |\n|" + "---|" * (len(rates) + 5))
    for name in [name for name in suite.schedulers if name in failures]:
        cells = []
        for rate in rates:
            one = regret.get((name, rate))
            interval = None if one is None else one.interval
            inside = "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
            cells.append("–" if one is None else f"{one.median:.2f}{inside}")
        failed = failures[name]
        row = [SCHEDULERS[name].title, *cells, f"{failed.failed / failed.runs:.1%}"]
        its = ends.get(name)
        shares = [its.as_good_or_better, its.better, its.clearly_better, its.clearly_worse] if its else []
        row += [f"{shares[index].value:.0%}" for index in (0, 2, 3)] if shares else ["", "", ""]
        print("| " + " | ".join(row) + " |")

    print("\nAgainst cosine at the same learning rate:\n")
    print("| LR × | | " + " | ".join(f"{rate:g}" for rate in rates) + " | all |\n|" + "---|" * (len(rates) + 3))
    for comparison in summary.comparisons:
        if comparison.difference.second != "cosine":
            continue
        by_rate: dict[float, list[CaseVerdict]] = defaultdict(list)
        for verdict in comparison.tally.verdicts:
            by_rate[verdict.case.multiplier].append(verdict)
        tallies = [*(tally(by_rate[rate]) for rate in rates), comparison.tally]
        for what in ("as_good_or_better", "clearly_better", "clearly_worse"):
            shares = [f"{getattr(one, what).value:.0%}" for one in tallies]
            stage = f"after {comparison.difference.stage:.0%}"
            print("| " + " | ".join([stage, what.replace("_", " "), *shares]) + " |")
    for name in ("greedylr", "cosine"):
        counts = {
            rate: sum(one.failed for one in summary.outcomes if (one.scheduler, one.multiplier) == (name, rate))
            for rate in rates
        }
        print(f"| failed | {SCHEDULERS[name].title} | " + " | ".join(map(str, counts.values())) + " | |")

    how_soon(suite, Path(sys.argv[1]))

    print("\nWorst against cosine at the end:\n")
    for verdict in ends["cosine"].verdicts[:12]:
        case = verdict.case
        print(
            f"- {case.problem}, {case.optimizer}, {case.multiplier:g} ×: {verdict.mean:+.1%} ({verdict.verdict.name})"
        )


if __name__ == "__main__":
    main()
