"""One run at a time, in a plain loop with torch's optimizer and the scheduler itself: what every engine must equal."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from greedylr import Decision, GreedyLR
from greedylr.control.batched import ACTIONS
from greedylr.lab.engines.batched.job import Job, Trajectory, batches, initial_model, load
from greedylr.lab.optimizers import OPTIMIZERS
from greedylr.lab.problems import Data, Problem
from greedylr.lab.schedulers import SCHEDULERS

_CODE = {action: code for code, action in enumerate(ACTIONS)}


def train_one(
    problem: Problem,
    job: Job,
    steps: int,
    *,
    validate_at: Collection[int] = (),
    dtype: torch.dtype = torch.float32,
    data: Data | None = None,
) -> Trajectory:
    """Train one run.

    Args:
        problem: What to train.
        job: How.
        steps: Optimizer steps.
        validate_at: After how many steps to validate; 0: before the first.
        dtype: Of the weights and the data.
        data: The data of the problem in this type, if the caller has them.

    Raises:
        KeyError: If there is no such optimizer or scheduler.
    """
    data = load(problem, dtype) if data is None else data
    model = initial_model(problem, job.seed, dtype)
    optimizer = OPTIMIZERS[job.optimizer].build(list(model.parameters()), job.lr)
    entry = SCHEDULERS[job.scheduler]
    scheduler: Any = entry.build(optimizer, steps, problem.task.mode)
    actions: list[int] = []

    def note(decision: Decision) -> None:
        actions.append(_CODE[decision.action])

    if isinstance(scheduler, GreedyLR):
        scheduler.subscribe(note)
    losses, observed, lrs = [], [], []
    validations: dict[int, float] = {}

    def validate(step: int) -> None:
        if step in validate_at:
            validations[step] = problem.validate(model, data)

    validate(0)
    for step, indices in zip(range(steps), batches(problem, data, job.seed)):
        examples = data.train.batch(indices)
        loss = problem.loss(model, examples)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        observed.append(losses[-1])
        if problem.task.observe is not None:
            with torch.no_grad():
                observed[-1] = problem.observe(model, examples).item()
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step(*observed[-1:] if entry.kind == "feedback" else [])
        validate(step + 1)
    with torch.no_grad():
        metric = problem.metric(model, data.validation).item()
    return Trajectory(
        job=job,
        losses=np.array(losses),
        observed=np.array(observed),
        lrs=np.array(lrs),
        validation_steps=tuple(validations),
        validation_losses=np.array(list(validations.values())),
        metric=metric,
        actions=np.array(actions, np.int8) if isinstance(scheduler, GreedyLR) else None,
    )
