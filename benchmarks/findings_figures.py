"""The figures in docs/findings.md: for each finding a made-up run that has it, as SVG.

python benchmarks/findings_figures.py docs/findings
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from greedylr import DefaultConfig, GreedyLR
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.findings import Finding, Kind
from greedylr.pulse.diagnosis.health import examine
from greedylr.pulse.recording import recorder as recording

STEPS = 1200
WIDTH, LEFT, RIGHT, TOP, HEIGHT, GAP = 640, 56, 10, 22, 104, 30

Change = Callable[[np.ndarray], None]


def optimizer(lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def falling(noise: float = 0.08, steps: int = STEPS) -> np.ndarray:
    course = 0.6 + 2.4 * np.exp(-np.arange(steps) / 500)
    return course + noise * np.random.default_rng(1).standard_normal(steps)


def changed(change: Change) -> np.ndarray:
    losses = falling()
    change(losses)
    return losses


def level(noise: float, steps: int) -> np.ndarray:
    return 0.98 + noise * np.random.default_rng(3).standard_normal(steps)


def listening(optimizer: torch.optim.Optimizer) -> GreedyLR:
    return GreedyLR(optimizer, warmup_steps=0, config=DefaultConfig(window=20))


def recorded(
    losses: np.ndarray,
    make: Callable[[torch.optim.Optimizer], GreedyLR] | None = None,
    each: Callable[[int, Recorder, GreedyLR], None] = lambda step, kept, scheduler: None,
) -> Trace:
    scheduler = (make or listening)(optimizer())
    with tempfile.TemporaryDirectory() as folder, Recorder(folder, scheduler) as kept:
        for step, loss in enumerate(losses.tolist(), start=1):
            each(step, kept, scheduler)
            scheduler.step(loss)
        kept.close()
        return Trace.load(folder)


def break_off(losses: np.ndarray) -> Trace:
    def each(step: int, kept: Recorder, scheduler: GreedyLR) -> None:
        if step == len(losses):
            kept.fail(RuntimeError("CUDA error: out of memory"))

    return recorded(losses, each=each)


def validated() -> Trace:
    def each(step: int, kept: Recorder, scheduler: GreedyLR) -> None:
        if step % 60 == 0:
            kept.log(val_loss=3.0 - 0.0028 * step if step < 600 else 1.3 + 0.0012 * (step - 600))

    return recorded(falling(), each=each)


def by_another_hand() -> Trace:
    def each(step: int, kept: Recorder, scheduler: GreedyLR) -> None:
        if step in (500, 800):
            scheduler.optimizer.param_groups[0]["lr"] = 0.02

    return recorded(falling(), each=each)


def scaled(losses: np.ndarray) -> None:
    losses[600:] *= 8


def shifted(losses: np.ndarray) -> None:
    losses[600:] += 1.2


def broken(losses: np.ndarray) -> None:
    losses[600:] = 2.6 + 0.5 * np.random.default_rng(2).standard_normal(len(losses) - 600)


def disrupted(losses: np.ndarray) -> None:
    losses[600:612] += 6 * np.exp(-np.arange(12) / 6)


def not_finite(losses: np.ndarray) -> None:
    losses[[500, 520]] = np.nan


def rising(losses: np.ndarray) -> None:
    losses[600:] += np.linspace(0, 4, len(losses) - 600)


def in_turns() -> np.ndarray:
    losses = falling(0.02)
    return losses + 0.25 * (np.arange(len(losses)) // 20 % 2)


RUNS: dict[Kind, Callable[[], Trace]] = {
    Kind.FAILED: lambda: break_off(falling(steps=700)),
    Kind.NON_FINITE: lambda: recorded(changed(not_finite)),
    Kind.DIVERGENCE: lambda: recorded(changed(rising)),
    Kind.OVERFITTING: validated,
    Kind.LR_IGNORED: by_another_hand,
    Kind.LOSS_SCALE: lambda: recorded(changed(scaled)),
    Kind.NO_RECOVERY: lambda: recorded(changed(broken)),
    Kind.LEVEL_SHIFT: lambda: recorded(changed(shifted)),
    Kind.DISRUPTION: lambda: recorded(changed(disrupted)),
    Kind.SINKING: lambda: recorded(falling(0.3), lambda it: GreedyLR.paper(it, min_lr=1e-4, patience=3, factor=0.8)),
    Kind.AT_BOUND: lambda: recorded(falling(0.02), lambda it: GreedyLR(it, max_scale=1.3, warmup_steps=0)),
    Kind.OSCILLATING: lambda: recorded(in_turns()),
    Kind.PLATEAU: lambda: recorded(np.concatenate([falling(0.03, 900), level(0.03, 1500)])),
}


def lines(xs: np.ndarray, ys: np.ndarray, top: float, low: float, high: float, last: int, style: str) -> str:
    """The series as lines, with a gap where it is not finite."""
    parts, pen = [], "M"
    for x, y in zip(xs.tolist(), ys.tolist()):
        if not np.isfinite(y):
            pen = "M"
            continue
        share = (min(max(y, low), high) - low) / (high - low)
        parts.append(f"{pen}{LEFT + x / last * (WIDTH - LEFT - RIGHT):.1f} {top + (1 - share) * HEIGHT:.1f}")
        pen = "L"
    return f'<path d="{"".join(parts)}" fill="none" {style}/>'


def figure(trace: Trace, finding: Finding) -> str:
    last, losses = trace.last, trace.losses
    finite = losses[np.isfinite(losses)]
    low, high = float(finite.min()), float(finite.max())
    lrs = np.log10(trace.lrs[:, 0])
    bottom, ceiling = float(lrs.min()) - 0.1, float(lrs.max()) + 0.1
    lower = TOP + HEIGHT + GAP
    width = (WIDTH - LEFT - RIGHT) / last
    begin, end = LEFT + finding.first * width, LEFT + max(finding.last, finding.first + 8) * width
    end = min(end, WIDTH - RIGHT)
    thinned = slice(None, None, max(1, last // 600))
    shaded = f'x="{begin:.1f}" y="{TOP}" width="{end - begin:.1f}" height="{lower + HEIGHT - TOP}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {lower + HEIGHT + 22}"',
        f'role="img" aria-label="{finding.kind.value}" font-family="sans-serif" font-size="12" fill="#888">',
        f'<rect {shaded} fill="#e0560b" opacity="0.16"/>',
        f'<text x="{LEFT}" y="{TOP - 8}">loss{", and validation loss" if trace.validation else ""}</text>',
        f'<text x="{LEFT}" y="{lower - 8}">learning rate</text>',
    ]
    for top, ends in ((TOP, (high, low)), (lower, (10**ceiling, 10**bottom))):
        for place, value in zip((top, top + HEIGHT), ends):
            parts.append(f'<path d="M{LEFT} {place}H{WIDTH - RIGHT}" stroke="#8884"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{place + 4}" text-anchor="end">{value:.2g}</text>')
    steps = trace.steps[thinned].astype(float)
    if (finding.kind is Kind.NON_FINITE) or len(finite) < len(losses):  # A single step must not fall out.
        steps, losses = trace.steps.astype(float), trace.losses
    else:
        losses = losses[thinned]
    parts.append(lines(steps, losses, TOP, low, high, last, 'stroke="#2b8be0" stroke-width="1"'))
    if trace.validation:
        metric = trace.metrics[trace.validation]
        style = 'stroke="#009e73" stroke-width="2"'
        parts.append(lines(metric.steps.astype(float), metric.values, TOP, low, high, last, style))
    style = 'stroke="#e0560b" stroke-width="1.6"'
    parts.append(lines(trace.steps[thinned].astype(float), lrs[thinned], lower, bottom, ceiling, last, style))
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{lower + HEIGHT + 16}" text-anchor="end">step {last}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    recording.WRITE_EVERY = 0.0  # So that what somebody else sets is seen at once.
    folder = Path(sys.argv[1])
    for kind, run in RUNS.items():
        trace = run()
        found = [one for one in examine(trace) if one.kind is kind]
        if not found:
            raise RuntimeError(f"{kind.name} is not found, but {[one.kind.name for one in examine(trace)]}")
        name = kind.name.lower().replace("_", "-")
        (folder / f"{name}.svg").write_text(figure(trace, found[0]))
        others = sorted({one.kind.name for one in examine(trace)} - {kind.name})
        print(f"{name}: {found[0].first} to {found[0].last}, {found[0].numbers}; also {others}")


if __name__ == "__main__":
    main()
