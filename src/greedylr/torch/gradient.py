"""The slope of the loss: how far it would fall in one optimizer step if it fell as steeply as it begins to.

The only extra work is a norm of the gradient after each optimizer step: no further pass, nothing stored, and the host
waits for no device.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsFloat

import torch
from torch import Tensor
from torch.optim import Optimizer

_SIGN_LIKE = frozenset({"Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Lion"})
_STEEPEST = frozenset({"SGD"})

_ROUND = 1e-5

Number = float | Tensor
"""Number on the CPU: a few of them cost less than as many tensors with one element."""


def norm_order(optimizer: Optimizer) -> int | None:
    r"""The norm of the gradient :math:`g` that the slope is made of, by what the optimizer is or is derived from.

    Args:
        optimizer: Any optimizer.

    Returns:
        1 for Adam's family and Lion, whose steps are about the learning rate :math:`\eta` in each coordinate: the loss
        falls by :math:`\eta \lVert g \rVert_1`. 2 for SGD, whose steps with momentum :math:`\beta` and dampening
        :math:`d` add up to :math:`\eta g (1 - d) / (1 - \beta)`: it falls by that times :math:`\lVert g \rVert_2^2`.
        None for any other: its steps are not known, and neither is the slope.

    Example:
        >>> weights = [torch.nn.Parameter(torch.zeros(1))]
        >>> norm_order(torch.optim.AdamW(weights)), norm_order(torch.optim.Adagrad(weights))
        (1, None)
    """
    names = {kind.__name__ for kind in type(optimizer).__mro__}
    return 1 if names & _SIGN_LIKE else 2 if names & _STEEPEST else None


def per_unit(order: int, group: dict[str, Any]) -> float:
    """The slope of a parameter group, per unit of its learning rate and of its norm (squared, if of order 2)."""
    if group.get("maximize"):
        return math.nan  # It climbs: the loss that it is told is not the one that it lowers.
    if order == 1:
        return 1.0
    momentum = group.get("momentum", 0.0)
    return (
        float((1 - (group.get("dampening", 0.0) if momentum else 0.0)) / (1 - momentum)) if momentum < 1 else math.nan
    )


_SMALL = 2**12  # Elements of a tensor up to which one call for all tensors is faster.
_PART = 2**20


class Slope:
    """The slope of the loss at every step of one optimizer, for one scheduler.

    A clipped gradient does not tell what its norm was: unless that is told, such a step has no slope. It shows in a
    norm that is a number of three digits, which by chance hardly any is.

    Args:
        optimizer: The optimizer, or one that wraps it as its attribute ``optimizer``, as Accelerate's does; its steps
            are followed for as long as this object lives.
        initial_lrs: Gives the initial learning rate of each parameter group.
    """

    def __init__(self, optimizer: Optimizer, initial_lrs: Callable[[], Sequence[float]]) -> None:
        wrapped = getattr(optimizer, "optimizer", None)
        optimizer = wrapped if isinstance(wrapped, Optimizer) else optimizer
        self._order = norm_order(optimizer)
        self._initial_lrs = initial_lrs
        self.latest: Number | None = None
        """The slope that is still to be taken, as if the gradient had not been clipped."""
        self._norm: Number | None = None
        self.listens = False
        """True while the slope is wanted."""
        if self._order is None:
            return
        this = weakref.ref(self)

        def measure(stepped: Any, *_: Any) -> None:
            slope = this()
            if slope is not None and slope.listens:
                slope._measure(stepped)

        # After the step: before it, there is no gradient yet where a closure makes it, and what a fused optimizer
        # unscales on its own is still scaled.
        optimizer.register_step_post_hook(measure)

    @torch.no_grad()
    def _measure(self, optimizer: Any) -> None:
        assert self._order is not None
        total: Number = 0.0
        squares: Number = 0.0
        self.latest = self._norm = None
        known = False
        for group, lr in zip(optimizer.param_groups, self._initial_lrs()):
            gradients = [weight.grad for weight in group["params"] if weight.grad is not None]
            if any(map(_is_part, group["params"])) or any(one.is_sparse or one.is_complex() for one in gradients):
                return
            for alike in _by_device(gradients):
                square = _norm(alike, 2) ** 2
                norm = square if self._order == 2 else _norm(alike, 1)
                total = _add(total, norm * (lr * per_unit(self._order, group)))
                squares = _add(squares, square)
                known = True
        if known:
            self.latest, self._norm = total, squares**0.5

    def take(self, unclipped: SupportsFloat | None = None) -> Number | None:
        """The slope of the step that was just made.

        Args:
            unclipped: Norm of the gradient before it was clipped; None: not known.

        Returns:
            A number, or a tensor with one element where the gradient is on a device; None if there was no step, or one
            of which nothing is known.

        Raises:
            TypeError: If ``unclipped`` is no number.
        """
        if unclipped is not None:  # What may raise comes before anything has changed.
            unclipped = whole(unclipped).detach() if isinstance(unclipped, Tensor) else _real(unclipped)
        latest, norm = self.latest, self._norm
        self.latest = self._norm = None
        if latest is None or norm is None:
            return None
        if unclipped is None:
            clipped = is_round(norm)
            if isinstance(clipped, Tensor):
                return torch.where(clipped, math.nan, latest)
            return math.nan if clipped else latest
        # The loss falls by the product of the gradient and the step, of which one was clipped.
        if isinstance(norm, Tensor):
            return latest * torch.clamp(torch.as_tensor(unclipped).to(norm.device) / norm, min=1.0).to(norm.dtype)
        return latest * max(float(unclipped) / norm, 1.0) if norm > 0 else latest

    def number(self, unclipped: SupportsFloat | None = None) -> float:
        """The slope of :meth:`take`, on the host; NaN if it is not known."""
        slope = self.take(unclipped)
        return math.nan if slope is None else float(slope)

    def peek(self) -> tuple[float, float] | None:
        """The measurement that is still to be taken, as :meth:`restore` wants it; waits for the device."""
        return None if self.latest is None or self._norm is None else (float(self.latest), float(self._norm))

    def restore(self, measured: tuple[float, float] | None) -> None:
        """Set what is taken next."""
        self.latest, self._norm = (None, None) if measured is None else measured


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or all of one that is spread over the ranks of a mesh (``torch.distributed.tensor``)."""
    gather = getattr(tensor, "full_tensor", None)
    gathered: Tensor = tensor if gather is None else gather()
    return gathered


def _is_part(weight: Tensor) -> bool:
    """True of a weight of which a rank has only a part and does not know (the first FSDP)."""
    return getattr(weight, "_fsdp_flattened", False) or type(weight).__name__ == "FlatParameter"


def _by_device(gradients: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    found: dict[tuple[torch.device, type], list[Tensor]] = {}
    for one in gradients:
        found.setdefault((one.device, type(one)), []).append(one)
    return found.values()


def _real(grad_norm: SupportsFloat) -> float:
    try:
        return float(grad_norm)
    except (TypeError, ValueError):
        raise TypeError(f"grad_norm must be a number or a tensor with one element, got {grad_norm!r}") from None


def _add(one: Number, other: Number) -> Number:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one + other.to(one.device)
    return one + other


def _norm(gradients: list[Tensor], order: int) -> Number:
    """Norm of all gradients as one vector, in single precision at least."""
    low = any(one.dtype in (torch.float16, torch.bfloat16) for one in gradients)
    if order == 1 and not low and type(gradients[0]) is Tensor and gradients[0].device.type == "cpu":
        small = [one for one in gradients if one.numel() <= _SMALL]
        if len(small) < len(gradients):
            rest = _norm(small, 1) if small else 0.0
            return rest + sum(_sum_of_absolutes(one) for one in gradients if one.numel() > _SMALL)
    each = torch._foreach_norm(gradients, order, **({"dtype": torch.float32} if low else {}))
    norm = whole(torch.linalg.vector_norm(torch.stack(each), order))
    return norm.item() if norm.device.type == "cpu" else norm


def _sum_of_absolutes(gradient: Tensor) -> float:
    """Norm of order 1 on the CPU, where torch's takes six times as long; in parts, to take little memory."""
    return sum(part.abs().sum().item() for part in torch.split(gradient.flatten(), _PART))


def is_round(norm: Number) -> bool | Tensor:
    """True of a norm that is a number of three digits but for rounding, as that of a clipped gradient is."""
    if isinstance(norm, Tensor):
        unit = 10.0 ** (norm.log10().floor() - 2)
        return (norm - (norm / unit).round() * unit).abs() <= _ROUND * norm
    if not 0 < norm < math.inf:
        return False
    digits = 10.0 ** (math.floor(math.log10(norm)) - 2) or norm
    return abs(norm - round(norm / digits) * digits) <= _ROUND * norm
