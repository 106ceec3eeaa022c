"""One loss for all ranks, so one learning rate for all ranks, and proof that all ranks are at the same step.

Every step is one collective of a few numbers for each rank, in a process group of the scheduler's own, so that it is
never paired with a collective of the training's. Every rank sees all of them, computes the same mean from them, and
raises the same error where ranks are not doing the same.
"""

from __future__ import annotations

import json
import math
import weakref
import zlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.join import Join
from torch.optim import Optimizer

from greedylr.control import plain
from greedylr.control.default.state import DefaultState
from greedylr.control.families import Config, State
from greedylr.control.paper.state import PaperState
from greedylr.torch.device_reader import Decode, Observed

TIMEOUT = timedelta(minutes=5)
"""Time that a rank waits for the others. They may be compiling, but a rank without a scheduler never comes."""

FIRST_WAIT = timedelta(seconds=60)
"""Time at its first step, where no rank has been seen to come."""


# Asked at steps that move the learning rate.
_is_initialized: Callable[[], bool] = dist.is_initialized if dist.is_available() else bool


def is_active() -> bool:
    """True if this process is one of several in an initialised default process group."""
    return _is_initialized() and dist.get_world_size() > 1


def is_main() -> bool:
    """True if this process reports for all ranks."""
    return not is_active() or dist.get_rank() == 0


def join_process_group() -> Any:
    """The group in which ``torch.distributed.algorithms.Join`` counts the ranks that have inputs left."""
    return dist.group.WORLD


def join_device() -> torch.device:
    """A device that this group can reduce."""
    return torch.device("cpu" if "cpu:" in dist.get_backend_config() else "cuda")


def notify_join_context(scheduler: Any) -> None:
    """Within ``Join``, if first in it: tell the ranks whose inputs are used up that a step is to come."""
    if hasattr(scheduler, "_join_config"):
        Join.notify_join_context(scheduler)


class JoinHook:
    """Called by ``Join`` on a rank whose inputs are used up.

    Args:
        step: Makes the step of the other ranks.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step

    def main_hook(self) -> None:
        """Another rank makes a step."""
        self._step()

    def post_hook(self, is_last_joiner: bool) -> None:
        """All ranks are done, and have the same state."""


class _Report(NamedTuple):
    """Message of each rank to the others."""

    loss: float
    slope: float
    step: float
    optimizer_steps: float
    lr: float
    settings: float
    memory: float
    refused: float
    joined: float


class LossAverage:
    """The mean loss over all ranks, for one scheduler.

    Every rank must build the scheduler and step it equally often. With uneven inputs, ``Join([model, scheduler])``: a
    rank whose inputs are used up goes along without a loss.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._optimizer_steps = -1  # not counted yet
        self._told: tuple[Config, tuple[float, ...]] | None = None
        self._settings = ""  # as JSON
        self._fingerprint = 0
        self._heard: list[str] = []  # the settings of all ranks, when they have just come together
        self._world: Any = None  # the default group that the own one belongs to
        self._group: Any = None

    def gather(
        self,
        loss: float | Tensor,
        slope: float | Tensor | None,
        step: int,
        config: Config,
        state: State,
        refused: bool = False,
        joined: bool = False,
    ) -> tuple[Tensor, Decode]:
        """Tell all ranks of this step, and hear of theirs.

        Args:
            loss: This rank's loss: a number, or a tensor with one element on any device.
            slope: Its slope, likewise; None if it is not known.
            step: Losses that this rank was given so far.
            config: Its settings.
            state: Its memory.
            refused: Whether this rank was given something that is no loss, and is about to raise.
            joined: Whether its inputs are used up, so that it has no loss.

        Returns:
            What all ranks told, as a vector on a device that the group can reach, and a function that makes the mean
            loss of its numbers, or raises.

        Raises:
            RuntimeError: If the other ranks did not come, or came with other settings.
        """
        try:
            self._count_optimizer_steps(joined)
            self._tell(config, state.initial_lrs[1:])  # That of the first group is in the learning rate.
            group = self._own_group()
            device = loss.device if isinstance(loss, Tensor) else torch.device("cpu")
            if device.type == "cpu" and dist.get_backend(group) == "nccl":
                device = torch.device("cuda", torch.cuda.current_device())
            known = [step, self._optimizer_steps, state.lrs[0], self._fingerprint, _memory(state), refused, joined]
            rest = torch.tensor(known, dtype=torch.float64)
            said = [loss, math.nan if slope is None else slope]
            own = [torch.as_tensor(one, dtype=torch.float64).detach().reshape(1).to(device) for one in said]
            told = torch.cat([*own, rest.to(device, non_blocking=True)])
            everyone = [torch.empty_like(told) for _ in range(dist.get_world_size(group))]
            dist.all_gather(everyone, told, group=group)
        except RuntimeError as error:
            raise RuntimeError(
                f"the other ranks did not step their scheduler within {_patience(step):g} s of step {step + 1}: "
                "every rank must build the scheduler, call step(loss) equally often and stop when the others do; with "
                "uneven inputs within torch.distributed.algorithms.Join([model, scheduler]); pass average_ranks=False "
                f"to let each rank decide alone, say where the loss is the same everywhere ({error})"
            ) from error
        _check_alike(self._heard)
        self._heard = []
        return torch.cat(everyone), _mean

    def _tell(self, config: Config, others: tuple[float, ...]) -> None:
        """Make what stands for the settings, if these are not those of the step before."""
        if self._told is None or self._told[0] is not config or self._told[1] != others:
            self._told = config, others
            self._settings = json.dumps({**plain.to_dict(config), "initial_lrs": others}, sort_keys=True)
            self._fingerprint = zlib.crc32(self._settings.encode())

    def _count_optimizer_steps(self, joined: bool) -> None:
        """Count from the first step on: a rank that leaves out a step of the scheduler does not know that it has."""
        if self._optimizer_steps < 0:
            self._optimizer_steps = 0
            if hasattr(self._optimizer, "_optimizer_step_post_hooks"):  # Wrappers may have none.
                counts = weakref.ref(self)

                def count(*_: Any) -> None:
                    averages = counts()
                    if averages is not None:
                        averages._optimizer_steps += 1

                self._optimizer.register_step_post_hook(count)
        elif joined and hasattr(self._optimizer, "_optimizer_step_post_hooks"):
            self._optimizer_steps += 1  # So that all ranks have as many when there are inputs again.

    def _own_group(self) -> Any:
        world = dist.group.WORLD
        if self._group is None or self._world is not world:  # Groups may have been taken down and made again.
            self._heard = _await_all_ranks(self._settings)
            self._group, self._world = dist.new_group(timeout=min(TIMEOUT, _store().timeout)), world
        return self._group


def _patience(step: int) -> float:
    wait: timedelta = min(TIMEOUT, _store().timeout, *([] if step else [FIRST_WAIT]))
    return wait.total_seconds()


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _await_all_ranks(settings: str) -> list[str]:
    """Wait for all ranks, by way of the store: a collective could meet one of somebody else's where a rank is not here.

    Args:
        settings: Of this rank's scheduler.

    Returns:
        Those of all.

    Raises:
        RuntimeError: If a rank does not come.
    """
    store = _store()
    rank, size = dist.get_rank(), dist.get_world_size()
    # The store may be older than the process group, and a rank has a scheduler for each of its optimizers.
    key = f"greedylr/{(store.add('greedylr/arrivals', 1) - 1) // size}"
    store.set(f"{key}/{rank}", settings)
    if store.add(f"{key}/ranks", 1) == size:
        store.set(f"{key}/complete", "")
    wait = min(FIRST_WAIT, TIMEOUT, store.timeout)
    try:
        store.wait([f"{key}/complete"], wait)
    except RuntimeError as error:
        missing = [other for other in range(size) if not store.check([f"{key}/{other}"])]
        store.add(f"{key}/ranks", -1)
        store.add("greedylr/arrivals", -1)
        raise RuntimeError(
            f"rank {rank} has not seen rank {', '.join(map(str, missing[:8]))}{', …' if len(missing) > 8 else ''}"
        ) from error
    return [store.get(f"{key}/{other}").decode() for other in range(size)]


def _check_alike(settings: Sequence[str]) -> None:
    """See that all ranks have the same settings, where these are known.

    Raises:
        RuntimeError: If they have not.
    """
    ranks = [json.loads(one) for one in settings]
    for name in {name: None for rank in ranks for name in rank}:
        values = [json.dumps(rank.get(name)) for rank in ranks]
        if len(set(values)) > 1:
            _disagree(f"the ranks have schedulers with different settings: {name}{_by_rank(values)}")


_NUMBERS = {kind: [one.name for one in fields(kind) if one.name != "losses"] for kind in (DefaultState, PaperState)}


def _memory(state: State) -> int:
    """A number that stands for the memory of the rule, but for its unfinished window, exact in double precision."""
    return zlib.crc32(repr([getattr(state, name) for name in _NUMBERS[type(state)]]).encode())


def _mean(numbers: list[float]) -> Observed:
    """The mean loss and slope, the same bits on every rank; NaN if any rank has NaN.

    Raises:
        RuntimeError: If the ranks are not at the same step with the same settings and learning rate, or one refused.
    """
    size = len(_Report._fields)
    reports = [_Report(*numbers[at : at + size]) for at in range(0, len(numbers), size)]
    refused = [rank for rank, report in enumerate(reports) if report.refused]
    if refused:
        _disagree(f"rank {refused[0]} was given something that is no loss at step {int(reports[refused[0]].step) + 1}")
    for name, what in (
        ("settings", "have schedulers with different settings"),
        ("step", "are at different steps"),
        ("optimizer_steps", "have made different numbers of optimizer steps since their first"),
        ("lr", "have different learning rates"),
        ("memory", "remember different losses: a state was loaded on some of them, or their validations differ"),
    ):
        # A rank whose inputs are used up has no optimizer steps any more.
        alike = [report for report in reports if not report.joined] if name == "optimizer_steps" else reports
        values = [getattr(report, name) for report in alike]
        if len(set(values)) > 1:
            shown = _by_rank([f"{one + 1 if name == 'step' else one:g}" for one in values])
            _disagree(f"the ranks {what}{'' if name in ('settings', 'memory') else shown}")
    reports = [report for report in reports if not report.joined]
    return Observed(_average([one.loss for one in reports]), _average([one.slope for one in reports]))


def _average(values: list[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values)


def _by_rank(values: Sequence[str]) -> str:
    few = [f"rank {rank}: {value}" for rank, value in enumerate(values)][:8]
    return f" ({', '.join(few)}{', …' if len(values) > 8 else ''})"


def _disagree(what: str) -> NoReturn:
    raise RuntimeError(
        f"{what}: every rank must build the same scheduler, load the same state, and call step(loss) equally often; "
        "pass average_ranks=False to let each rank decide alone"
    )
