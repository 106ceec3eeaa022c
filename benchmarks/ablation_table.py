"""The ablation in docs/default.md: the rule without one part or another, and with each setting lower and higher.

greedylr lab run default-ablation --store ablation.sqlite
python benchmarks/ablation_table.py ablation.sqlite

Regret is against the best of the four fixed schedules, verdicts are against cosine at the same learning rate.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from greedylr.lab.analysis.statistics import Verdict
from greedylr.lab.analysis.summary import summarize
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.store import Store

STAGES = (0.1, 0.5, 1.0)
# Of cosine against the other, which is how the summary has them.
NOT_AS_GOOD = (Verdict.BETTER, Verdict.CLEARLY_BETTER)


def main() -> None:
    suite = SUITES["default-ablation"]
    with Store(Path(sys.argv[1])) as store:
        summary = summarize(store.load(suite.runs()), "cosine", stages=STAGES)
    regret = {(one.scheduler, one.multiplier): one.median for one in summary.regret_by_multiplier}
    failures = {one.scheduler: one for one in summary.failures}
    verdicts = {
        (one.difference.second, one.difference.stage): [
            (verdict.case.multiplier, verdict.verdict) for verdict in one.tally.verdicts
        ]
        for one in summary.comparisons
    }
    print(f"{len(summary.outcomes):,} runs\n")
    head = [*(f"{rate:g}" for rate in suite.multipliers), "failed", "as good at 10 / 50 / 100 %, %", "at 1 ×, %"]
    print("| median regret at LR × | " + " | ".join([*head, "clearly better, worse at the end"]) + " |")
    print("|" + "---|" * (len(head) + 2))
    for name in suite.schedulers:
        cells = [f"{regret[name, rate]:.2f}" for rate in suite.multipliers]
        cells.append(f"{failures[name].failed / failures[name].runs:.1%}")
        if name != "cosine":
            at_stages = [verdicts[name, stage] for stage in STAGES]
            for only in (suite.multipliers, (1.0,)):
                shares = [
                    1 - share([verdict for rate, verdict in its if rate in only], NOT_AS_GOOD) for its in at_stages
                ]
                cells.append(" / ".join(f"{100 * one:.0f}" for one in shares))
            ends = [verdict for _, verdict in at_stages[-1]]
            cells.append(f"{share(ends, [Verdict.CLEARLY_WORSE]):.0%}, {share(ends, [Verdict.CLEARLY_BETTER]):.0%}")
        print(f"| `{name}` | " + " | ".join(cells) + " |")


def share(verdicts: Sequence[Verdict], of: Collection[Verdict]) -> float:
    """How many of them are among those."""
    return sum(one in of for one in verdicts) / len(verdicts)


if __name__ == "__main__":
    main()
