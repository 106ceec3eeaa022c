"""Many runs of one problem at once: their parameters stacked, their steps taken together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from greedylr.lab.engines.batched.feedback import Options, controllers, schedule
from greedylr.lab.engines.batched.job import Job, Trajectory, batches, initial_model, load
from greedylr.lab.engines.batched.stack import Stack, bytes_of_run
from greedylr.lab.engines.batched.updates import update
from greedylr.lab.optimizers import OPTIMIZERS
from greedylr.lab.problems import Data, Problem
from greedylr.lab.schedulers import SCHEDULERS

# Memory that the runs which are trained together go through in one step: from where what Python does once a step
# hardly counts, to where caches no longer help. Measured with benchmarks/lab_throughput.py.
_ENOUGH_BYTES = 16 * 2**20
_MOST_BYTES = 64 * 2**20
_MOST = 4096

_PARTS = 4  # For each worker, if they do not get too small: so that all are done at about the same time.


def supports(job: Job) -> bool:
    """Whether :func:`train_batched` can train a job: all but schedulers that are whole optimizers."""
    return SCHEDULERS[job.scheduler].kind != "optimizer"


def train_batched(
    problem: Problem,
    jobs: Sequence[Job],
    steps: int,
    *,
    validate_at: Collection[int] = (),
    dtype: torch.dtype = torch.float32,
    data: Data | None = None,
) -> list[Trajectory]:
    """Train many runs of one problem, in this thread.

    The results equal those of :func:`~greedylr.lab.engines.batched.single.train_one` but for the rounding of
    floating-point sums, whatever other jobs there are and in whatever order.

    Args:
        problem: What to train.
        jobs: How: any mix of optimizers, learning rates, schedulers and seeds.
        steps: Optimizer steps of each.
        validate_at: After how many steps to validate; 0: before the first.
        dtype: Of the weights and the data.
        data: The data of the problem in this type, if the caller has them.

    Returns:
        What each job left, in their order.

    Raises:
        KeyError: If there is no such optimizer or scheduler.
        ValueError: If a job is not supported.
    """
    data = load(problem, dtype) if data is None else data
    results: dict[int, Trajectory] = {}
    for rows in parts(problem, jobs, steps, dtype=dtype, data=data):
        together = [jobs[row] for row in rows]
        results.update(zip(rows, _train(problem, data, together, steps, validate_at, dtype)))
    return [results[row] for row in range(len(jobs))]


def parts(
    problem: Problem,
    jobs: Sequence[Job],
    steps: int,
    *,
    workers: int = 1,
    dtype: torch.dtype = torch.float32,
    data: Data | None = None,
) -> list[list[int]]:
    """The jobs that are best trained together, as indices: what to give each worker of a pool at a time.

    Args:
        problem: What to train.
        jobs: How.
        steps: Optimizer steps of each.
        workers: How many there are, each with a core of its own.
        dtype: Of the weights and the data.
        data: The data of the problem in this type, if the caller has them.

    Raises:
        KeyError: If there is no such optimizer or scheduler.
        ValueError: If a job is not supported.
    """
    groups: dict[tuple[str, tuple[Options, ...]], list[int]] = {}
    for row, job in enumerate(jobs):
        if not supports(job):
            raise ValueError(f"scheduler must be one that moves a learning rate, got {job.scheduler!r}")
        fixed = SCHEDULERS[job.scheduler].kind == "fixed"
        options = schedule(job.optimizer, 1.0, job.scheduler, steps).options if fixed else ()
        groups.setdefault((job.optimizer, options), []).append(row)
    data = load(problem, dtype) if data is None else data
    most = _size(problem, data, dtype, -(-len(jobs) // workers))
    # Few learning rates in a part, for each may mean a rule of its own, and few seeds, for each draws its batches.
    ordered = [sorted(rows, key=lambda row: (jobs[row].lr, jobs[row].seed)) for rows in groups.values()]
    return [part for rows in ordered for part in _cut(rows, most)]


def _size(problem: Problem, data: Data, dtype: torch.dtype, share: int) -> int:
    """How many runs are best trained together, of a worker's share."""
    examples = data.train.batch(next(batches(problem, data, 0)))
    each = bytes_of_run(problem, initial_model(problem, 0, dtype), examples)
    best = min(max(share // _PARTS, _ENOUGH_BYTES // each), _MOST_BYTES // each, _MOST, share)
    return max(1, best)


def _cut(rows: Sequence[int], most: int) -> Iterator[list[int]]:
    """As few parts of at most so many as there can be, as even as can be."""
    count = -(-len(rows) // most)
    for part in range(count):
        yield list(rows[part * len(rows) // count : (part + 1) * len(rows) // count])


def _train(
    problem: Problem,
    data: Data,
    jobs: Sequence[Job],
    steps: int,
    validate_at: Collection[int],
    dtype: torch.dtype,
) -> list[Trajectory]:
    seeds = list(dict.fromkeys(job.seed for job in jobs))
    draws = [batches(problem, data, seed) for seed in seeds]
    seed_of_run = torch.tensor([seeds.index(job.seed) for job in jobs])
    models = [initial_model(problem, seed, dtype) for seed in seeds]
    stack = Stack(problem, models, seed_of_run)
    updating = update(OPTIMIZERS[jobs[0].optimizer], list(stack.parameters.values()))
    feedback = list(controllers(jobs, steps, problem.task.mode))
    lrs = np.empty((steps, len(jobs)))
    options: tuple[Options, ...] = ()
    for row, job in enumerate(jobs):
        if SCHEDULERS[job.scheduler].kind == "fixed":
            known = schedule(job.optimizer, job.lr, job.scheduler, steps)
            lrs[:, row], options = known.lrs, known.options
    losses = np.empty(lrs.shape)
    observed = losses if problem.task.observe is None else np.empty(lrs.shape)
    actions = np.zeros(lrs.shape, np.int8)
    validations = {}

    def validate(step: int) -> None:
        if step in validate_at:
            validations[step] = stack.validate(data.validation).numpy()

    validate(0)
    for step in range(steps):
        indices = torch.stack([next(draw) for draw in draws])
        examples = data.train.batch(indices[seed_of_run])
        of_step, gradients = stack.differentiate(examples)
        losses[step] = of_step
        if problem.task.observe is not None:
            observed[step] = stack.observe(examples)
        for controller in feedback:
            lrs[step, controller.rows] = controller.lrs
        updating.step(gradients, torch.from_numpy(lrs[step]).to(dtype), dict(options[step]) if options else {})
        for controller in feedback:
            codes = controller.observe(observed[step, controller.rows])
            if codes is not None:
                actions[step, controller.rows] = codes
        validate(step + 1)
    metrics = stack.metric(data.validation).tolist()
    decided = {row for controller in feedback if controller.decides for row in controller.rows.tolist()}
    return [
        Trajectory(
            job=job,
            losses=losses[:, row].copy(),
            observed=observed[:, row].copy(),
            lrs=lrs[:, row].copy(),
            validation_steps=tuple(validations),
            validation_losses=np.array([values[row] for values in validations.values()], np.float64),
            metric=metrics[row],
            actions=actions[:, row].copy() if row in decided else None,
        )
        for row, job in enumerate(jobs)
    ]
