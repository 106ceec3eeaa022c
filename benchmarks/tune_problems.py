"""Find the learning rate of each problem for each optimizer, under cosine annealing with warmup.

    python benchmarks/tune_problems.py                       # every problem: about half an hour on two cores
    python benchmarks/tune_problems.py mlp vit --seeds 6 --optimizers sgd adamw

The grid is half-decades: …, 0.01, 0.03, 0.1, … From a usual value it is followed until the best has two worse on
either side (``--sides``: more where many learning rates end in the same dent). What counts is the validation loss
after the last step, the mean over seeds that no comparison uses (from 100); a run that ends above its start, or not
finite, counts with its start. Of learning rates that end within a thousandth of the start of the best, the lowest is
taken. The last result is in tune_problems.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch
from torch.optim import Optimizer

from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS

FIRST_SEED = 100
LOWEST, HIGHEST = -10, 4  # 1e-5 to 100, in half-decades.
HIGHEST_ADAFACTOR = 0  # torch takes at most 1/√step of what it is given: above 1, more is the same.
TIE = 1e-3

OPTIMIZERS: dict[str, tuple[int, Callable[..., Optimizer]]] = {
    # Where to start on the grid: 0.1, 0.003, 0.003, 0.03, 0.01.
    "sgd": (-2, lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9)),
    "adam": (-5, torch.optim.Adam),
    "adamw": (-5, torch.optim.AdamW),
    "adagrad": (-3, torch.optim.Adagrad),
    "adafactor": (-4, torch.optim.Adafactor),
}


def lr_at(place: int) -> float:
    decade, half = divmod(place, 2)
    return float(f"{3 if half else 1}e{decade}")


def final_loss(name: str, optimizer: str, lr: float, seed: int) -> tuple[float, float]:
    problem = PROBLEMS[name]
    data = problem.load()
    torch.manual_seed(seed)
    model = problem.model()
    generator = torch.Generator().manual_seed(seed)
    chosen = OPTIMIZERS[optimizer][1](model.parameters(), lr=lr)
    scheduler = SCHEDULERS["cosine"].build(chosen, problem.steps)
    start = problem.validate(model, data)
    for step in range(problem.steps):
        loss = problem.loss(model, data.train.batch(problem.sample(data, generator, step)))
        if not loss.isfinite():
            return start, start
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        scheduler.step()
    end = problem.validate(model, data)
    return (min(end, start) if math.isfinite(end) else start), start


def best(found: dict[int, float], start: float) -> int:
    lowest = min(found.values())
    return min(place for place, loss in found.items() if loss <= lowest + TIE * start)


def tune(name: str, optimizer: str, seeds: int, sides: int) -> tuple[int, dict[int, float]]:
    """The best place on the grid, and the mean final loss at each that was tried."""
    torch.set_num_threads(1)
    found: dict[int, float] = {}
    ahead = [OPTIMIZERS[optimizer][0]]
    while ahead:
        for place in ahead:
            ends, starts = zip(*(final_loss(name, optimizer, lr_at(place), FIRST_SEED + seed) for seed in range(seeds)))
            found[place], start = sum(ends) / seeds, sum(starts) / seeds
        middle = best(found, start)
        highest = HIGHEST_ADAFACTOR if optimizer == "adafactor" else HIGHEST
        around = range(max(middle - sides, LOWEST), min(middle + sides, highest) + 1)
        ahead = [place for place in around if place not in found]
    return middle, found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS))
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sides", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    pairs = [(name, optimizer) for name in asked.problems for optimizer in asked.optimizers]
    print("| problem | optimizer | seeds | best | mean final validation loss at each learning rate |")
    print("|---|---|---|---|---|")
    with ProcessPoolExecutor(asked.jobs) as pool:
        found = pool.map(partial(tune, seeds=asked.seeds, sides=asked.sides), *zip(*pairs, strict=True))
        for (name, optimizer), (middle, losses) in zip(pairs, found, strict=True):
            each = ", ".join(f"{lr_at(place):g}: {losses[place]:.4g}" for place in sorted(losses))
            print(f"| {name} | {optimizer} | {asked.seeds} | {lr_at(middle):g} | {each} |", flush=True)


if __name__ == "__main__":
    main()
