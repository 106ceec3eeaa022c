"""The cost of hearing the gradient, as a share of the optimizer's step and of a whole training step, in the same run.

    python benchmarks/slope_cost.py           # about a minute

Perceptrons of four sizes on batches of 64, on one core; each contender in turns, the best of the turns counts. The
last result is in slope_cost.md.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable

import torch

from greedylr import DefaultConfig, GreedyLR

TURNS, SIZES = 5, {"4 × 16": (4, 16), "6 × 256": (6, 256), "8 × 1024": (8, 1024), "40 × 256": (40, 256)}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}


def best(step: Callable[[], object], steps: int) -> float:
    """Milliseconds of a step."""
    for _ in range(3):
        step()
    found = math.inf
    for _ in range(TURNS):
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        found = min(found, (time.perf_counter() - begin) / steps)
    return 1e3 * found


def measure(name: str, layers: int, width: int) -> str:
    model = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(layers)])
    batch = torch.randn(64, width)
    steps = max(3, min(200, 20_000_000 // (layers * width * width * 30)))

    def backward() -> None:
        model.zero_grad()
        model(batch).square().mean().backward()

    def stepper(hears: bool) -> Callable[[], object]:
        optimizer = OPTIMIZERS[name](model.parameters(), lr=1e-6)
        # The same but for the gradient.
        config = DefaultConfig() if hears else DefaultConfig(polyak=math.inf, catch_up_steps=0)
        scheduler = GreedyLR(optimizer, config=config)

        def step() -> None:
            optimizer.step()
            scheduler.step(1.0)

        return step

    backward()
    passes, deaf, hearing = best(backward, steps), best(stepper(False), steps), best(stepper(True), steps)
    added = hearing - deaf
    count = sum(weight.numel() for weight in model.parameters())
    shares = f"{added / deaf:.0%} | {added / (passes + deaf):.1%}"
    return f"| {name} | {count:,} in {2 * layers} | {passes:.3f} | {deaf:.3f} | {added:.3f} | {shares} |"


def main() -> None:
    torch.set_num_threads(1)
    print(f"Python {platform.python_version()}, torch {torch.__version__}\n")
    columns = "passes, ms", "optimizer and scheduler, ms", "hearing adds, ms", "of those", "of a step"
    print(f"| optimizer | weights, in tensors | {' | '.join(columns)} |")
    print("|---|---|---|---|---|---|---|")
    for name in OPTIMIZERS:
        for layers, width in SIZES.values():
            print(measure(name, layers, width))


if __name__ == "__main__":
    main()
