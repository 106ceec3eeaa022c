"""Back to a snapshot after the loss blew up, with a smaller learning rate, instead of a dead run."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from greedylr.control.decision import Action, Decision
from greedylr.pulse.recorder import Recorder

MARGIN = 5
"""Losses that a snapshot must have been followed by without trouble, before it is gone back to."""

WAIT = 20
"""Steps after which bad batches are taken to be over."""


class RescueError(RuntimeError):
    """Going back did not help, or there is nothing to go back to."""


class _Snapshot(NamedTuple):
    step: int
    groups: list[int]  # how many parameters each group had
    scheduler: dict[str, Any]
    modules: list[_Tensors]
    others: list[dict[str, Any]]
    optimizer: list[dict[str, Any]]  # of each parameter
    settings: list[dict[str, Any]]  # of each parameter group


_Tensors = dict[str, Any]
_OWNED = frozenset({"params", "lr", "initial_lr"})
"""What a parameter group holds that is not the optimizer's to change."""


class Rescue:
    """Keeps snapshots of a run in host memory, and goes back to one when the loss is not finite or explodes.

    Call :meth:`step` after every ``scheduler.step``. After trouble it restores model, optimizer and scheduler in
    place, cuts the learning rate, and training goes on with the batches that come next: data and random numbers are
    not rewound, and the scheduler's count of steps is not either, so that a known horizon still ends where it should.
    Trouble is what the scheduler calls NON_FINITE or EXPLOSION (the paper family knows the first only). Two snapshots
    are held: the newest that was followed by five losses without trouble is restored, and the older one if that has
    been tried. When the optimizer gets other parameter groups, the next :meth:`step` begins anew with a snapshot of
    then.

    An explosion that is there again right after going back is not of the model's making: there were bad batches, or the
    data have changed. So it goes on for twenty steps, and then goes back once more, with the learning rate of then: bad
    batches are over by that time, and what they did is undone. If it explodes again, that is let be.

    Args:
        model: What is trained. Its parameters that require no gradient are not copied.
        optimizer: Its optimizer, with any parameter groups.
        scheduler: A :class:`greedylr.GreedyLR`.
        every: Steps between snapshots. Each copies everything to the host.
        factor: What the learning rate is multiplied by after going back, in (0, 1].
        most: Rescues in a row, without a new snapshot in between, after which it gives up.
        also: Further objects with ``state_dict`` and ``load_state_dict``: an average of the weights, a ``GradScaler``.
            If one of them refuses its state, nothing is restored.
        recorder: Where rescues are marked.

    Raises:
        ValueError: If an argument is outside what is stated above.

    Example:
        >>> from greedylr import GreedyLR
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> scheduler = GreedyLR(optimizer)
        >>> rescue = Rescue(model, optimizer, scheduler, every=10)
        >>> for step in range(30):
        ...     loss = model(torch.ones(1)).square().sum() * (float("nan") if step == 20 else 1.0)
        ...     loss.backward(); optimizer.step(); optimizer.zero_grad()
        ...     scheduler.step(loss)
        ...     if rescue.step():
        ...         print(f"step {step + 1}: back to step {rescue.last}")
        step 21: back to step 10
        >>> bool(model.weight.isfinite())
        True
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        *,
        every: int = 100,
        factor: float = 0.5,
        most: int = 3,
        also: Iterable[Any] = (),
        recorder: Recorder | None = None,
    ) -> None:
        for name, value in {"every": every, "most": most}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if not 0 < factor <= 1:
            raise ValueError(f"factor must be a number with 0 < factor <= 1, got {factor!r}")
        self.last = -1
        """The step that was last gone back to; -1 if there was no rescue."""
        self._model, self._also = model, tuple(also)
        self._optimizer, self._scheduler, self._recorder = optimizer, scheduler, recorder
        self._every, self._factor, self._most = every, factor, most
        self._in_a_row = 0
        self._trouble: Decision | None = None
        self._back_at = -1  # the step at which it last went back
        self._let_be = False  # explosions, until the next snapshot
        self._again: tuple[int, _Snapshot] | None = None  # the step at which to go back once more, and where to
        self._snapshots = [self._snapshot()]
        self._unsubscribe = scheduler.subscribe(self._observe)

    def step(self) -> bool:
        """Take a snapshot if it is time; go back to one if there was trouble.

        Returns:
            Whether it has gone back.

        Raises:
            RescueError: If that has been done too often in a row, or if the parameter groups are others than at the
                last snapshot. Nothing has changed then.
            ValueError: From the recorder, if it was closed. Nothing has changed then either.
        """
        if not self._snapshots:  # closed
            return False
        step = self._scheduler.last_epoch
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            return self._go_back(trouble, step)
        if self._snapshots[-1].groups != _sizes(self._optimizer):
            self._snapshots, self._again = [], None
            self._snapshots = [self._snapshot()]
            return False
        if self._again is not None:
            due, snapshot = self._again
            if step < due:
                return False
            self._mark("rescue", f"once more, bad batches may be over: back to step {snapshot.step}")
            self._restore(snapshot, step, 1.0)
            self._again = None
            return True
        healthy_since = max(self._snapshots[-1].step, self._back_at)
        if step - healthy_since >= self._every:
            del self._snapshots[:-1]  # before the new one is made: two at most
            self._snapshots.append(self._snapshot())
            self._in_a_row, self._let_be = 0, False
        return False

    def close(self) -> None:
        """Stop watching, and free the snapshots; :meth:`step` does nothing from here on."""
        self._unsubscribe()
        self._snapshots, self._again = [], None

    def _observe(self, decision: Decision) -> None:
        if decision.action is Action.NON_FINITE or (decision.action is Action.EXPLOSION and not self._let_be):
            self._trouble = decision

    def _go_back(self, trouble: Decision, step: int) -> bool:
        # What may raise comes first, so that nothing is done by halves.
        if trouble.action is Action.EXPLOSION and self._back_at >= 0 and step - self._back_at <= MARGIN:
            self._mark("explosion let be", "as high at the snapshot: bad batches, or other data")
            self._let_be = True
            self._again = (step + WAIT, self._snapshots[-1])
            return False
        cause = trouble.action.name.lower()
        if self._in_a_row == self._most:
            raise RescueError(
                f"gave up at step {step}: {self._most} rescues in a row did not help ({cause}, loss {trouble.loss:g}); "
                f"the last one went back to step {self.last}. Look at the data, clip gradients, or start with a "
                f"lower learning rate"
            )
        now = _sizes(self._optimizer)
        possible = [one for one in self._snapshots if one.groups == now]
        if not possible:
            before = self._snapshots[-1]
            raise RescueError(
                f"cannot go back at step {step} ({cause}, loss {trouble.loss:g}): the optimizer has parameter groups "
                f"of {now} parameters, and had {before.groups} at the last snapshot, step {before.step}. Call step() "
                f"of the Rescue after groups were added and before the next loss"
            )
        sound = [one for one in possible if step - one.step >= MARGIN]
        chosen = (sound or possible)[-1 if self._in_a_row == 0 else 0]
        self._mark("rescue", f"{cause}: back to step {chosen.step}")
        # One cut more for each rescue in a row: what did not help is not tried again.
        self._restore(chosen, step, self._factor ** (self._in_a_row + 1))
        self._again = None
        self._in_a_row += 1
        # What was taken in between is on the way to the trouble.
        self._snapshots = [one for one in self._snapshots if one.step <= chosen.step]
        return True

    def _mark(self, name: str, why: str) -> None:
        if self._recorder is not None:
            self._recorder.mark(name, why=why)

    def _snapshot(self) -> _Snapshot:
        state = self._optimizer.state
        modules, others = self._parts()
        return _Snapshot(
            step=self._scheduler.last_epoch,
            groups=_sizes(self._optimizer),
            scheduler=self._scheduler.state_dict(),
            modules=[_on_host(_tensors(module, module is self._model)) for module in modules],
            others=[_on_host(one.state_dict()) for one in others],
            optimizer=[
                _on_host(state[parameter]) if parameter in state else {} for parameter in _parameters(self._optimizer)
            ],
            settings=[_on_host(_settings(group)) for group in self._optimizer.param_groups],
        )

    def _parts(self) -> tuple[list[torch.nn.Module], list[Any]]:
        modules = [self._model, *(one for one in self._also if isinstance(one, torch.nn.Module))]
        return modules, [one for one in self._also if not isinstance(one, torch.nn.Module)]

    @torch.no_grad()
    def _restore(self, snapshot: _Snapshot, now: int, factor: float) -> None:
        modules, others = self._parts()
        self._restore_others(others, snapshot.others, now)
        # Nothing raises from here on.
        for module, kept in zip(modules, snapshot.modules):
            for name, tensor in _tensors(module, module is self._model).items():
                if name in kept:
                    tensor.copy_(kept[name])
        for parameter, saved in zip(_parameters(self._optimizer), snapshot.optimizer):
            _put_back(self._optimizer.state[parameter], saved, parameter.device)
        for group, saved in zip(self._optimizer.param_groups, snapshot.settings):
            _put_back(group, saved, torch.device("cpu"), keep=_OWNED)
        self._scheduler.go_back(snapshot.scheduler, factor)
        self.last, self._back_at = snapshot.step, now

    def _restore_others(self, others: list[Any], states: list[dict[str, Any]], now: int) -> None:
        """All of them or none."""
        before = [_on_host(one.state_dict()) for one in others]
        tried = 0
        try:
            for one, state in zip(others, states):
                tried += 1
                one.load_state_dict(_on_host(state))  # A copy: some keep what they are given.
        except Exception as error:
            for one, state in zip(others[:tried], before):
                with contextlib.suppress(Exception):  # It has refused one state, and may be as it was.
                    one.load_state_dict(state)
            raise RescueError(
                f"cannot go back at step {now}: {type(others[tried - 1]).__name__} refused its own state "
                f"({type(error).__name__}: {error}). Nothing has been restored"
            ) from error


def _tensors(module: torch.nn.Module, trained: bool) -> _Tensors:
    """Parameters and buffers by name, each once, those that no checkpoint has included.

    Args:
        module: The module.
        trained: Whether to leave out parameters that require no gradient.
    """
    parameters = {name: one for name, one in module.named_parameters() if one.requires_grad or not trained}
    return {**parameters, **dict(module.named_buffers())}


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in _OWNED}


def _put_back(
    present: dict[str, Any], saved: dict[str, Any], device: torch.device, keep: frozenset[str] = frozenset()
) -> None:
    for name in [name for name in present if name not in saved and name not in keep]:
        del present[name]
    for name, value in saved.items():
        if isinstance(value, Tensor) and isinstance(present.get(name), Tensor):
            present[name].copy_(value)  # In place: captured and compiled optimizers hold on to their tensors.
        else:
            present[name] = _copied(value, device)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _sizes(optimizer: torch.optim.Optimizer) -> list[int]:
    return [len(group["params"]) for group in optimizer.param_groups]


def _on_host(state: Any) -> Any:
    """A copy whose tensors are in host memory."""
    return _copied(state, torch.device("cpu"))


def _copied(state: Any, device: torch.device) -> Any:
    """A copy of everything; tensors go to the device, but single numbers, which suit every one, to the host."""
    if isinstance(state, Tensor):
        return state.detach().to(device if state.dim() else "cpu", copy=True)
    if isinstance(state, dict):
        return {name: _copied(value, device) for name, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(_copied(value, device) for value in state)
    return copy.deepcopy(state)
