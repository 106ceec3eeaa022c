"""Train one run in a plain loop, and keep everything that can be asked about it later: what every engine must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from greedylr import Decision
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.perturbations import Alone, disturb
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS, Horizon, Scheduler
from greedylr.lab.execution.setup import FAILURES, StoppedError, batches, data_of, drawing, initial_model, learning_rate
from greedylr.lab.results import Result, keep_notable, moves, record
from greedylr.lab.runs import Run, validation_steps
from greedylr.pulse.recording.storage import settings


def train(
    run: Run,
    *,
    scheduler: Scheduler | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    forward: torch.dtype | None = None,
    fused: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> Result:
    """Train one run; the same run gives the same result, on one thread, wherever it is trained.

    Args:
        run: What to train.
        scheduler: One that is not in the catalogue; None: that of the run's name.
        dtype: Of the weights and the data.
        device: Where to train, as torch names it; the initial weights and the batches are the same everywhere.
        forward: Of the forward pass, by torch's autocast; None: as the weights are.
        fused: Whether to take torch's fused optimizers.
        stopped: Asked before each step whether to give up.

    Returns:
        The result: complete also if the losses were not finite, and up to its end if training broke down.

    Raises:
        KeyError: If there is no such problem, optimizer, scheduler or perturbation.
        ModuleNotFoundError: If the scheduler is of a package that is not installed.
        StoppedError: If ``stopped()`` was true.
        ValueError: If the perturbation has nothing to act on in the run.
    """
    problem, data = PROBLEMS[run.problem], data_of(run.problem, dtype, device)
    task, entry = problem.task, scheduler or SCHEDULERS[run.scheduler]
    model = initial_model(run, dtype).to(device)
    drawn = batches(run, data)
    optimizer = _optimizer(run, entry, list(model.parameters()), fused)
    stepped: Any = entry.build(optimizer, run.steps, task.mode)
    disturbance = disturb([run], data.train)
    alone = None if disturbance is None else Alone(disturbance, list(model.parameters()), optimizer)
    keeps_clean = disturbance is not None and disturbance.acts_on == "data"
    losses: list[float] = []
    clean_losses: list[float] = []
    told: list[float] = []
    lrs = [_lr(optimizer)]
    validations: dict[int, float] = {}
    decisions: list[Decision] = []
    metric: float | None = None
    failure: str | None = None
    says_why = hasattr(stepped, "subscribe")
    if says_why:
        stepped.subscribe(partial(keep_notable, decisions))

    # Asked without the rule itself, which is no part of runs of other schedulers.
    hears_validation = getattr(getattr(stepped, "config", None), "await_validation", False)

    def cast() -> torch.autocast:
        return torch.autocast(torch.device(device).type, forward, enabled=forward is not None)

    def validate(step: int) -> None:
        with _settled(optimizer), cast():
            validations[step] = problem.validate(model, data)
        if hears_validation:
            stepped.validate(validations[step])

    def advance(step: int) -> None:
        indices = next(drawn)
        examples = undisturbed = data.train.batch(indices)
        if alone is not None:
            alone.state(step)
            examples = alone.examples(step, indices) or examples
        with cast():
            loss = problem.loss(model, examples)
        optimizer.zero_grad()
        (loss if alone is None else alone.loss(step, loss)).backward()  # type: ignore[no-untyped-call]
        if alone is not None:
            alone.gradients(step)
        losses.append(loss.item())
        if keeps_clean:
            with torch.no_grad(), cast():
                kept = loss if examples is undisturbed else problem.loss(model, undisturbed)
            clean_losses.append(kept.item())
        observed = losses[-1]
        if task.observe is not None:
            with torch.no_grad(), cast():
                observed = problem.observe(model, examples).item()
        if alone is not None:
            observed = alone.told(step, observed)

        def again() -> torch.Tensor:
            model.eval()
            with torch.no_grad(), cast():
                at_other_weights = problem.loss(model, examples)
            model.train()
            return at_other_weights

        with nullcontext() if alone is None else alone.lr(step):
            # Of the others, MoMo alone asks for the loss, the one there is.
            optimizer.step(again if entry.searches else lambda: loss)  # type: ignore[arg-type, return-value]
        told.append(observed)
        stepped.step(*[observed] if entry.kind == "feedback" else [])
        lrs.append(_lr(optimizer))

    to_validate = frozenset(validation_steps(run.steps))
    validate(0)
    try:
        with drawing(run, device):
            for step in range(run.steps):
                if stopped():
                    raise StoppedError
                advance(step)
                if step + 1 in to_validate:
                    validate(step + 1)
        model.eval()
        with torch.no_grad(), _settled(optimizer), cast():
            metric = problem.metric(model, data.validation).item()
    except FAILURES as error:
        failure = f"{type(error).__name__}: {error}"
    lrs += lrs[-1:] * (len(losses) + 1 - len(lrs))  # A step that broke down moved none.
    if entry.moves_for_the_loss and not says_why:
        decisions = moves(told, lrs)
    config = settings(stepped.config) if says_why else {"mode": task.mode}
    kept = record(losses, lrs, validations, decisions, config=config, clean_losses=clean_losses)
    return Result(run, kept, metric, failure, arithmetic(device, forward))


def arithmetic(device: str, forward: torch.dtype | None) -> str:
    """Name of what results are computed with, as in :attr:`Result.arithmetic`.

    Example:
        >>> arithmetic("cuda:1", torch.bfloat16)
        'cuda-bfloat16'
    """
    kind = torch.device(device).type
    return kind if forward is None else f"{kind}-{str(forward).removeprefix('torch.')}"


def _lr(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _optimizer(run: Run, entry: Scheduler, parameters: list[Parameter], fused: bool) -> Optimizer:
    lr = learning_rate(run)
    if entry.stands_in:
        return entry.stands_in[run.optimizer](parameters, lr, Horizon(run.steps, PROBLEMS[run.problem].task.mode))
    return OPTIMIZERS[run.optimizer].build(parameters, lr, fused=fused)


@contextmanager
def _settled(optimizer: Any) -> Iterator[None]:
    """Put the weights that count in place: those of a schedule-free optimizer are not the ones it trains at."""
    averages = hasattr(optimizer, "eval")
    if averages:
        optimizer.eval()
    yield
    if averages:
        optimizer.train()
