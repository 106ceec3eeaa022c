"""Back to a snapshot after the loss blew up, with a smaller learning rate, instead of a dead run."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from greedylr.control.decision import Action, Decision

MARGIN = 5
"""Losses that a snapshot must have been followed by without trouble, before it is gone back to."""

WAIT = 20
"""Steps after which bad batches are taken to be over."""


class Marked(Protocol):
    """Interface of a log of rescues: :class:`greedylr.pulse.Recorder` has it."""

    def mark(self, name: str, **details: Any) -> None:
        """Note something at the last step."""


class RescueError(RuntimeError):
    """Going back did not help, or there is nothing to go back to."""


class _Snapshot(NamedTuple):
    step: int
    groups: list[int]  # how many parameters each group had
    scheduler: dict[str, Any]
    tensors: dict[str, Tensor]  # parameters and buffers by name, each once
    uninitialised: bool  # whether there were lazy parameters that no forward had given a shape
    others: list[Any]
    optimizer: dict[Any, dict[str, Any]]  # by parameter
    settings: list[dict[str, Any]]  # of each parameter group


class _Part(NamedTuple):
    """Something that has a state of its own, and may refuse it."""

    name: str
    save: Callable[[], Any]
    load: Callable[[Any], object]


_OWNED = frozenset({"params", "lr", "initial_lr"})
"""Entries of a parameter group that are not the optimizer's to change."""


class Rescue:
    """Keeps snapshots of a run in host memory, and goes back to one when the loss is not finite or explodes.

    Call :meth:`step` after every ``scheduler.step``. After trouble it restores model, optimizer and scheduler in
    place, cuts the learning rate, and training goes on with the batches that come next: data and random numbers are
    not rewound, and the scheduler's count of steps is not either, so that a known horizon still ends where it should.
    Trouble is what the scheduler calls NON_FINITE or EXPLOSION (the paper family knows the first only). Two snapshots
    are held: the newest that was followed by five losses without trouble is restored, and the older one if that has
    been tried. What has not changed between them, a frozen base for one, is held once. When the optimizer gets other
    parameter groups, or the scheduler loads a state, the next :meth:`step` begins anew with a snapshot of then.

    All parameters and buffers go back, trained or not, in a checkpoint or not, and those that the optimizer alone
    has. A buffer that is in no checkpoint and has got another shape since is a cache, and stays. Of the optimizer, its
    state goes back and what it keeps in its parameter groups. Everything goes back, or nothing.

    An explosion that is there again right after going back is not of the model's making: there were bad batches, or the
    data have changed. So it goes on for twenty steps, and then goes back once more, with the learning rate of then: bad
    batches are over by that time, and what they did is undone. If it explodes again, that is let be.

    Args:
        model: What is trained.
        optimizer: Its optimizer, with any parameter groups.
        scheduler: A :class:`greedylr.GreedyLR`.
        every: Steps between snapshots. Each copies everything to the host.
        factor: What the learning rate is multiplied by after going back, in (0, 1].
        most: Rescues in a row, without a new snapshot in between, after which it gives up.
        also: Further objects with ``state_dict`` and ``load_state_dict``: an average of the weights, a ``GradScaler``.
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
        recorder: Marked | None = None,
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
        self._seen = scheduler.last_epoch  # the last step that was observed
        self._loaded = False  # whether a state was loaded since the last snapshot
        self._snapshots: list[_Snapshot] = []
        self._snapshots.append(self._snapshot())
        self._unsubscribe = scheduler.subscribe(self)

    def watch(self, scheduler: Any) -> None:
        """Take note of a state that was loaded; called by the scheduler. Snapshots from before are of another run."""
        if scheduler.last_epoch != self._seen:
            self._seen, self._loaded, self._trouble = scheduler.last_epoch, True, None

    def __call__(self, decision: Decision) -> None:
        """Observe one decision."""
        self._seen = decision.step
        if decision.action is Action.NON_FINITE or (decision.action is Action.EXPLOSION and not self._let_be):
            self._trouble = decision

    def step(self) -> bool:
        """Take a snapshot if it is time; go back to one if there was trouble.

        Returns:
            Whether it has gone back.

        Raises:
            RescueError: If that has been done too often in a row, if there is no snapshot of the model and parameter
                groups as they are now, or if one of ``also`` refuses its state. Nothing has changed then.
            ValueError: From the recorder, if it was closed. Nothing has changed then either.
        """
        if not self._snapshots:  # closed
            return False
        step = self._scheduler.last_epoch
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            return self._go_back(trouble, step)
        if self._loaded or self._snapshots[-1].uninitialised or self._snapshots[-1].groups != _sizes(self._optimizer):
            self._snapshots, self._again = [], None
            self._snapshots = [self._snapshot()]
            self._loaded, self._in_a_row, self._back_at, self._let_be = False, 0, -1, False
            return False
        if self._again is not None:
            due, snapshot = self._again
            if step < due:
                return False
            self._restore(snapshot, step, 1.0, "once more, bad batches may be over")
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
        impossible = self._impossible()
        if impossible:
            raise RescueError(f"cannot go back at step {step} ({cause}, loss {trouble.loss:g}): {impossible}")
        sound = [one for one in self._snapshots if step - one.step >= MARGIN]
        chosen = (sound or self._snapshots)[-1 if self._in_a_row == 0 else 0]
        # One cut more for each rescue in a row: what did not help is not tried again.
        self._restore(chosen, step, self._factor ** (self._in_a_row + 1), cause)
        self._again = None
        self._in_a_row += 1
        # What was taken in between is on the way to the trouble.
        self._snapshots = [one for one in self._snapshots if one.step <= chosen.step]
        return True

    def _impossible(self) -> str:
        """Reason for having no snapshot to go back to; empty if there is one."""
        now, before = _sizes(self._optimizer), self._snapshots[-1]
        if self._loaded:
            return "a state was loaded, and the snapshots are from before. Make the Rescue when all states are loaded"
        if before.uninitialised:
            return "the model had lazy parameters when the snapshot was taken. Run it once before the Rescue is made"
        if before.groups != now:
            return (
                f"the optimizer has parameter groups of {now} parameters, and had {before.groups} at the last "
                f"snapshot, step {before.step}. Call step() of the Rescue after groups were added and before the next "
                f"loss"
            )
        return ""

    def _mark(self, name: str, why: str) -> None:
        if self._recorder is not None:
            self._recorder.mark(name, why=why)

    def _snapshot(self) -> _Snapshot:
        before = self._snapshots[-1].tensors if self._snapshots else {}
        tensors = self._tensors()
        return _Snapshot(
            step=self._scheduler.last_epoch,
            groups=_sizes(self._optimizer),
            scheduler=self._scheduler.state_dict(),
            tensors={name: _kept(one, before.get(name)) for name, one in tensors.items() if not is_lazy(one)},
            uninitialised=any(map(is_lazy, tensors.values())),
            others=[_on_host(part.save()) for part in self._parts()],
            optimizer={key: _on_host(state) for key, state in self._optimizer.state.items()},
            settings=[_on_host(_settings(group)) for group in self._optimizer.param_groups],
        )

    def _modules(self) -> list[torch.nn.Module]:
        return [self._model, *(one for one in self._also if isinstance(one, torch.nn.Module))]

    def _tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, and what the optimizer alone has; each once, whatever shares it."""
        named: list[tuple[str, Tensor]] = []
        for number, module in enumerate(self._modules()):
            prefix = f"also[{number - 1}]." if number else ""
            named += [(prefix + name, one) for name, one in (*module.named_parameters(), *module.named_buffers())]
        named += [(f"optimizer[{number}]", one) for number, one in enumerate(_parameters(self._optimizer))]
        first: dict[Any, str] = {}
        return {name: one for name, one in named if first.setdefault(_memory(one), name) == name}

    def _parts(self) -> list[_Part]:
        """State that is not in tensors: other stateful objects, and extra state of modules."""
        others = [one for one in self._also if not isinstance(one, torch.nn.Module)]
        parts = [_Part(type(one).__name__, one.state_dict, one.load_state_dict) for one in others]
        for module in self._modules():
            for one in module.modules():
                if type(one).get_extra_state is not torch.nn.Module.get_extra_state:
                    parts.append(_Part(type(one).__name__, one.get_extra_state, one.set_extra_state))
        return parts

    @torch.no_grad()
    def _restore(self, snapshot: _Snapshot, now: int, factor: float, cause: str) -> None:
        present, parts = self._tensors(), self._parts()
        self._check_layout(snapshot, present, len(parts), now)
        with _all_or_nothing(now) as load:
            for part, state in zip(parts, snapshot.others):
                load(part, state)
            self._mark("rescue", f"{cause}: back to step {snapshot.step}")
        # Nothing raises from here on.
        for name, kept in snapshot.tensors.items():
            tensor = present.get(name)
            if tensor is not None and tensor.shape == kept.shape:  # else it is a cache
                _write(tensor, kept)
        state = self._optimizer.state
        for key in [key for key in state if key not in snapshot.optimizer]:
            del state[key]
        for key, saved in snapshot.optimizer.items():
            _put_back(state[key], saved, getattr(key, "device", torch.device("cpu")))
        for group, saved in zip(self._optimizer.param_groups, snapshot.settings):
            _put_back(group, saved, torch.device("cpu"), keep=_OWNED)
        self.last, self._back_at = snapshot.step, now
        self._scheduler.go_back(snapshot.scheduler, factor)

    def _check_layout(self, snapshot: _Snapshot, present: dict[str, Tensor], parts: int, now: int) -> None:
        """Raise if the model has become another since: then nothing can go back."""
        caches = self._caches()
        before = {name: tuple(one.shape) for name, one in snapshot.tensors.items() if name not in caches}
        after = {name: tuple(one.shape) for name, one in present.items() if name not in caches}
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if changed or parts != len(snapshot.others):
            name = changed[0] if changed else "the extra state of its modules"
            raise RescueError(
                f"cannot go back at step {now}: {name} was {before.get(name, 'not there')} at the snapshot, step "
                f"{snapshot.step}, and is {after.get(name, 'not there')} now. Make a new Rescue when the model changes"
            )

    def _caches(self) -> set[str]:
        """Buffers that are in no checkpoint."""
        return {
            (f"also[{number - 1}]." if number else "") + (f"{path}.{name}" if path else name)
            for number, module in enumerate(self._modules())
            for path, one in module.named_modules()
            for name in one._non_persistent_buffers_set
        }


@contextlib.contextmanager
def _all_or_nothing(now: int) -> Iterator[Callable[[_Part, Any], None]]:
    """Loads states; if anything raises within, all that were loaded are put back as they were."""
    loaded: list[tuple[_Part, Any]] = []

    def load(part: _Part, state: Any) -> None:
        loaded.append((part, _on_host(part.save())))
        try:
            part.load(_on_host(state))  # A copy: some keep what they are given.
        except Exception as error:
            raise RescueError(
                f"cannot go back at step {now}: {part.name} refused its own state ({type(error).__name__}: {error})"
            ) from error

    try:
        yield load
    except Exception as error:
        lost = []
        for part, before in reversed(loaded):
            try:
                part.load(before)
            except Exception:
                lost.append(part.name)
        if not isinstance(error, RescueError):
            raise
        kept = f"Nothing has been restored, but {', '.join(lost)} may be changed" if lost else "Nothing was restored"
        raise RescueError(f"{error}. {kept}") from error.__cause__


def _memory(tensor: Tensor) -> Any:
    """Equal for tensors that are the same numbers in the same memory."""
    if type(tensor) not in _PLAIN or is_lazy(tensor) or tensor.layout is not torch.strided or not tensor.numel():
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


_PLAIN = (Tensor, torch.nn.Parameter)


def _kept(tensor: Tensor, before: Tensor | None) -> Tensor:
    """A copy in host memory; the one from before if nothing has changed."""
    present = tensor.detach().cpu()
    if before is not None and _equal(present, before):
        return before
    return present.clone() if tensor.device.type == "cpu" else present


def _write(tensor: Tensor, kept: Tensor) -> None:
    for dimension, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[dimension]:  # expanded: the same memory many times
            tensor, kept = tensor.narrow(dimension, 0, 1), kept.narrow(dimension, 0, 1)
    # What was made in inference mode can be written there only.
    with torch.inference_mode() if tensor.is_inference() else torch.no_grad():
        tensor.copy_(kept)


def _equal(a: Tensor, b: Tensor) -> bool:
    return type(a) in _PLAIN and a.layout is b.layout is torch.strided and a.dtype is b.dtype and torch.equal(a, b)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in _OWNED}


def _put_back(
    present: dict[str, Any], saved: dict[str, Any], device: torch.device, keep: frozenset[str] = frozenset()
) -> None:
    for name in [name for name in present if name not in saved and name not in keep]:
        del present[name]
    for name, value in saved.items():
        there = present.get(name)
        if isinstance(value, Tensor) and isinstance(there, Tensor) and there.shape == value.shape:
            there.copy_(value)  # In place: captured and compiled optimizers hold on to their tensors.
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
