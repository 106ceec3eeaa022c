"""Runs per minute of the batched engine, and of a plain loop, on the same problems and machine in the same minutes.

    python benchmarks/lab_throughput.py                # about ten minutes on four cores
    python benchmarks/lab_throughput.py mlp digits     # these problems only

The loop is that of the published experiments: one run at a time, ``torch.optim`` as it is by default, the scheduler
itself, the loss read at every step; with one thread and with as many as there are cores, of which the faster
counts. The batched engine has one process for each core. Both train all optimizers with all schedulers that the
engine supports, without validation; the engine all runs, the loop a few of them (and with all threads a tenth of
the steps). Turns alternate and the best of each counts, because others may use the machine.

"By time used" is the processor time of the loop with one thread over that of the engine, times the number of cores:
what the ratio to that loop would be on cores that nobody else uses. The last result is in lab_throughput.md.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import NamedTuple

import joblib
import torch

from greedylr.lab.engines.batched import Job, parts, supports, train_batched, train_one
from greedylr.lab.engines.batched.feedback import schedule
from greedylr.lab.engines.batched.job import load
from greedylr.lab.optimizers import OPTIMIZERS
from greedylr.lab.problems import PROBLEMS, Data
from greedylr.lab.schedulers import SCHEDULERS

TURNS = 3
MULTIPLIERS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Seconds(NamedTuple):
    """For one step of one run."""

    elapsed: float
    busy: float  # of processor time, over all processes


class Plan(NamedTuple):
    steps: int
    seeds: int  # that the engine trains; there are some five hundred runs of each
    runs: int  # that the loop does
    aim: int


ANALYTIC, PERCEPTRON, SMALL, ANY = Plan(300, 40, 20, 300), Plan(200, 4, 10, 20), Plan(50, 1, 6, 5), Plan(50, 1, 6, 1)
PLANS = {
    "quadratic-100": ANALYTIC,
    "rosenbrock": ANALYTIC,
    "rastrigin": ANALYTIC,
    "least-squares": ANALYTIC,
    "logistic": ANALYTIC,
    "mlp": PERCEPTRON,
    "residual-mlp": PERCEPTRON,
    "digits": SMALL,
    "gru": SMALL,
    "attention": SMALL,
    "vit": SMALL,
    "lm-prose": ANY,
}


def all_jobs(name: str) -> list[Job]:
    made = [
        Job(optimizer, PROBLEMS[name].lrs[optimizer] * multiplier, scheduler, seed)
        for seed in range(PLANS[name].seeds)
        for multiplier in MULTIPLIERS
        for scheduler in SCHEDULERS
        for optimizer in OPTIMIZERS
    ]
    return [job for job in made if supports(job)]


@cache
def data_of(name: str) -> Data:
    return load(PROBLEMS[name], torch.float32)


def loop(name: str, jobs: list[Job], threads: int, steps: int) -> Seconds:
    torch.set_num_threads(threads)
    problem, data = PROBLEMS[name], data_of(name)
    start, busy = time.perf_counter(), time.process_time()
    for job in jobs:
        train_one(problem, job, steps, data=data)
    elapsed, busy = time.perf_counter() - start, time.process_time() - busy
    torch.set_num_threads(1)
    return Seconds(elapsed / len(jobs) / steps, busy / len(jobs) / steps)


def batch(name: str, jobs: list[Job]) -> float:
    """Seconds of processor time."""
    torch.set_num_threads(1)
    schedule.cache_clear()  # Every turn is as if it was the first.
    busy = time.process_time()
    train_batched(PROBLEMS[name], jobs, PLANS[name].steps, data=data_of(name))
    return time.process_time() - busy


def batched(pool: ProcessPoolExecutor, name: str, jobs: list[Job], workers: int) -> Seconds:
    schedule.cache_clear()
    steps = PLANS[name].steps
    start, busy = time.perf_counter(), time.process_time()
    planned = parts(PROBLEMS[name], jobs, steps, workers=workers, data=data_of(name))
    # The largest first, so that none is left over at the end.
    planned.sort(key=len, reverse=True)
    spent = sum(pool.map(batch, [name] * len(planned), [[jobs[row] for row in rows] for rows in planned]))
    elapsed, busy = time.perf_counter() - start, time.process_time() - busy + spent
    return Seconds(elapsed / len(jobs) / steps, busy / len(jobs) / steps)


def main(names: list[str]) -> None:
    cores = int(joblib.cpu_count())
    # Both are served by a malloc that keeps what it has, rather than hand it back to the system at every step.
    os.environ.update(MALLOC_TRIM_THRESHOLD_=str(2**31), MALLOC_TOP_PAD_=str(2**26))
    print(f"{cores} cores, Python {platform.python_version()}, torch {torch.__version__}\n")
    contenders = f"loop, 1 thread | loop, {cores} threads | batched"
    print(f"| problem | {contenders} | loop | batched | × the loop | by time used | aim |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("| | µs a run-step | µs a run-step | µs a run-step | runs a minute | runs a minute | | | |", flush=True)
    torch.set_num_threads(1)
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        for name in names:
            jobs, steps = all_jobs(name), PLANS[name].steps
            sample = jobs[7 :: len(jobs) // PLANS[name].runs]
            list(pool.map(data_of, [name] * 4 * cores))
            one, many, ours = [], [], []
            for _ in range(TURNS):
                one.append(pool.submit(loop, name, sample, 1, steps).result())
                # Shorter, for on a machine that others use too, threads that wait for each other take minutes.
                many.append(pool.submit(loop, name, sample[:1], cores, max(10, steps // 10)).result())
                ours.append(batched(pool, name, jobs, cores))
            elapsed = [min(turn.elapsed for turn in turns) for turns in (one, many, ours)]
            per_step = " | ".join(f"{1e6 * value:,.3g}" for value in elapsed)
            fastest = min(elapsed[:2])
            per_minute = " | ".join(f"{60 / value / steps:,.0f}" for value in (fastest, elapsed[2]))
            by_time_used = cores * min(turn.busy for turn in one) / min(turn.busy for turn in ours)
            ratios = f"{fastest / elapsed[2]:,.1f} | {by_time_used:,.1f}"
            print(f"| {name} | {per_step} | {per_minute} | {ratios} | {PLANS[name].aim} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(PLANS))
