r"""The learning rate at which an optimizer leaves stability, at a point of a model's loss.

Near a point, training follows the linear system that the Hessian :math:`H` and the optimizer's present state make. A
direction with curvature :math:`h` grows from step to step once the learning rate is above a limit that is
:math:`c / h`, with a constant :math:`c` of the optimizer; the stiffest direction is the first to go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from greedylr.theory.curvature import LossFunction, hessian, largest_eigenvalue


@dataclass(frozen=True)
class Stability:
    r"""Learning rate and limit of stability.

    Attributes:
        lrs: Learning rate of each parameter group now.
        limits: Learning rate of each group at which the optimizer leaves stability, if all change in proportion.
            Infinite where the loss curves downwards in every direction: nothing oscillates there.
        share: ``lrs`` over ``limits``: above 1 training is unstable.
        error: Residual of ``share``: an eigenvalue lies this near or nearer.
        products: Hessian–vector products that were made.
    """

    lrs: tuple[float, ...]
    limits: tuple[float, ...]
    share: float
    error: float
    products: int


def stability(
    model: torch.nn.Module,
    loss_fn: LossFunction,
    batch: Any,
    optimizer: Optimizer,
    *,
    tolerance: float = 1e-3,
    most_products: int = 200,
    seed: int = 0,
) -> Stability:
    r"""The learning rate at which ``optimizer`` leaves stability here, and where the present one stands.

    With :math:`H` the Hessian, :math:`P` the optimizer's diagonal preconditioner and :math:`\gamma` its learning rates,
    an oscillation that changes its sign at every step neither grows nor shrinks where

    .. math:: \lambda_{\max} \bigl( D^{1/2} H D^{1/2} \bigr) = 1, \qquad D = \gamma P^{-1} / c,

    and grows above. ``share`` is the left side. The constant :math:`c` is

    ================================================  =====================  =======================================
    optimizer                                         :math:`P`              :math:`c`
    ================================================  =====================  =======================================
    SGD, momentum :math:`\beta`, dampening :math:`d`  1                      :math:`2 (1 + \beta) / (1 - d)`
    SGD, Nesterov                                     1                      :math:`2 (1 + \beta) / (1 + 2 \beta)`
    Adam, AdamW                                       :math:`\sqrt{\hat v}`  :math:`2 (1 + \beta_1) / (1 - \beta_1)`
    RMSprop, momentum :math:`\beta`                   :math:`\sqrt v`        :math:`2 (1 + \beta)`
    Adagrad                                           :math:`\sqrt{\sum}`    2
    ================================================  =====================  =======================================

    For Adam with :math:`\beta_1 = 0.9` that is 38 over the preconditioned curvature. The preconditioner is the present
    one, taken as fixed, with :math:`\epsilon` and bias corrections as the optimizer has them. Weight decay adds to
    :math:`H` (for AdamW, :math:`\gamma w (1 + \beta_1) / (1 - \beta_1)` to ``share``'s operator, over :math:`c`).

    The loss should be that of a large batch: of a small one the limit is that of this batch. Above the limit the loss
    of a network rises, but may come down again where there is less curvature.

    Args:
        model: Any module, in the mode in which it is to be examined.
        loss_fn: Called with the model and the batch, returns the scalar loss.
        batch: Whatever ``loss_fn`` takes.
        optimizer: One of those above, after at least one step if it has a preconditioner.
        tolerance: As for :func:`greedylr.theory.sharpness`, like those that follow.
        most_products: Products after which it gives up.
        seed: Seed of the starting vector.

    Raises:
        TypeError: If the optimizer is another one.
        ValueError: If the optimizer has a preconditioner and has made no step yet, if it maximizes, if none of its
            parameters requires a gradient, or where :func:`greedylr.theory.sharpness` raises it.
        RuntimeError: As for :func:`greedylr.theory.sharpness`.

    Example:
        Gradient descent on a parabola of curvature 4 is stable below 2 / 4:

        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> result = stability(model, lambda model, batch: 2 * model.weight.square().sum(), None, optimizer)
        >>> [round(limit, 6) for limit in result.limits], round(result.share, 6)
        ([0.5], 0.2)

    References:
        Cohen et al., *Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability*, arXiv:2103.00065;
        *Adaptive Gradient Methods at the Edge of Stability*, arXiv:2207.14484.
    """
    scales = [scale for group in optimizer.param_groups for scale in _scales(optimizer, group)]
    if not scales:
        raise ValueError("the optimizer must have a parameter that requires a gradient, got none")
    parameters, roots, decays = zip(*[(scale.parameter, scale.step.sqrt(), scale.decay) for scale in scales])
    del scales  # The step sizes are as large as the model.
    curved = hessian(model, loss_fn, [batch], parameters)

    def scaled(vector: list[Tensor]) -> list[Tensor]:
        image = curved([root * part for root, part in zip(roots, vector)])
        for own, root, decay, part in zip(image, roots, decays, vector):
            own.mul_(root).add_(decay * part)
        return image

    found = largest_eigenvalue(scaled, parameters, tolerance, most_products, seed)
    lrs = tuple(float(group["lr"]) for group in optimizer.param_groups)
    limits = tuple(lr / found.value if found.value > 0 else math.inf for lr in lrs)
    return Stability(lrs, limits, found.value, found.error, found.products)


class _Scale(NamedTuple):
    """Step of the optimizer per gradient, for one parameter, over its constant of stability."""

    parameter: Tensor
    step: Tensor  # D, of the parameter's shape
    decay: Tensor | float  # what weight decay adds to the operator


def _scales(optimizer: Optimizer, group: dict[str, Any]) -> Iterator[_Scale]:
    scale_of = _KNOWN.get(type(optimizer))
    if scale_of is None:
        known = ", ".join(kind.__name__ for kind in _KNOWN)
        raise TypeError(f"optimizer must be one of torch's {known}, got {type(optimizer).__name__}")
    if group.get("maximize"):
        raise ValueError("optimizer must minimize, got one with maximize=True")
    stepped = type(optimizer) is SGD or any(optimizer.state.get(parameter) for parameter in group["params"])
    if not stepped:
        raise ValueError("the optimizer must have made a step: its preconditioner comes from the gradients so far")
    for parameter in group["params"]:
        if parameter.requires_grad:
            state = optimizer.state.get(parameter, {})
            # Without a state it never had a gradient, and is not moved.
            moved = bool(state) or type(optimizer) is SGD
            yield scale_of(parameter, group, state) if moved else _Scale(parameter, torch.zeros_like(parameter), 0.0)


def _sgd(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> _Scale:
    beta = group["momentum"]
    pushed = 1 + 2 * beta if group["nesterov"] else 1 - (group["dampening"] if beta else 0.0)
    step = torch.full_like(parameter, float(group["lr"]) * pushed / (2 * (1 + beta)))
    return _Scale(parameter, step, group["weight_decay"] * step)


def _adam(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> _Scale:
    (beta1, beta2), lr, made = map(float, group["betas"]), float(group["lr"]), float(state["step"])
    square = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    preconditioner = (square / (1 - beta2**made)).sqrt() + group["eps"]
    step = lr * (1 - beta1) / (2 * (1 + beta1) * (1 - beta1**made)) / preconditioner
    decoupled = group.get("decoupled_weight_decay", False)
    return _Scale(parameter, step, group["weight_decay"] * (lr / 2 if decoupled else step))


def _adamw(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> _Scale:
    return _adam(parameter, {**group, "decoupled_weight_decay": True}, state)


def _rmsprop(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> _Scale:
    square = state["square_avg"]
    if group["centered"]:
        square = square - state["grad_avg"].square()
    step = float(group["lr"]) / (2 * (1 + group["momentum"])) / (square.sqrt() + group["eps"])
    return _Scale(parameter, step, group["weight_decay"] * step)


def _adagrad(parameter: Tensor, group: dict[str, Any], state: dict[str, Any]) -> _Scale:
    lr = float(group["lr"]) / (1 + float(state["step"]) * group["lr_decay"])
    step = lr / 2 / (state["sum"].sqrt() + group["eps"])
    return _Scale(parameter, step, group["weight_decay"] * step)


_KNOWN: dict[type[Optimizer], Callable[[Tensor, dict[str, Any], dict[str, Any]], _Scale]] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adamw,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}
