"""What came of the suite ``factor``, by rule and F.

    greedylr lab run factor --store factor.sqlite       # about 25 minutes on one core
    python benchmarks/factor_table.py factor.sqlite

A run has diverged if it broke down or ends above the loss at its start; the other number is the loss at the end over
that of cosine at the same learning rate and seed, in the median over problems and seeds. The last result:
docs/theory.md.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

from greedylr.lab.catalogue.grammar import read
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result


def end(result: Result) -> float:
    """The validation loss at the end, infinite if the run has diverged."""
    losses = result.validation_losses
    whole = result.failure is None and len(losses) > 1 and math.isfinite(losses[-1])
    return losses[-1] if whole and losses[-1] <= losses[0] else math.inf


def main() -> None:
    suite = SUITES["factor"]
    with Store(Path(sys.argv[1])) as store:
        ends = {result.run: end(result) for result in store.load(suite.runs())}
    ratios: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, loss in ends.items():
        entry, settings = read(run.scheduler)
        factor = settings.pop("factor", None)
        if factor is not None:
            rule = ", ".join([entry, *(f"{name}={value}" for name, value in settings.items())])
            cosine = ends[run._replace(scheduler="cosine")]
            ratios[rule, run.optimizer][factor].append(loss / cosine)
    factors = sorted({factor for row in ratios.values() for factor in row})
    print(f"| rule | optimizer | {' | '.join(f'F = {factor:g}' for factor in factors)} |")
    print(f"|---|---|{'---|' * len(factors)}")
    for (rule, optimizer), row in sorted(ratios.items()):
        cells = []
        for factor in factors:
            lost = sum(math.isinf(ratio) for ratio in row[factor]) / len(row[factor])
            middle = median(row[factor])
            cells.append(f"{lost:.0%}, {middle:.2f}" if math.isfinite(middle) else f"{lost:.0%}")
        print(f"| {rule} | {OPTIMIZERS[optimizer].title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
