"""Final loss away from the good learning rate, over that of cosine at it.

    greedylr lab run breadth-away --store breadth.sqlite
    greedylr lab run breadth-quick --store breadth.sqlite --only optimizer=sgd --only optimizer=adamw
    python benchmarks/breadth_away.py breadth.sqlite
    python benchmarks/breadth_away.py breadth.sqlite breadth-pretrained      # one suite that has both

Medians over problems, optimizers and seeds of the validation loss at the end over that of cosine at the good learning
rate, same problem, optimizer and seed; a run that ended above its start counts with its start. In brackets: how many
such runs there are. The last result: docs/breadth.md.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result
from greedylr.lab.runs import Run


def end(result: Result) -> float:
    start, last = result.start_loss, result.final_loss
    return min(start, last) if math.isfinite(last) else start


def main() -> None:
    names = sys.argv[2:] or ["breadth-quick", "breadth-away"]
    away = SUITES[names[-1]]
    runs = [run for name in names for run in SUITES[name].runs()]
    with Store(Path(sys.argv[1])) as store:
        results = {result.run: result for result in store.load(runs) if result.run.optimizer in away.optimizers}
    ratios: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    failed: dict[tuple[str, float], int] = defaultdict(int)
    for run, result in results.items():
        cosine: Run = run._replace(scheduler="cosine", multiplier=1.0)
        if run.scheduler in away.schedulers and cosine in results:
            ratios[run.scheduler][run.multiplier].append(end(result) / end(results[cosine]))
            failed[run.scheduler, run.multiplier] += result.diverged
    multipliers = sorted({multiplier for row in ratios.values() for multiplier in row})
    print(f"| | {' | '.join(f'{multiplier:g} ×' for multiplier in multipliers)} |\n|---|{'---|' * len(multipliers)}")
    for scheduler, row in ratios.items():
        cells = [
            f"{median(row[m]):.2f} ({failed[scheduler, m]} of {len(row[m])})" if m in row else "" for m in multipliers
        ]
        print(f"| {SCHEDULERS[scheduler].title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
