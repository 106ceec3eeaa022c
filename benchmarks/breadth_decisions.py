"""In how many runs of a suite GreedyLR did anything but follow its schedule.

    greedylr lab run breadth-quick --store breadth.sqlite
    python benchmarks/breadth_decisions.py breadth.sqlite breadth-quick

The schedule is what the same settings give for a loss that never changes and no gradient. A run differs if a learning
rate does by more than a millionth. The last result: docs/breadth.md.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from greedylr.control import rule
from greedylr.control.default.config import DefaultConfig
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.setup import learning_rate
from greedylr.lab.execution.store import Store


def schedule(steps: int) -> np.ndarray:
    config = DefaultConfig(total_steps=steps)
    state = rule.start(config, [1.0])
    lrs = []
    for _ in range(steps):
        lrs.append(state.lrs[0])
        rule.observe(config, state, 1.0)
    return np.array(lrs)


def main() -> None:
    path, name = Path(sys.argv[1]), sys.argv[2]
    found: dict[tuple[str, float], list[tuple[bool, float, float]]] = defaultdict(list)
    with Store(path) as store:
        for result in store.load(run for run in SUITES[name].runs() if run.scheduler == "greedylr"):
            ratio = np.array(result.lrs) / learning_rate(result.run) / schedule(result.run.steps)[: len(result.lrs)]
            heard = bool(np.abs(ratio - 1).max() > 1e-6)
            found[OPTIMIZERS[result.run.optimizer].title, result.run.multiplier].append(
                (heard, float(ratio.min()), float(ratio.max()))
            )
    print(
        "| optimizer | LR × | runs | that differ from the schedule | by a factor from | to |\n|---|---|---|---|---|---|"
    )
    for (optimizer, multiplier), runs in sorted(found.items()):
        differ, lows, highs = zip(*runs)
        print(f"| {optimizer} | {multiplier:g} | {len(runs)} | {sum(differ)} | {min(lows):.2g} | {max(highs):.2g} |")


if __name__ == "__main__":
    main()
