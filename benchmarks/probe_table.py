"""The tables in docs/probe.md: cosine at the learning rate that a probe suggests, beside what two finders suggest.

pip install torch-lr-finder
python benchmarks/probe_table.py probe.sqlite development
python benchmarks/probe_table.py probe.sqlite confirmation
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import statistics
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader
from torch_lr_finder import LRFinder, TrainDataLoaderIter

import greedylr
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.problems import PROBLEMS, Examples, Problem
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.complete import complete
from greedylr.lab.execution.setup import batches, data_of, drawing, initial_model
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result
from greedylr.lab.runs import Run

GRID = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 0.56, 1.0, 1.8, 3.0, 5.6, 10.0, 30.0)
SEEDS = (200, 201)  # of the runs with cosine
STARTS = (300, 301, 302)  # of the models that are probed
RECORDED = (0.01, 0.1, 1.0, 10.0)  # initial learning rates of runs under GreedyLR, multiples of the good one
GUESS = {"sgd": 1e-2, "adamw": 1e-3}  # of somebody who has no idea
Case = tuple[str, str]


def cases(side: str) -> list[Case]:
    names = [name for suite in ("default", "fine-tuning") for name in SUITES[f"{suite}-{side}"].problems]
    return [
        (name, optimizer)
        for name in names
        if PROBLEMS[name].task.mode == "min"  # The loss of a reward is not what is to fall.
        for optimizer in GUESS
        if optimizer in PROBLEMS[name].lrs
    ]


class Start:
    """A model before its first step, and batches without end."""

    def __init__(self, case: Case, seed: int) -> None:
        name, self.optimizer_name = case
        self.problem: Problem = PROBLEMS[name]
        self.run = Run(name, 1.0, "constant", seed, self.problem.steps, self.optimizer_name)
        self.data = data_of(name, torch.float32)
        self.model = initial_model(self.run, torch.float32)

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        return OPTIMIZERS[self.optimizer_name].build(list(self.model.parameters()), lr, fused=True)

    def batches(self) -> Iterator[Examples]:
        return (self.data.train.batch(indices) for indices in batches(self.run, self.data))

    def criterion(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        return self.problem.loss(lambda _: outputs, Examples(targets, targets))


def ours(start: Start) -> float:
    optimizer = start.optimizer(GUESS[start.optimizer_name])
    return greedylr.probe(start.model, optimizer, start.problem.loss, start.batches()).lr


def torch_lr_finder(start: Start) -> float:
    class Batches(TrainDataLoaderIter):  # type: ignore[misc]
        def __init__(self) -> None:
            self._iterator = start.batches()

        def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
            return tuple(next(self._iterator))  # type: ignore[return-value]

    finder = LRFinder(start.model, start.optimizer(1e-7), start.criterion)
    finder.range_test(Batches(), end_lr=10, num_iter=100)
    _, suggestion = finder.plot(ax=_axes(), suggest_lr=True)
    return float(suggestion)


def _axes() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    return pyplot.subplots()[1]


def lightnings(start: Start) -> float:
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = start.model, GUESS[start.optimizer_name]

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return start.problem.loss(self.model, Examples(*batch))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return start.optimizer(self.lr)

    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return (tuple(batch) for batch in start.batches())

    trainer = lightning.Trainer(
        max_steps=1000, accelerator="cpu", logger=False, enable_checkpointing=True, enable_progress_bar=False
    )
    found = Tuner(trainer).lr_find(Module(), DataLoader(Stream(), batch_size=None), update_attr=False)
    suggestion = None if found is None else found.suggestion()
    return math.nan if suggestion is None else float(suggestion)


METHODS: dict[str, Callable[[Start], float]] = {
    "greedylr.probe": ours,
    "torch-lr-finder": torch_lr_finder,
    "Lightning": lightnings,
}


def suggestion(method: str, case: Case, seed: int) -> float:
    """NaN if none was made."""
    start = Start(case, seed)
    with drawing(start.run):
        try:
            return METHODS[method](start)
        except (ValueError, IndexError, RuntimeError) as error:
            print(f"{method}, {case[0]} with {case[1]}, seed {seed}: {str(error)[:150]}")
            return math.nan


def at(case: Case, lr: float, *, absolute: bool) -> list[Run]:
    name, optimizer = case
    steps = PROBLEMS[name].steps
    return [Run(name, lr, "cosine", seed, steps, optimizer, absolute=absolute) for seed in SEEDS]


def loss(results: list[Result]) -> float:
    """Mean final loss; what failed counts with its start, and a millionth of the start is as good as solved."""
    ends = []
    for one in results:
        end = one.final_loss if one.failure is None and math.isfinite(one.final_loss) else one.start_loss
        ends.append(min(max(end, 1e-6 * one.start_loss), one.start_loss))
    return statistics.fmean(ends)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("side", choices=("development", "confirmation"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    chosen = cases(options.side)
    suggested = {
        (method, case): [round_off(suggestion(method, case, seed)) for seed in STARTS]
        for case in chosen
        for method in METHODS
    }
    grid = {case: [at(case, multiple, absolute=False) for multiple in GRID] for case in chosen}
    trained = {
        (case, lr): at(case, lr, absolute=True)
        for (_, case), lrs in suggested.items()
        for lr in lrs
        if math.isfinite(lr)
    }
    runs = [run for runs in grid.values() for at_one in runs for run in at_one]
    runs += [run for at_one in trained.values() for run in at_one]
    recorded = {
        (case, multiple): Run(case[0], multiple, "greedylr", STARTS[0], PROBLEMS[case[0]].steps, case[1])
        for case in chosen
        for multiple in RECORDED
    }
    runs += recorded.values()
    with Store(options.store) as store:
        complete(runs, store, options.jobs)
        results = {result.run: result for result in store.load(runs)}
    report(chosen, suggested, grid, trained, results)
    report_recorded(chosen, grid, recorded, results)


def round_off(lr: float) -> float:
    """To two digits, as somebody would type it."""
    return float(f"{lr:.2g}")


def report(
    chosen: list[Case],
    suggested: dict[tuple[str, Case], list[float]],
    grid: dict[Case, list[list[Run]]],
    trained: dict[tuple[Case, float], list[Run]],
    results: dict[Run, Result],
) -> None:
    best = {case: min(loss([results[run] for run in runs]) for runs in grid[case]) for case in chosen}
    tuned = {case: loss([results[run] for run in grid[case][GRID.index(1.0)]]) for case in chosen}
    worst = {case: max(loss([results[run] for run in runs]) for runs in grid[case]) for case in chosen}

    def regret(case: Case, lr: float) -> float:
        if not math.isfinite(lr):
            return math.nan
        return loss([results[run] for run in trained[case, lr]]) / best[case]

    regrets = {key: [regret(key[1], lr) for lr in lrs] for key, lrs in suggested.items()}
    print(f"\n{len(chosen)} cases, {len(STARTS)} starts each")
    print("| | median | nine in ten below | within 5 % | within 25 % | none made |")
    print("|---|---|---|---|---|---|")
    row("the tuned one", [tuned[case] / best[case] for case in chosen])
    for method in METHODS:
        row(method, [one for case in chosen for one in regrets[method, case]])
    print("\n| | tuned | " + " | ".join(f"{method}: × tuned, regret" for method in METHODS) + " |")
    print("|---|---|" + "---|" * len(METHODS))
    for case in chosen:
        name, optimizer = case
        good = PROBLEMS[name].lrs[optimizer]
        cells = []
        for method in METHODS:
            lrs = [lr / good for lr in suggested[method, case] if math.isfinite(lr)]
            its = [one for one in regrets[method, case] if math.isfinite(one)]
            cells.append(f"{statistics.median(lrs):.2g}, {statistics.median(its):.2f}" if lrs else "none")
        print(f"| {name}, {optimizer} | {tuned[case] / best[case]:.2f} | {' | '.join(cells)} |")
    flat = [case for case in chosen if worst[case] < 1.05 * best[case]]
    print(f"\nwithin 5 % at every learning rate of the grid: {len(flat)} cases {flat}")


def report_recorded(
    chosen: list[Case],
    grid: dict[Case, list[list[Run]]],
    recorded: dict[tuple[Case, float], Run],
    results: dict[Run, Result],
) -> None:
    """Cosine at twice the mean learning rate of a run under GreedyLR; its loss is read between those of the grid."""
    print(
        "\n| initial learning rate of the run | | median | nine in ten below | within 5 % | within 25 % | none made |"
    )
    print("|---|---|---|---|---|---|---|")
    for multiple in RECORDED:
        given, taken = [], []
        for case in chosen:
            ends = [math.log(loss([results[run] for run in runs])) for runs in grid[case]]
            lrs = results[recorded[case, multiple]].lrs[:-1]
            peak = 2 * statistics.fmean(lrs) / PROBLEMS[case[0]].lrs[case[1]]
            for its, rate in ((given, multiple), (taken, peak)):
                its.append(math.exp(np.interp(math.log(rate), np.log(GRID), ends) - min(ends)))
        row(f"{multiple:g} × | cosine there", given)
        row(f"{multiple:g} × | cosine at the suggestion", taken)


def row(name: str, regrets: list[float]) -> None:
    made = sorted(one for one in regrets if math.isfinite(one))
    share = [sum(one <= limit for one in made) / len(regrets) for limit in (1.05, 1.25)]
    print(
        f"| {name} | {statistics.median(made):.3f} | {made[math.ceil(0.9 * len(made)) - 1]:.2f} | "
        f"{share[0]:.0%} | {share[1]:.0%} | {len(regrets) - len(made)} of {len(regrets)} |"
    )


if __name__ == "__main__":
    main()
