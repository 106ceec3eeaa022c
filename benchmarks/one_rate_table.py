"""One learning rate for every problem: how many problems each scheduler reaches, and how soon.

    greedylr lab run one-rate --store one-rate.sqlite
    python benchmarks/one_rate_table.py one-rate.sqlite [condition…]

Conditions such as optimizer=adamw choose a part of the suite.

Each scheduler has one learning rate for all problems, per optimizer. A problem is reached if the validation loss comes
down to where cosine ends at the problem's good learning rate, within a hundredth of that decrease; and if the run did
not fail in the end. The time is the part of the run that it took; a miss is infinite. This is the criterion of
AlgoPerf's self-tuning track. The learning rate of each scheduler is the one at which it reaches most problems, then the
one with the lowest median time: chosen in hindsight, for all alike. Beside it, chosen on the development side alone and
judged on the others.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from greedylr.lab.analysis.statistics.steps import first_step, target_loss
from greedylr.lab.analysis.summary import outcome
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.selection import select
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.complete import complete
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

MARGIN = 0.01
Times = dict[str, float]  # of each problem, in parts of the run


def time_to(result: Result, goal: float) -> float:
    if result.failure is not None or result.diverged:
        return math.inf
    step = first_step(result.validation_steps, result.validation_losses, goal)
    return math.inf if step is None else step / result.run.steps


def reached(times: Times, problems: tuple[str, ...]) -> tuple[int, float]:
    """How many problems, and minus the median time: the more the better."""
    its = [times[name] for name in problems if name in times]
    return sum(map(math.isfinite, its)), -statistics.median(its)


def main() -> None:
    suite = SUITES["one-rate"]
    runs = select(suite.runs(), sys.argv[2:])
    optimizers = [one for one in suite.optimizers if any(run.optimizer == one for run in runs)]
    goals = {
        (name, optimizer): [
            Run(name, 1.0, "cosine", seed, PROBLEMS[name].steps, optimizer) for seed in range(suite.seeds)
        ]
        for name in suite.problems
        for optimizer in optimizers
        if optimizer in PROBLEMS[name].lrs
    }
    asked = [run for its in goals.values() for run in its]
    with Store(Path(sys.argv[1])) as store:
        complete(asked, store, os.cpu_count() or 1)
        found = {one.run: one for one in store.load([*runs, *asked])}
    targets = {key: target_loss([outcome(found[run]) for run in its], share=1 - MARGIN) for key, its in goals.items()}

    sides = {
        side: tuple(name for which in ("default", "fine-tuning") for name in SUITES[f"{which}-{side}"].problems)
        for side in ("development", "confirmation")
    }
    print(f"{sum(run in found for run in runs):,} of {len(runs):,} runs")
    for optimizer in optimizers:
        times: dict[str, dict[float, dict[str, list[float]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for run in runs:
            if run in found and run.optimizer == optimizer and (run.problem, optimizer) in targets:
                lr = float(f"{run.multiplier * PROBLEMS[run.problem].lrs[optimizer]:.2g}")
                its = times[run.scheduler].setdefault(lr, defaultdict(list))
                its[run.problem].append(time_to(found[run], targets[run.problem, optimizer]))
        print(f"\n{optimizer}\n")
        print("| | learning rate | problems reached | median time | chosen on development: reached of the others |")
        print("|---|---|---|---|---|")
        rows = []
        for name, by_rate in times.items():
            means = {lr: {key: statistics.median(its) for key, its in one.items()} for lr, one in by_rate.items()}
            best = max(means, key=lambda lr: reached(means[lr], suite.problems))
            count, negative = reached(means[best], suite.problems)
            there = max(means, key=lambda lr: reached(means[lr], sides["development"]))
            held = reached(means[there], sides["confirmation"])[0]
            of = sum(key in means[there] for key in sides["confirmation"])
            rows.append((count, negative, name, best, len(means[best]), there, held, of))
        for count, negative, name, best, of_all, there, held, of in sorted(rows, reverse=True):
            time = f"{-negative:.0%} of the run" if math.isfinite(negative) else "never"
            title = SCHEDULERS[name].title
            print(f"| {title} | {best:g} | {count} of {of_all} | {time} | {there:g}: {held} of {of} |")


if __name__ == "__main__":
    main()
