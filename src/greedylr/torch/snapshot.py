"""Snapshot of a training run in host memory: everything that its steps change, and the way back to it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


class SnapshotError(RuntimeError):
    """A snapshot does not fit the training run any more."""


class Snapshot(NamedTuple):
    """Copy of everything that the steps of a training run change.

    Attributes:
        groups: Number of parameters of each parameter group.
        tensors: Parameters and buffers by name, each once.
        uninitialised: Whether there were lazy parameters that no forward pass had given a shape.
        others: States of the other objects.
        optimizer: State of the optimizer, by parameter.
        settings: Settings of each parameter group, without its learning rate.
    """

    groups: list[int]
    tensors: dict[str, Tensor]
    uninitialised: bool
    others: list[Any]
    optimizer: dict[Any, dict[str, Any]]
    settings: list[dict[str, Any]]


class _Part(NamedTuple):
    """Something that has a state of its own, and may refuse it."""

    name: str
    save: Callable[[], Any]
    load: Callable[[Any], object]


_OWNED = frozenset({"params", "lr", "initial_lr"})
"""Entries of a parameter group that are not the optimizer's to change."""


class Training:
    """Model, optimizer and other stateful objects of a training run.

    A snapshot has all parameters and buffers, trained or not, in a checkpoint or not, and those that the optimizer
    alone has; the optimizer's state, and what it keeps in its parameter groups, but for the learning rate; the states
    of the other objects. A buffer that is in no checkpoint and has got another shape since is a cache, and stays.

    Args:
        model: What is trained.
        optimizer: Its optimizer, with any parameter groups.
        also: Further objects with ``state_dict`` and ``load_state_dict``: an average of the weights, a ``GradScaler``.

    Example:
        >>> model = torch.nn.Linear(1, 1)
        >>> training = Training(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> snapshot, weight = training.snapshot(), model.weight.item()
        >>> _ = model.weight.data.zero_()
        >>> training.restore(snapshot)
        >>> model.weight.item() == weight
        True
    """

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, also: Iterable[Any] = ()) -> None:
        self._model, self._optimizer, self._also = model, optimizer, tuple(also)

    @property
    def groups(self) -> list[int]:
        """Number of parameters of each parameter group, as they are now."""
        return [len(group["params"]) for group in self._optimizer.param_groups]

    def snapshot(self, before: Snapshot | None = None) -> Snapshot:
        """Copy everything as it is now.

        Args:
            before: An earlier snapshot; tensors that have not changed since are held once.
        """
        earlier = {} if before is None else before.tensors
        tensors = self._tensors()
        return Snapshot(
            groups=self.groups,
            tensors={name: _kept(one, earlier.get(name)) for name, one in tensors.items() if not is_lazy(one)},
            uninitialised=any(map(is_lazy, tensors.values())),
            others=[_on_host(part.save()) for part in self._parts()],
            optimizer={key: _on_host(state) for key, state in self._optimizer.state.items()},
            settings=[_on_host(_settings(group)) for group in self._optimizer.param_groups],
        )

    @torch.no_grad()
    def restore(self, snapshot: Snapshot, commit: Callable[[], object] = lambda: None) -> None:
        """Set everything, in place, to what it was at a snapshot; all of it or nothing.

        Args:
            snapshot: What :meth:`snapshot` returned.
            commit: Called when nothing of this can fail any more; if it raises, nothing has changed.

        Raises:
            SnapshotError: If the model is another than at the snapshot, or one of the other objects refuses its state.
        """
        present, parts = self._tensors(), self._parts()
        self._check_layout(snapshot, present, len(parts))
        with _all_or_nothing() as load:
            for part, state in zip(parts, snapshot.others):
                load(part, state)
            commit()
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

    def _check_layout(self, snapshot: Snapshot, present: dict[str, Tensor], parts: int) -> None:
        """Raise if the model has become another since: then nothing can go back."""
        caches = self._caches()
        before = {name: tuple(one.shape) for name, one in snapshot.tensors.items() if name not in caches}
        after = {name: tuple(one.shape) for name, one in present.items() if name not in caches}
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if changed or parts != len(snapshot.others):
            name = changed[0] if changed else "the extra state of its modules"
            raise SnapshotError(
                f"{name} was {before.get(name, 'not there')} at the snapshot, and is {after.get(name, 'not there')} now"
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
def _all_or_nothing() -> Iterator[Callable[[_Part, Any], None]]:
    """Loads states; if anything raises within, all that were loaded are put back as they were."""
    loaded: list[tuple[_Part, Any]] = []

    def load(part: _Part, state: Any) -> None:
        loaded.append((part, _on_host(part.save())))
        try:
            part.load(_on_host(state))  # A copy: some keep what they are given.
        except Exception as error:
            raise SnapshotError(f"{part.name} refused its own state ({type(error).__name__}: {error})") from error

    try:
        yield load
    except Exception as error:
        lost = []
        for part, before in reversed(loaded):
            try:
                part.load(before)
            except Exception:
                lost.append(part.name)
        if not isinstance(error, SnapshotError):
            raise
        kept = f"Nothing has been restored, but {', '.join(lost)} may be changed" if lost else "Nothing was restored"
        raise SnapshotError(f"{error}. {kept}") from error.__cause__


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
