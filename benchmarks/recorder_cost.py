"""What recording costs: time of a step with and without, and a million steps in bytes and seconds.

The last result, on one core of a shared machine (Python 3.11, torch 2.13; best of 200 repetitions, in µs a step):
alone 0.19; recorded 1.49; with two columns of composition 1.86; with a metric at every step as well 2.29. A million
steps with all of these: 33.0 MB, read in 0.5 s, audit, health and composition 1.1 s, page 5.4 MB.
"""

import random
import tempfile
import time
from pathlib import Path

import torch

from greedylr import GreedyLR
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.page import render
from greedylr.pulse.reading import read

STEPS, REPETITIONS, MILLION = 2000, 200, 1_000_000
LOSSES = [1.0 + random.Random(0).gauss(0, 0.1) for _ in range(STEPS)]


def scheduler(**settings):
    return GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), **settings)


def cost(watched, recorder=None, batch=False, log=False):
    best = float("inf")
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        for loss in LOSSES:
            if batch:
                watched.step(loss, batch={"domain": "web", "length": 512})
            else:
                watched.step(loss)
            if log:
                recorder.log(grad_norm=loss)
        if recorder is not None:
            recorder.flush()
        best = min(best, (time.perf_counter() - begin) / STEPS * 1e6)
    return best


def main():
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    print(f"alone {cost(scheduler()):.2f} µs")
    for name, how in {
        "recorded": {},
        "with composition": {"batch": True},
        "with a metric": {"batch": True, "log": True},
    }.items():
        watched = scheduler()
        with Recorder(folder / name, watched) as recorder:
            print(f"{name} {cost(watched, recorder, **how):.2f} µs")

    random_ = random.Random(0)
    watched = scheduler(total_steps=MILLION, decade_steps=0, window=20)
    with Recorder(folder / "million", watched) as recorder:
        for step in range(MILLION):
            loss = 2 + 3 * (1 - step / MILLION) ** 2 + random_.gauss(0, 0.3)
            watched.step(loss, batch={"domain": "abcd"[step * 7 % 4], "length": step % 512})
            recorder.log(grad_norm=loss)
    print(f"a million steps: {(folder / 'million' / 'trace.jsonl').stat().st_size / 1e6:.1f} MB", end=", ")
    begin = time.perf_counter()
    Trace.load(folder / "million")
    loaded = time.perf_counter()
    readings = read([folder / "million"])
    print(f"read in {loaded - begin:.1f} s, judged in {time.perf_counter() - loaded:.1f} s", end=", ")
    print(f"page {len(render(readings)) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
