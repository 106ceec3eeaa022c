"""What recording costs: time of a step with and without, and a million steps in bytes and seconds.

The last result, 2026-11-30, on one of the two cores of a shared machine (Python 3.11, torch 2.13; of each quarter of a
thousand steps, and of the writing, the best of 150 repetitions, in µs a step; unwatched, and what is added by
recording, by two columns of composition as well, by a metric at every step too): default 0.36 + 1.09, 1.37, 1.76;
climbing 3.01 + 1.18, 1.53, 1.95; annealing 1.70 + 1.28, 1.61, 1.97; paper 0.65 + 1.51, 1.79, 2.17; core 2.15 + 1.39,
1.69, 2.06. 1 was aimed at, and 2 with columns and metric. An observer that does nothing adds 0.9 while the default
listens: the decision, with learning rates compared before it. Before a step was kept as it was told: default 0.45 +
1.96, 2.68, 3.37; annealing 2.72 + 3.37, 4.12, 4.81. A million steps with composition and metric: 28.3 MB (24.4 in the
larger blocks of before, which had no bound), read in 0.9 s, judged in 2.8 s (moves together not, at that length), page
2.1 MB; greedylr watch: first look 1.3 s, then 48 ms each.
"""

import random
import statistics
import tempfile
import time
from pathlib import Path

import torch

from greedylr import DefaultConfig, GreedyLR
from greedylr.cli.pulse import live
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.reading import Watched, read
from greedylr.pulse.report import render

STEPS, PART, REPETITIONS, MILLION = 2000, 250, 150, 1_000_000
RULES = {
    "default": lambda optimizer: GreedyLR(optimizer, warmup_steps=0),
    "default, climbing": lambda optimizer: GreedyLR(optimizer, decade_steps=10**9),
    "default, annealing": lambda optimizer: GreedyLR(optimizer, total_steps=10**9, anneal=1.0),
    "paper": GreedyLR.paper,
    "core": GreedyLR.core,
}
LOSSES = [1.0 + random.Random(0).gauss(0, 0.1) for _ in range(STEPS)]


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)


def cost(watched, recorder=None, batch=False, log=False):
    best = [float("inf")] * (STEPS // PART + 1)
    for _ in range(REPETITIONS):
        times = [time.perf_counter()]
        for first in range(0, STEPS, PART):
            for loss in LOSSES[first : first + PART]:
                if batch:
                    watched.step(loss, composition={"domain": "web", "length": 512})
                else:
                    watched.step(loss)
                if log:
                    recorder.log(grad_norm=loss)
            times.append(time.perf_counter())
        if recorder is not None:
            recorder.flush()
        times.append(time.perf_counter())
        best = [min(one, end - begin) for one, begin, end in zip(best, times, times[1:])]
    return sum(best) / STEPS * 1e6


def main():
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    print("µs a step: alone; what recording adds; with two columns of composition; with a metric as well")
    for name, make in RULES.items():
        alone = cost(make(optimizer()))
        added = []
        for how in ({}, {"batch": True}, {"batch": True, "log": True}):
            watched = make(optimizer())
            with Recorder(folder / f"{name} {len(added)}", watched) as recorder:
                added.append(cost(watched, recorder, **how) - alone)
        print(f"{name}: {alone:.2f}", *(f"{one:.2f}" for one in added), sep="; ")

    random_ = random.Random(0)
    watched = GreedyLR(optimizer(), total_steps=MILLION, warmup_steps=0, anneal=0.1, config=DefaultConfig(window=20))
    with Recorder(folder / "million", watched) as recorder:
        for step in range(MILLION):
            loss = 2 + 3 * (1 - step / MILLION) ** 2 + random_.gauss(0, 0.3)
            watched.step(loss, composition={"domain": "abcd"[step * 7 % 4], "length": step % 512})
            recorder.log(grad_norm=loss)
    print(f"a million steps: {(folder / 'million' / 'trace.jsonl').stat().st_size / 1e6:.1f} MB", end=", ")
    begin = time.perf_counter()
    Trace.load(folder / "million")
    loaded = time.perf_counter()
    readings = read([folder / "million"])
    print(f"read in {loaded - begin:.1f} s, judged in {time.perf_counter() - loaded:.1f} s", end=", ")
    print(f"page {len(render(readings)) / 1e6:.1f} MB")
    with Recorder(folder / "million", watched) as recorder:  # It goes on, and is watched.
        run = Watched(folder / "million")
        spent = []
        for _ in range(20):
            watched.step(2.0, composition={"domain": "a", "length": 1})
            recorder.flush()
            begin = time.perf_counter()
            live(run.look(), 120)
            spent.append(time.perf_counter() - begin)
    print(f"greedylr watch: first look {spent[0]:.1f} s, then {1e3 * statistics.median(spent[1:]):.0f} ms each")


if __name__ == "__main__":
    main()
