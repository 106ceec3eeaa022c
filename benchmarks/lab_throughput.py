"""Runs per minute of the batched engine, and of a plain loop, on the same problems and machine in the same minutes.

    python benchmarks/lab_throughput.py                # all of them, the last three in about 14 minutes on two cores
    python benchmarks/lab_throughput.py mlp digits     # these problems only

The loop is that of the published experiments: one run at a time, ``torch.optim`` as it is by default, the scheduler
itself, the loss read at every step; with one thread and with as many as there are cores, of which the faster
counts. The batched engine has one process for each core. Both train runs as the lab does, of full length and with their
validations, with all optimizers and all schedulers that the engine supports; the engine all runs, the loop a few of
them (with all threads one). Turns alternate and the best of each counts, because others may use the machine.

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
from typing import NamedTuple

import joblib
import torch

from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.execution.engines.batched import parts, supports, train_batched
from greedylr.lab.execution.engines.batched.schedules import schedule
from greedylr.lab.execution.engines.processes import ENVIRONMENT
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.setup import data_of
from greedylr.lab.runs import Run

TURNS = 2


class Seconds(NamedTuple):
    """For one step of one run."""

    elapsed: float
    busy: float  # of processor time, over all processes


class Plan(NamedTuple):
    seeds: int  # that the engine trains; with each there are some hundred runs at a learning rate
    runs: int  # that the loop does
    aim: int
    multipliers: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


ANALYTIC, PERCEPTRON, SMALL = Plan(24, 20, 300), Plan(2, 10, 20), Plan(1, 5, 5)
# Three or four runs fill a stack of these, so that one learning rate fills as many as a benchmark needs.
ATTENTION, ANY = Plan(1, 5, 5, (1.0,)), Plan(1, 3, 1, (1.0,))
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
    "attention": ATTENTION,
    "vit": ATTENTION,
    "lm-prose": ANY,
}


def all_runs(name: str) -> list[Run]:
    made = [
        Run(name, multiplier, scheduler, seed, PROBLEMS[name].steps, optimizer)
        for seed in range(PLANS[name].seeds)
        for multiplier in PLANS[name].multipliers
        for scheduler in SCHEDULERS
        for optimizer in OPTIMIZERS
    ]
    return [run for run in made if supports(run)]


def read(name: str) -> None:
    data_of(name, torch.float32)


def loop(runs: list[Run], threads: int) -> Seconds:
    torch.set_num_threads(threads)
    steps = sum(run.steps for run in runs)
    start, busy = time.perf_counter(), time.process_time()
    for run in runs:
        train(run, fused=False)
    elapsed, busy = time.perf_counter() - start, time.process_time() - busy
    torch.set_num_threads(1)
    return Seconds(elapsed / steps, busy / steps)


def batch(runs: list[Run]) -> float:
    """Seconds of processor time."""
    torch.set_num_threads(1)
    schedule.cache_clear()  # Every turn is as if it was the first.
    busy = time.process_time()
    train_batched(runs)
    return time.process_time() - busy


def batched(pool: ProcessPoolExecutor, runs: list[Run], workers: int) -> Seconds:
    schedule.cache_clear()
    steps = sum(run.steps for run in runs)
    start, busy = time.perf_counter(), time.process_time()
    # The largest first, so that none is left over at the end.
    planned = sorted(parts(runs), key=len, reverse=True)
    spent = sum(pool.map(batch, planned))
    elapsed, busy = time.perf_counter() - start, time.process_time() - busy + spent
    return Seconds(elapsed / steps, busy / steps)


def main(names: list[str]) -> None:
    cores = int(joblib.cpu_count())
    os.environ.update(ENVIRONMENT)  # For both.
    print(f"{cores} cores, Python {platform.python_version()}, torch {torch.__version__}\n")
    contenders = f"loop, 1 thread | loop, {cores} threads | batched"
    print(f"| problem | {contenders} | loop | batched | × the loop | by time used | aim |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("| | µs a run-step | µs a run-step | µs a run-step | runs a minute | runs a minute | | | |", flush=True)
    torch.set_num_threads(1)
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        for name in names:
            runs, steps = all_runs(name), PROBLEMS[name].steps
            sample = runs[7 :: len(runs) // PLANS[name].runs]
            list(pool.map(read, [name] * 4 * cores))
            one, many, ours = [], [], []
            for _ in range(TURNS):
                one.append(pool.submit(loop, sample, 1).result())
                # Shorter, for on a machine that others use too, threads that wait for each other take minutes.
                many.append(pool.submit(loop, [sample[0]._replace(steps=max(20, steps // 10))], cores).result())
                ours.append(batched(pool, runs, cores))
            elapsed = [min(turn.elapsed for turn in turns) for turns in (one, many, ours)]
            per_step = " | ".join(f"{1e6 * value:,.3g}" for value in elapsed)
            fastest = min(elapsed[:2])
            per_minute = " | ".join(f"{60 / value / steps:,.0f}" for value in (fastest, elapsed[2]))
            by_time_used = cores * min(turn.busy for turn in one) / min(turn.busy for turn in ours)
            ratios = f"{fastest / elapsed[2]:,.1f} | {by_time_used:,.1f}"
            print(f"| {name} | {per_step} | {per_minute} | {ratios} | {PLANS[name].aim} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(PLANS))
