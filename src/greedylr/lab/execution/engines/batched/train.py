"""Many runs of one problem at once: their parameters stacked, their steps taken together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.perturbations import disturb
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.execution.engines.batched.account import Account
from greedylr.lab.execution.engines.batched.feedback import controllers
from greedylr.lab.execution.engines.batched.schedules import Floats, Options, schedule
from greedylr.lab.execution.engines.batched.stack import Stack, bytes_of_run
from greedylr.lab.execution.engines.batched.updates import update
from greedylr.lab.execution.setup import StoppedError, batches, data_of, initial_model, learning_rate
from greedylr.lab.results import Result, record
from greedylr.lab.runs import STACKED, Run, validation_steps
from greedylr.torch.gradient import is_round

# Memory that the runs which are trained together go through in one step: from where on what Python does once a step
# hardly counts, and caches help less and less. Measured with benchmarks/lab_throughput.py.
_BYTES = 16 * 2**20
_MOST = 4096

_PARTS = 16  # In all, where there are fewer kinds of runs: enough for many workers, whose number must not show.


def supports(run: Run) -> bool:
    """True if :func:`train_batched` can train a run: a stackable problem, and no scheduler that is an optimizer."""
    return SCHEDULERS[run.scheduler].kind != "optimizer" and PROBLEMS[run.problem].stackable


def parts(runs: Sequence[Run], dtype: torch.dtype = torch.float32) -> Iterator[list[Run]]:
    """The runs that are best trained together: what to give each worker of a pool at a time.

    What is in a part, and at which place, depends on which runs there are, and on nothing else: not on their order.

    Args:
        runs: All there are; those of one kind of part are together where the first of them is.
        dtype: Of the weights and the data.

    Raises:
        KeyError: If there is no such problem, optimizer or scheduler.
        ValueError: If a run is not supported.
    """
    kinds: dict[tuple[object, ...], dict[tuple[Options, ...], list[Run]]] = {}
    for run in runs:
        if not supports(run):
            raise ValueError(
                f"scheduler must be one that moves a learning rate, and problem stackable, got {run.scheduler!r} and "
                f"{run.problem!r}"
            )
        fixed = SCHEDULERS[run.scheduler].kind == "fixed"
        options = schedule(run.optimizer, run.scheduler, run.steps).options if fixed else ()
        alike = run.problem, run.steps, run.optimizer, run.perturbation
        kinds.setdefault(alike, {}).setdefault(options, []).append(run)
    of_each_kind = -(-_PARTS // max(1, len(kinds)))
    for of_kind in kinds.values():
        some = next(iter(of_kind.values()))[0]
        most = _size(some, -(-sum(map(len, of_kind.values())) // of_each_kind), dtype)
        for together in of_kind.values():
            # Few learning rates in a part, for each may mean a rule of its own, and few seeds, for each draws batches.
            # And in an order of their own, for a place in the stack may decide how the last bit is rounded: runs and
            # their twins have the same places, if all are trained at once.
            together.sort(key=lambda run: (run.multiplier, run.seed, run.scheduler))
            yield from _cut(together, most)


def cost(part: Sequence[Run], dtype: torch.dtype = torch.float32) -> int:
    """About how long a part takes, in no unit: the memory that its runs go through."""
    return len(part) * part[0].steps * _bytes(part[0].problem, dtype)


def train_batched(
    runs: Sequence[Run], *, dtype: torch.dtype = torch.float32, stopped: Callable[[], bool] = lambda: False
) -> list[Result]:
    """Train runs that belong together, in this thread.

    The results equal those of :func:`greedylr.lab.execution.reference_loop.train` but for the rounding of
    floating-point sums, which may depend on the place in the stack and on how many runs there are: the same runs in the
    same order give the same bits.

    Args:
        runs: One of :func:`parts`: runs of one problem, number of steps, optimizer and perturbation, whose schedulers
            move the same options of the optimizer.
        dtype: Of the weights and the data.
        stopped: Asked before each step whether to give up.

    Returns:
        What each run left, in their order.

    Raises:
        KeyError: If there is no such perturbation.
        StoppedError: If ``stopped()`` was true.
        ValueError: If the perturbation has nothing to act on in a run.
    """
    run = runs[0]
    problem, data = PROBLEMS[run.problem], data_of(run.problem, dtype)
    of_seed = {run.seed: run for run in runs}
    seeds = list(of_seed)
    draws = [batches(run, data) for run in of_seed.values()]
    seed_of_run = torch.tensor([seeds.index(run.seed) for run in runs])
    stack = Stack(problem, [initial_model(run, dtype) for run in of_seed.values()], seed_of_run)
    updating = update(OPTIMIZERS[run.optimizer], list(stack.parameters.values()))
    feedback = list(controllers(runs, problem.task.mode))
    order = next((one.order for one in feedback if one.order is not None), None)
    lrs, options = _tables(runs)
    losses = np.empty((run.steps, len(runs)))
    disturbance = disturb(runs, data.train)
    weights = [parameter.detach() for parameter in stack.parameters.values()]
    clean = np.empty(losses.shape) if disturbance is not None and disturbance.acts_on == "data" else None
    told_otherwise = problem.task.observe is not None or disturbance is not None
    observed = np.empty(losses.shape) if told_otherwise else losses
    validations: dict[int, Floats] = {}

    def validate(step: int) -> None:
        validations[step] = of_runs = stack.validate(data.validation).numpy()
        for controller in feedback:
            controller.validate(of_runs[controller.rows].astype(float))

    validate(0)
    to_validate = frozenset(validation_steps(run.steps))
    for step in range(run.steps):
        if stopped():
            raise StoppedError
        indices = torch.stack([next(draw) for draw in draws])[seed_of_run]
        examples = undisturbed = data.train.batch(indices)
        if disturbance is None:
            of_step, gradients = stack.differentiate(examples)
        else:
            disturbance.state(step, weights, updating.forget)
            examples = disturbance.examples(step, indices) or examples
            of_step, gradients = stack.differentiate(examples, disturbance.constant(step))
            gradients = disturbance.gradients(step, gradients)
        losses[step] = of_step
        if clean is not None:
            clean[step] = of_step if examples is undisturbed else stack.losses(undisturbed)
        if told_otherwise:
            values = of_step if problem.task.observe is None else stack.observe(examples)
            observed[step] = values if disturbance is None else disturbance.observation(step, values.double())
        for controller in feedback:
            lrs[step, controller.rows] = controller.lrs
        of_runs = torch.from_numpy(lrs[step]).to(dtype)
        if disturbance is not None:
            of_runs = of_runs * disturbance.lr_factor(step)
        updating.step(gradients, of_runs, dict(options[step]) if options else {})
        norms = None if order is None else _norms(gradients, order)
        for controller in feedback:
            rows = controller.rows
            controller.observe(observed[step, rows], None if norms is None else norms[rows])
        if step + 1 in to_validate:
            validate(step + 1)
    metrics = stack.metric(data.validation).tolist()
    accounts: dict[int, Account] = {}
    for controller in feedback:
        lrs[-1, controller.rows] = controller.lrs
        told = controller.accounts(lrs[:, controller.rows], observed[:, controller.rows])
        accounts.update(zip(controller.rows.tolist(), told))

    def result(row: int, run: Run) -> Result:
        its = accounts.get(row, Account({"mode": problem.task.mode}, []))
        steps = run.steps if its.steps is None else its.steps
        kept = record(
            losses[:steps, row],
            lrs[: steps + 1, row],
            {step: float(of_runs[row]) for step, of_runs in validations.items() if its.steps is None or step < steps},
            its.decisions,
            config=its.config,
            clean_losses=() if clean is None else clean[:steps, row],
        )
        return Result(run, kept, metrics[row] if its.failure is None else None, its.failure, STACKED)

    return [result(row, run) for row, run in enumerate(runs)]


def _size(run: Run, share: int, dtype: torch.dtype) -> int:
    """Number of runs that are best trained together, of so many."""
    return max(1, min(_BYTES // _bytes(run.problem, dtype), _MOST, share))


@cache
def _bytes(problem: str, dtype: torch.dtype) -> int:
    run = Run(problem, 1.0, "constant", 0, 1)
    data = data_of(problem, dtype)
    examples = data.train.batch(next(batches(run, data)))
    return bytes_of_run(PROBLEMS[problem], initial_model(run, dtype), examples)


def _norms(gradients: Sequence[Tensor], order: int) -> Floats:
    """Norm of each run's gradient, squared if of order 2; NaN where it was clipped."""
    flat = [gradient.reshape(len(gradient), -1) for gradient in gradients]
    squares = torch.stack([one.square().sum(1) for one in flat]).sum(0)
    norms = squares if order == 2 else torch.stack([one.abs().sum(1) for one in flat]).sum(0)
    found: Floats = norms.where(~torch.as_tensor(is_round(squares.sqrt())), math.nan).double().numpy()
    return found


def _cut(runs: Sequence[Run], most: int) -> Iterator[list[Run]]:
    """Cut into the fewest parts of at most so many, as even as can be."""
    count = -(-len(runs) // most)
    for part in range(count):
        yield list(runs[part * len(runs) // count : (part + 1) * len(runs) // count])


def _tables(runs: Sequence[Run]) -> tuple[Floats, tuple[Options, ...]]:
    """The learning rates that are known before, by step and run, the one after the last step included.

    And what else of the optimizer is moved.
    """
    lrs = np.empty((runs[0].steps + 1, len(runs)))
    options: tuple[Options, ...] = ()
    for row, run in enumerate(runs):
        if SCHEDULERS[run.scheduler].kind == "fixed":
            known = schedule(run.optimizer, run.scheduler, run.steps)
            lrs[:, row], options = learning_rate(run) * known.shares, known.options
    return lrs, options
