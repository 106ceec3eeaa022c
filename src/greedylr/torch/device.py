"""The rule on tensors: on the device without a host read, and for many runs at once."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

import torch
from torch import Tensor

from greedylr.control import batched, plain
from greedylr.control.default.config import DefaultConfig
from greedylr.control.families import Config


class DeviceController:
    """Independent controllers, one per element, whose learning rates live in one tensor on one device.

    Nothing is read by the host, so :meth:`step` can be captured in a CUDA graph. Every tensor keeps its
    storage: a view of :attr:`lrs` handed to an optimizer follows along.

    Args:
        initial_lrs: Initial learning rates, any shape, floating. In float64 the decisions equal those of the scalar
            rule exactly; in float32 they are as good, but not the same bits.
        config: Settings that all controllers share; its bounds must be numbers. None: the default family's defaults.

    Raises:
        ValueError: If ``initial_lrs`` is not floating, or a bound is given per parameter group.

    Example:
        A learning rate that never leaves the device:

        >>> model = torch.nn.Linear(2, 1)
        >>> controller = DeviceController(torch.tensor([1e-3]))
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=controller.lrs[0], capturable=False)
        >>> loss = model(torch.ones(2)).square().mean()
        >>> loss.backward(); optimizer.step(); optimizer.zero_grad()
        >>> controller.step(loss)
        >>> [action.name for action in controller.actions()]
        ['WARMING_UP']
    """

    def __init__(self, initial_lrs: Tensor, config: Config | None = None) -> None:
        if not initial_lrs.is_floating_point():
            raise ValueError(f"initial_lrs must be a floating tensor, got {initial_lrs.dtype}")
        self.config: Config = DefaultConfig() if config is None else config
        started = batched.start(self.config, initial_lrs.detach().clone(), torch)
        # Each its own storage: several start as views of one.
        self._state = type(started)(*(tensor.clone() for tensor in started))
        self._codes = torch.zeros_like(initial_lrs, dtype=torch.int64)

    @property
    def lrs(self) -> Tensor:
        """The learning rates for the next optimizer step; the same tensor always, to be read only."""
        return self._state.lrs  # type: ignore[no-any-return]

    @torch.no_grad()
    def step(self, losses: Tensor, slopes: Tensor | None = None) -> None:
        """Take in one loss per controller.

        Args:
            losses: On the same device, of the shape of :attr:`lrs` or one that broadcasts to it.
            slopes: What each would fall by in one optimizer step at the initial learning rate, likewise; NaN where it
                is not known. None: nowhere. See :func:`greedylr.torch.gradient.norm_order`.
        """
        losses = losses.detach().to(self.lrs.dtype).expand_as(self.lrs)
        if slopes is not None:
            slopes = slopes.detach().to(self.lrs.dtype).expand_as(self.lrs)
        after, codes = batched.advance(self.config, self._state, losses, torch, slopes)
        for kept, new in zip(self._state, after):
            kept.copy_(new)
        self._codes.copy_(codes)

    def actions(self) -> list[Any]:
        """Action after the last loss in each controller, as nested lists of :class:`Action`; waits for the device."""
        named: list[Any] = _named(self._codes.tolist())
        return named

    def state_dict(self) -> dict[str, Any]:
        """Settings and state: plain data and tensors; loads with ``torch.load(weights_only=True)``."""
        return {"config": plain.to_dict(self.config), "state": dict(zip(self._state._fields, self._state))}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, into the same storage.

        Raises:
            ValueError: If it is of another family, for another number of controllers, or damaged. Nothing has changed
                then.
        """
        plain.entries("DeviceController", state_dict, {"config", "state"})
        saved = state_dict["state"]
        if not isinstance(saved, Mapping) or set(saved) != set(self._state._fields):
            raise ValueError(f"a state of another family cannot be loaded: its state is {short(saved)}")
        config = plain.from_dict(type(self.config), state_dict["config"])
        batched.check_config(config)
        for name, kept in zip(self._state._fields, self._state):
            value = saved[name]
            if not isinstance(value, Tensor) or value.dtype != kept.dtype:
                raise ValueError(f"the saved {name} must be a tensor of {kept.dtype}, got {short(value)}")
            if value.shape != kept.shape:
                raise ValueError(f"the saved {name} has shape {tuple(value.shape)}, not {tuple(kept.shape)}")
            if name in ("initial_lrs", "lrs", "scale") and not ((value >= 0) & value.isfinite()).all():
                raise ValueError(f"the saved {name} must be finite numbers of at least 0, got {value!r}")
        self.config = config
        for name, kept in zip(self._state._fields, self._state):
            kept.copy_(saved[name])


def _named(codes: Any) -> Any:
    return [_named(code) for code in codes] if isinstance(codes, list) else batched.ACTIONS[codes]
