"""How the default ends beside cosine where training is disturbed, at the good learning rate: for docs/robustness.md.

    python benchmarks/robustness_table.py robustness.sqlite

trains what the store lacks: the suite ``robustness`` at 1 ×, two seeds, GreedyLR and cosine, a few minutes on two
cores. A pair is a problem, a perturbation of one strength and a seed; as good means within a hundredth of what the
better of the two has lowered the loss by, clearly a twentieth.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from greedylr.lab.analysis.statistics import Outcome
from greedylr.lab.analysis.summary import outcome
from greedylr.lab.catalogue.perturbations import find
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.complete import complete
from greedylr.lab.execution.store import Store


def behind(mine: Outcome, its: Outcome) -> float:
    """By how much the first ends above the second, as a share of what the better has gained."""
    ends = [one.start if one.failed else one.stages[1.0] for one in (mine, its)]
    gained = mine.start - min(ends)
    return (ends[0] - ends[1]) / gained if gained > 0 else 0.0


def row(name: str, pairs: list[tuple[Outcome, Outcome]]) -> str:
    found = [behind(*pair) for pair in pairs]
    of = len(found)
    shares = [sum(one <= 0.01 for one in found), sum(one < -0.05 for one in found), sum(one > 0.05 for one in found)]
    failed = [sum(one.failed for one in column) for column in zip(*pairs, strict=True)]
    return f"| {name} | {of} | {' / '.join(f'{share / of:.0%}' for share in shares)} | {failed[0]}, {failed[1]} |"


def main() -> None:
    suite = SUITES["robustness"]
    suite = replace(suite, multipliers=(1.0,), seeds=2, schedulers=("greedylr", "cosine"))
    with Store(Path(sys.argv[1])) as store:
        complete(suite.runs(), store, jobs=2)
        made = {one.run: outcome(one) for one in store.load(suite.runs())}
    by_place: dict[str, list[tuple[Outcome, Outcome]]] = defaultdict(list)
    by_kind: dict[str, list[tuple[Outcome, Outcome]]] = defaultdict(list)
    for run, mine in made.items():
        its = made.get(run._replace(scheduler="cosine"))
        # What is done to the observed loss alone is nothing to a schedule.
        if run.scheduler == "greedylr" and its is not None:
            perturbation = find(run.perturbation)
            by_place["nothing (twins)" if perturbation is None else perturbation.kind.acts_on].append((mine, its))
            by_kind["none" if perturbation is None else perturbation.kind.name].append((mine, its))
    for title, table in (("acted on", by_place), ("kind", by_kind)):
        print(f"| {title} | pairs | as good / clearly better / clearly worse | failed, cosine's |\n|---|---|---|---|")
        for name, pairs in table.items():
            print(row(name, pairs))
        print()


if __name__ == "__main__":
    main()
