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

from greedylr.lab.analysis.statistics.pairing import Pair, pair
from greedylr.lab.analysis.summary import outcome
from greedylr.lab.catalogue.perturbations import find
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.complete import complete
from greedylr.lab.execution.store import Store


def row(name: str, pairs: list[Pair]) -> str:
    ahead = [one.share() for one in pairs]
    of = len(pairs)
    shares = [sum(one >= -0.01 for one in ahead), sum(one > 0.05 for one in ahead), sum(one < -0.05 for one in ahead)]
    failed = [sum(one.failed for one in runs) for runs in zip(*((one.first, one.second) for one in pairs), strict=True)]
    return f"| {name} | {of} | {' / '.join(f'{share / of:.0%}' for share in shares)} | {failed[0]}, {failed[1]} |"


def main() -> None:
    suite = SUITES["robustness"]
    suite = replace(suite, multipliers=(1.0,), seeds=2, schedulers=("greedylr", "cosine"))
    with Store(Path(sys.argv[1])) as store:
        complete(suite.runs(), store, jobs=2)
        # What is done to the observed loss alone is nothing to a schedule: such runs have no partner.
        pairs = pair(map(outcome, store.load(suite.runs())), *suite.schedulers).pairs
    by_place: dict[str, list[Pair]] = defaultdict(list)
    by_kind: dict[str, list[Pair]] = defaultdict(list)
    for one in pairs:
        perturbation = find(one.first.perturbation)
        by_place["nothing (twins)" if perturbation is None else perturbation.kind.acts_on].append(one)
        by_kind["none" if perturbation is None else perturbation.kind.name].append(one)
    for title, table in (("acted on", by_place), ("kind", by_kind)):
        print(f"| {title} | pairs | as good / clearly better / clearly worse | failed, cosine's |\n|---|---|---|---|")
        for name, its in table.items():
            print(row(name, its))
        print()


if __name__ == "__main__":
    main()
