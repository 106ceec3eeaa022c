"""What came of the suite ``breadth``, or another of its kind: by stage, rival, optimizer, task and architecture.

    greedylr lab run breadth-quick --store breadth.sqlite
    python benchmarks/breadth_table.py breadth.sqlite breadth-quick [scheduler [condition…]]

The scheduler in question is greedylr unless another is named; conditions such as seed=0 choose a part of the suite.

A case is an architecture on a set of data with an optimizer, against one rival. Where tuned cosine itself lowers the
loss by less than a twentieth nothing is learnt, and whatever is compared there is as good: those are counted apart. Of
a suite without the good learning rate all count. The last result: docs/breadth.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

from greedylr.lab.analysis.statistics import CaseVerdict
from greedylr.lab.analysis.statistics.estimate import Proportion, proportion
from greedylr.lab.analysis.statistics.verdict import Verdict
from greedylr.lab.analysis.summary import summarize
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.problems.transformers import CORPORA, MODULES
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.selection import select
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.store import Store
from greedylr.lab.report.published import METHOD

LEARNT = 0.95


def shares(verdicts: Iterable[CaseVerdict]) -> str:
    found = [one.verdict for one in verdicts]
    of = len(found)
    counted = [
        sum(one not in (Verdict.WORSE, Verdict.CLEARLY_WORSE) for one in found),
        sum(one in (Verdict.BETTER, Verdict.CLEARLY_BETTER) for one in found),
        found.count(Verdict.CLEARLY_BETTER),
        sum(one in (Verdict.WORSE, Verdict.CLEARLY_WORSE) for one in found),
        found.count(Verdict.CLEARLY_WORSE),
    ]
    return f"{of} | " + " | ".join(map(share, (proportion(number, of) for number in counted)))


def share(one: Proportion) -> str:
    """In percent, with Wilson's interval, which takes the cases for independent of each other."""
    return f"{one.value:.0%} [{100 * one.interval.low:.0f}, {100 * one.interval.high:.0f}]" if one.of else "–"


def task(problem: str) -> str:
    """What is learnt; of what is no pair of an architecture and a set, which it is."""
    corpus = problem.partition("-")[2]
    return CORPORA[corpus].kind if problem in MODULES else problem


def main() -> None:
    path, name = Path(sys.argv[1]), sys.argv[2]
    scheduler = sys.argv[3] if len(sys.argv) > 3 else "greedylr"
    with Store(path) as store:
        results = list(store.load(select(SUITES[name].runs(), sys.argv[4:])))
    cosine: dict[tuple[str, str], list[float]] = {}
    for result in results:
        if result.run.scheduler == "cosine" and result.run.multiplier == 1:
            ratio = result.final_loss / result.start_loss
            cosine.setdefault((result.run.problem, result.run.optimizer), []).append(ratio)
    tasks = {(result.run.problem, result.run.optimizer) for result in results}
    learnt = {task for task in tasks if mean(cosine.get(task, [0.0])) < LEARNT}
    summary = summarize(results, scheduler)
    every = [one for comparison in summary.comparisons for one in comparison.tally.verdicts]
    judged = [one for one in every if (one.case.problem, one.case.optimizer) in learnt]
    fixed = [one for one in judged if one.second not in METHOD]
    print(f"{len(results)} runs; {len(tasks)} experiments, in {len(tasks - learnt)} of which nothing is learnt:")
    print(", ".join(f"{problem} with {optimizer}" for problem, optimizer in sorted(tasks - learnt)), "\n")
    head = "cases | as good or better | better | clearly better | worse | clearly worse"

    def table(what: str, key: Callable[[CaseVerdict], str], of: list[CaseVerdict]) -> None:
        print(f"| {what} | {head} |\n|---|---|---|---|---|---|---|")
        for group in dict.fromkeys(map(key, of)):
            print(f"| {group} | {shares(one for one in of if key(one) == group)} |")
        print()

    at_end = [one for one in fixed if one.stage == 1.0]
    table("after", lambda one: f"{one.stage:.0%} of the run, fixed schedules", fixed)
    table("over", lambda one: "all three stages, fixed schedules", fixed)
    cosine_only = [one for one in judged if one.second == "cosine"]
    table("after", lambda one: f"{one.stage:.0%} of the run, cosine", cosine_only)
    table("rival, at the end", lambda one: SCHEDULERS[one.second].title, [one for one in judged if one.stage == 1.0])
    table("LR ×, at the end", lambda one: f"{one.case.multiplier:g}, fixed schedules", at_end)
    table("optimizer, at the end", lambda one: OPTIMIZERS[one.case.optimizer].title, at_end)
    table("task, at the end", lambda one: task(one.case.problem), at_end)
    table("architecture, at the end", lambda one: one.case.problem.partition("-")[0], at_end)
    worst = sorted((one for one in at_end), key=lambda one: one.mean)[:8]
    print("| worst: architecture and data | optimizer | rival | benefit, share of the decrease |\n|---|---|---|---|")
    for one in worst:
        print(f"| {one.case.problem} | {one.case.optimizer} | {one.second} | {one.mean:.1%} |")
    benefits = [one.benefit for one in fixed]
    span = f"from {min(benefits):.2f} to {max(benefits):.2f}"
    print(f"\nbenefit in units of the loss, all stages: mean {mean(benefits):.3f}, {span}")


if __name__ == "__main__":
    main()
