"""What one ``scheduler.step(loss)`` costs, as ratios to its peers in the same run.

    python benchmarks/step_cost.py            # about two minutes; on a CUDA device a part more

Every contender sees the same losses, given as Python floats, for the same number of steps, in turns; of each part of
the steps, a millisecond or less, the best turn counts, so that a machine that is busy with other things hardly shows.
The losses fall from 4 to 1.25 with noise 0.3: the rules hold, raise and cut as they would in training. The cost of the
loop around the call is taken off. The floors are the same schedulers with another rule, which decides nothing. The last
result is in step_cost.md.
"""

from __future__ import annotations

import gc
import platform
import random
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from transformers.optimization import GreedyLR as PeerGreedyLR

from greedylr import Action, GreedyLR

TURNS = 15
GATHERING, ANNEALING = Action.GATHERING, Action.ANNEALING
Step = Callable[[float], object]


def optimizer(groups: int) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)], lr=0.1)


def contenders(groups: int, steps: int) -> dict[str, Callable[[], Step]]:
    def cosine() -> Step:
        chosen = optimizer(groups)
        chosen.step()
        scheduler = CosineAnnealingLR(chosen, T_max=steps)
        return lambda loss: scheduler.step()

    return {
        "[HF] GreedyLR": lambda: PeerGreedyLR(optimizer(groups)).step,
        "[HF] GreedyLR, smoothing": lambda: PeerGreedyLR(optimizer(groups), smooth=True).step,
        "ReduceLROnPlateau": lambda: ReduceLROnPlateau(optimizer(groups)).step,
        "CosineAnnealingLR": cosine,
        "GreedyLR": lambda: GreedyLR(optimizer(groups)).step,
        "GreedyLR, total_steps": lambda: GreedyLR(optimizer(groups), total_steps=steps).step,
        "GreedyLR.paper": lambda: GreedyLR.paper(optimizer(groups)).step,
        "GreedyLR.paper, smoothing": lambda: GreedyLR.paper(optimizer(groups), smooth=True).step,
        "floor: an empty rule": lambda: floor(GreedyLR(optimizer(groups)), empty),
        "floor: one append, one comparison": lambda: floor(GreedyLR(optimizer(groups)), append),
        "floor: another learning rate": lambda: floor(GreedyLR(optimizer(groups)), write),
        "floor of paper: an empty rule": lambda: floor(GreedyLR.paper(optimizer(groups)), empty),
    }


def floor(scheduler: GreedyLR, rule: Callable[..., Action]) -> Step:
    scheduler.step(4.0)  # The first step finds out whether there are other ranks.
    scheduler._advance = rule
    return scheduler.step


def empty(config: Any, state: Any, loss: float, slope: float) -> Action:
    return GATHERING


def append(config: Any, state: Any, loss: float, slope: float) -> Action:
    losses = state.losses
    losses.append(loss)
    if len(losses) < 50:
        return GATHERING
    losses.clear()
    return GATHERING


def write(config: Any, state: Any, loss: float, slope: float) -> Action:
    state.lrs = (loss,) * len(state.lrs)
    return ANNEALING


def losses(steps: int) -> list[float]:
    r = random.Random(0)
    return [4.0 - 2.75 * step / steps + r.gauss(0.0, 0.3) for step in range(steps)]


def seconds(step: Step, given: list[float], at_once: int) -> list[float]:
    """Of each part of so many steps."""
    spent = []
    gc.disable()
    for first in range(0, len(given), at_once):
        part = given[first : first + at_once]
        start = time.perf_counter()
        for loss in part:
            step(loss)
        spent.append(time.perf_counter() - start)
    gc.enable()
    return spent


def table(groups: int, steps: int) -> None:
    given, makers = losses(steps), {"loop": lambda: lambda loss: None, **contenders(groups, steps)}
    spent: dict[str, list[float]] = {}
    for _ in range(TURNS):
        for name, make in makers.items():
            turn = seconds(make(), given, max(500 // groups, 1))
            spent[name] = list(map(min, spent.get(name, turn), turn))
    loop, *costs = (1e6 * sum(parts) / steps for parts in spent.values())
    best = {name: cost - loop for name, cost in zip(contenders(groups, steps), costs)}
    peer, smoothing = best["[HF] GreedyLR"], best["[HF] GreedyLR, smoothing"]
    print(f"\n{groups} parameter group{'s' if groups > 1 else ''}, {steps:,} steps\n")
    print("| scheduler | µs a step | × [HF] plain | × [HF] smoothing | × ReduceLROnPlateau |\n|---|---|---|---|---|")
    for name, cost in best.items():
        ratios = (cost / peer, cost / smoothing, cost / best["ReduceLROnPlateau"])
        print(f"| {name} | {cost:.3f} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


def memory(steps: int = 1_000_000) -> None:
    print(f"\nMemory over {steps:,} steps (bytes held by the scheduler's code after a tenth of them, and after all)\n")
    print("| scheduler | after a tenth | after all |\n|---|---|---|")
    given = losses(steps)
    for name, make in contenders(1, steps).items():
        if "GreedyLR" not in name or "[HF]" in name:
            continue
        step = make()
        for loss in given[:1000]:
            step(loss)
        tracemalloc.start()
        for loss in given[: steps // 10]:
            step(loss)
        tenth, _ = tracemalloc.get_traced_memory()
        for loss in given[steps // 10 :]:
            step(loss)
        whole, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"| {name} | {tenth:,} | {whole:,} |")


def device(steps: int = 2000) -> None:
    """A model on a CUDA device: what each way to schedule adds to a training step, and whether it synchronises."""
    print(
        f"\n{torch.cuda.get_device_name()}: a training step of a small MLP (SGD), {steps:,} steps, loss on the device\n"
    )
    print("| scheduler | µs a training step | × no scheduler | no synchronisation |\n|---|---|---|---|")
    ways: dict[str, Callable[[torch.optim.Optimizer], Step]] = {
        "none": lambda o: lambda loss: None,
        "[HF] GreedyLR": lambda o: PeerGreedyLR(o).step,
        "ReduceLROnPlateau": lambda o: ReduceLROnPlateau(o).step,
        "GreedyLR": lambda o: GreedyLR(o).step,
        "GreedyLR, read='now'": lambda o: GreedyLR(o, read="now").step,
        "GreedyLR.paper": lambda o: GreedyLR.paper(o).step,
    }
    best: dict[str, float] = dict.fromkeys(ways, float("inf"))
    silent: dict[str, str] = {}
    for _ in range(3):
        for name, way in ways.items():
            best[name] = min(best[name], _train(way, steps))
    for name, way in ways.items():
        torch.cuda.set_sync_debug_mode("error")
        try:
            _train(way, 50, wait=False)
            silent[name] = "yes"
        except RuntimeError:
            silent[name] = "no"
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for name, cost in best.items():
        print(f"| {name} | {cost:.1f} | {cost / best['none']:.3f} | {silent[name]} |")


def _train(way: Callable[[torch.optim.Optimizer], Step], steps: int, wait: bool = True) -> float:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(512, 512), torch.nn.ReLU()] * 4
    model = torch.nn.Sequential(*layers, torch.nn.Linear(512, 1)).to("cuda")
    inputs, targets = torch.randn(256, 512, device="cuda"), torch.randn(256, 1, device="cuda")
    chosen = torch.optim.SGD(model.parameters(), lr=1e-3)
    step = way(chosen)
    start = 0.0
    for index in range(steps + 20):
        if index == 20:
            if wait:
                torch.cuda.synchronize()
            start = time.perf_counter()
        loss = (model(inputs) - targets).square().mean()
        loss.backward()
        chosen.step()
        chosen.zero_grad()
        step(loss.detach())
    if wait:
        torch.cuda.synchronize()
    return 1e6 * (time.perf_counter() - start) / steps


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # The paper family warns of its own default bounds, which are [HF]'s.
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}")
    for groups, steps in ((1, 100_000), (10, 50_000), (1000, 2_000)):
        table(groups, steps)
    memory()
    if torch.cuda.is_available():
        device()
