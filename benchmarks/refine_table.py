"""The table of refined schedules in docs/probe.md: does a schedule made from one run beat that run, and tuned cosine?

python benchmarks/refine_table.py refine.json development
python benchmarks/refine_table.py refine.json confirmation

One run under GreedyLR at the good learning rate is recorded, with a norm of every gradient. Of it are made: its own
learning rates, smoothed; the schedule of arXiv:2310.07831 from its gradient norms; and a line after a short warmup. All
have the mean learning rate of the recorded run. Each is run with two other seeds, beside GreedyLR and cosine with the
same two. What is finished is kept in the file, and is not run again.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from probe_table import Case, cases
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.schedulers.scheduler import Horizon, Scheduler
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.setup import batches, data_of, drawing, initial_model
from greedylr.lab.runs import Run
from greedylr.torch.gradient import norm_order

SOURCE, SEEDS = 400, (200, 201)
MARGIN = 0.01  # of the decrease, as in docs/statistics.md


def recorded(case: Case) -> tuple[list[float], list[float]]:
    """Multiples of the learning rate, and the norm of the gradient, of each step of the run."""
    name, optimizer_name = case
    problem = PROBLEMS[name]
    run = Run(name, 1.0, "greedylr", SOURCE, problem.steps, optimizer_name)
    data, model = data_of(name, torch.float32), initial_model(run, torch.float32)
    lr = problem.lrs[optimizer_name]
    optimizer = OPTIMIZERS[optimizer_name].build(list(model.parameters()), lr, fused=True)
    order = norm_order(optimizer)
    scheduler = SCHEDULERS["greedylr"].build(optimizer, run.steps)
    drawn = batches(run, data)
    multiples, slopes = [], []
    with drawing(run):
        for _ in range(run.steps):
            multiples.append(optimizer.param_groups[0]["lr"] / lr)
            loss = problem.loss(model, data.train.batch(next(drawn)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            slopes.append(norm(model, order))
            scheduler.step(loss.item())  # type: ignore[arg-type]
    return multiples, slopes


def norm(model: torch.nn.Module, order: int | None) -> float:
    """Norm of the gradient: the sum of its squares for SGD, of its absolutes for Adam's family."""
    gradients = [one.grad for one in model.parameters() if one.grad is not None]
    each = [one.square().sum() if order == 2 else one.abs().sum() for one in gradients]
    return float(torch.stack(each).sum())


def own(multiples: Sequence[float], slopes: Sequence[float]) -> np.ndarray:
    """The learning rates themselves, their mean over a fiftieth of the run around each step."""
    half = max(1, len(multiples) // 100)
    padded = np.pad(np.asarray(multiples), half, mode="edge")
    return np.convolve(padded, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")


def refined(multiples: Sequence[float], slopes: Sequence[float]) -> np.ndarray:
    """The schedule of arXiv:2310.07831: w_t times the sum of the later ones, with w = 1 / ‖g‖² (Adam: 1 / ‖g‖₁).

    The norms are replaced by their median over a tenth of the run around each step.
    """
    norms = np.asarray(slopes)
    half = max(1, len(norms) // 20)
    padded = np.pad(norms, half, mode="reflect")
    median = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
    weights = 1 / np.maximum(median, 1e-12 * median.max())
    later = weights.sum() - np.cumsum(weights)
    return weights * later


def line(multiples: Sequence[float], slopes: Sequence[float]) -> np.ndarray:
    steps = len(multiples)
    warmup = max(1, steps // 20)
    step = np.arange(steps)
    return np.minimum((step + 1) / warmup, (steps - step) / (steps - warmup))


MADE: dict[str, Callable[[Sequence[float], Sequence[float]], np.ndarray]] = {
    "its own learning rates": own,
    "from its gradient norms": refined,
    "a line": line,
}


def entry(curve: np.ndarray) -> Scheduler:
    def make(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: float(curve[min(step, len(curve) - 1)]))

    return Scheduler("made", "made", "from a recorded run", make)


def final(run: Run, scheduler: Scheduler | None = None) -> tuple[float, float]:
    """The loss at the end, at most that of the start, and the start."""
    result = train(run, scheduler=scheduler)
    end = result.final_loss if result.failure is None else math.inf
    return (min(end, result.start_loss) if math.isfinite(end) else result.start_loss), result.start_loss


def complete(case: Case, found: dict[str, list[tuple[float, float]]]) -> None:
    """Add what is not there yet of a case: the end and the start of each run, by its schedule."""
    name, optimizer = case
    run = Run(name, 1.0, "cosine", 0, PROBLEMS[name].steps, optimizer)
    for scheduler in ("greedylr", "cosine", "linear"):
        if scheduler not in found:
            found[scheduler] = [final(run._replace(scheduler=scheduler, seed=seed)) for seed in SEEDS]
    lacking = {title: make for title, make in MADE.items() if title not in found}
    multiples, slopes = recorded(case) if lacking else ([], [])
    for title, make in lacking.items():
        curve = make(multiples, slopes)
        curve = curve * (np.mean(multiples) / np.mean(curve))
        if not np.isfinite(curve).all():
            raise ArithmeticError(f"{name}, {optimizer}: the schedule {title} is not finite")
        found[title] = [final(run._replace(seed=seed), entry(curve)) for seed in SEEDS]


def verdict(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> int:
    """1 if clearly better, -1 if clearly worse, by a hundredth of the decrease; 0 if as good."""
    mine, other = (statistics.fmean(end for end, _ in its) for its in (ours, theirs))
    start = statistics.fmean(start for _, start in theirs)
    margin = MARGIN * max(start - min(mine, other), 0)
    return (mine < other - margin) - (mine > other + margin)


def report(results: dict[str, dict[str, list[tuple[float, float]]]], chosen: list[Case]) -> None:
    keys = [" ".join(case) for case in chosen if " ".join(case) in results]
    print(f"{len(keys)} of {len(chosen)} cases, {len(SEEDS)} seeds")
    print("| schedule | loss over cosine's, median | against GreedyLR: better, as good, worse | against cosine |")
    print("|---|---|---|---|")
    for name in (*MADE, "greedylr", "linear"):
        ratios = [
            statistics.fmean(end for end, _ in results[key][name])
            / statistics.fmean(end for end, _ in results[key]["cosine"])
            for key in keys
        ]
        cells = []
        for rival in ("greedylr", "cosine"):
            verdicts = [verdict(results[key][name], results[key][rival]) for key in keys]
            cells.append(" / ".join(str(verdicts.count(one)) for one in (1, 0, -1)) if rival != name else "")
        print(f"| {name} | {statistics.median(ratios):.3f} | {cells[0]} | {cells[1]} |")


def main() -> None:
    file, chosen = Path(sys.argv[1]), cases(sys.argv[2])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = json.loads(file.read_text()) if file.exists() else {}
    for case in chosen:
        complete(case, results.setdefault(" ".join(case), {}))
        file.write_text(json.dumps(results))
    report(results, chosen)


if __name__ == "__main__":
    main()
