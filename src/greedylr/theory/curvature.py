"""Largest curvature of a model's loss, by Lanczos iteration on Hessian–vector products.

The products come from PyTorch's double backward, the eigenvalue from ARPACK through SciPy. No matrix is formed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LossFunction = Callable[[torch.nn.Module, Any], Tensor]
"""``loss_fn(model, batch)``: the scalar loss, say ``lambda model, batch: model(**batch).loss``."""

_VECTORS = 6
"""Lanczos vectors that are held at once: with 20, as ARPACK would have it, hardly fewer products are needed."""


@dataclass(frozen=True)
class Sharpness:
    r"""Largest curvature of a loss, with its error and cost.

    Attributes:
        value: Largest eigenvalue of the Hessian of the mean loss over all batches, :math:`L`. What stability is about,
            and theorems on gradient descent.
        largest: Largest eigenvalue over the batches, each by itself, :math:`L_{\max} \ge L`. What theorems on
            stochastic gradient descent ask for, where each batch is one example or one micro-batch.
        error: Residual :math:`\lVert H v - \lambda v \rVert` of ``value``: an eigenvalue lies this near or nearer.
        products: Hessian–vector products of one batch that were made. Each costs a forward pass and about three
            backward passes.
    """

    value: float
    largest: float
    error: float
    products: int


def sharpness(
    model: torch.nn.Module,
    loss_fn: LossFunction,
    *batches: Any,
    tolerance: float = 1e-3,
    most_products: int = 200,
    seed: int = 0,
) -> Sharpness:
    r"""Largest eigenvalue of the Hessian of the loss with respect to the parameters that require gradients.

    .. math:: L = \lambda_{\max} \Bigl( \tfrac1n \sum_{i=1}^n \nabla^2 \ell_i(x) \Bigr), \qquad
              L_{\max} = \max_i \lambda_{\max} \bigl( \nabla^2 \ell_i(x) \bigr).

    The model is left as it was: parameters, gradients, buffers, mode and random state. Every product sees the same
    dropout mask. Attention and recurrent layers run without their fused kernels, which have no second derivative.

    Args:
        model: Any module, in the mode in which it is to be examined.
        loss_fn: Called with the model and a batch, returns the scalar loss.
        *batches: One or several batches, whatever ``loss_fn`` takes.
        tolerance: Relative error at which the iteration ends, at least 0.
        most_products: Products for each eigenvalue after which it gives up.
        seed: Seed of the starting vector.

    Raises:
        ValueError: If there is no batch or no parameter, an argument is outside its range, or the loss is no finite
            scalar.
        RuntimeError: If an eigenvalue did not meet the tolerance within the products that were allowed.

    Example:
        For :math:`\tfrac12 (3 x_1^2 + x_2^2)` the curvatures are 3 and 1:

        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> weights = torch.tensor([3.0, 1.0])
        >>> result = sharpness(model, lambda model, batch: (batch * model.weight.square()).sum() / 2, weights)
        >>> round(result.value, 3)
        3.0

    References:
        Ghorbani, Krishnan, Xiao, *An Investigation into Neural Net Optimization via Hessian Eigenvalue Density*,
        arXiv:1901.10159.
    """
    if not batches:
        raise ValueError("batches must be at least one batch, got none")
    parameters = trained(model)
    mean = largest_eigenvalue(hessian(model, loss_fn, batches, parameters), parameters, tolerance, most_products, seed)
    each = [
        largest_eigenvalue(hessian(model, loss_fn, [batch], parameters), parameters, tolerance, most_products, seed)
        for batch in (batches if len(batches) > 1 else ())
    ]
    return Sharpness(
        value=mean.value,
        largest=max([mean.value, *(eigenvalue.value for eigenvalue in each)]),
        error=mean.error,
        products=mean.products * len(batches) + sum(eigenvalue.products for eigenvalue in each),
    )


class Eigenvalue(NamedTuple):
    """The largest eigenvalue of a symmetric operator, as found by :func:`largest_eigenvalue`."""

    value: float
    error: float
    products: int


Product = Callable[[list[Tensor]], list[Tensor]]
"""A symmetric linear map of vectors that have the parameters' shapes."""


def trained(model: torch.nn.Module) -> Sequence[Tensor]:
    """The parameters that require gradients.

    Raises:
        ValueError: If there are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("model must have parameters that require gradients, got none")
    return parameters


def hessian(
    model: torch.nn.Module, loss_fn: LossFunction, batches: Sequence[Any], parameters: Sequence[Tensor]
) -> Product:
    """The product of a vector with the Hessian of the mean loss over the batches."""

    def product(vector: list[Tensor]) -> list[Tensor]:
        total: list[Tensor] = []
        for batch in batches:
            with torch.enable_grad(), _left_alone(model), sdpa_kernel(SDPBackend.MATH):
                loss = loss_fn(model, batch)
                _check_loss(loss)
                gradients = torch.autograd.grad(
                    loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True
                )
                along = sum((gradient * part).sum() for gradient, part in zip(gradients, vector))
                # A loss that is linear in all parameters has no second derivative to take.
                assert isinstance(along, Tensor)
                if along.requires_grad:
                    seconds = torch.autograd.grad(along, parameters, allow_unused=True, materialize_grads=True)
                else:
                    seconds = tuple(torch.zeros_like(parameter) for parameter in parameters)
            # What two gradients share may be one tensor, and is not to be added to.
            total = [sum_ + second for sum_, second in zip(total, seconds)] if total else list(seconds)
            del gradients, along, seconds
        return [sum_ / len(batches) for sum_ in total]

    return product


def largest_eigenvalue(
    product: Product, parameters: Sequence[Tensor], tolerance: float, most_products: int, seed: int
) -> Eigenvalue:
    """The largest eigenvalue of a symmetric operator, not the one of largest magnitude.

    Raises:
        ValueError: If an argument is outside its range.
    """
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a number with 0 <= tolerance < inf, got {tolerance!r}")
    if isinstance(most_products, bool) or not isinstance(most_products, int) or most_products < 1:
        raise ValueError(f"most_products must be an integer of at least 1, got {most_products!r}")
    size = sum(parameter.numel() for parameter in parameters)
    made = 0

    def matvec(vector: NDArray[Any]) -> NDArray[Any]:
        nonlocal made
        made += 1
        return _flat(product(_shaped(vector, parameters)))

    exact = all(parameter.dtype == torch.float64 for parameter in parameters)
    dtype = np.float64 if exact else np.float32
    if size <= 2 * _VECTORS:
        matrix = np.stack([matvec(row) for row in np.eye(size, dtype=dtype)])
        values, basis = np.linalg.eigh((matrix + matrix.T) / 2)
    else:
        start = np.random.default_rng(seed).standard_normal(size).astype(dtype)
        if not matvec(start).any():  # A random vector is mapped to zero by the zero matrix alone.
            return Eigenvalue(0.0, 0.0, made)
        # A restart makes about half as many products as there are vectors.
        restarts = max(1, 2 * most_products // _VECTORS)
        operator = LinearOperator((size, size), matvec=matvec, dtype=dtype)
        try:
            values, basis = eigsh(operator, 1, which="LA", v0=start, ncv=_VECTORS, maxiter=restarts, tol=tolerance)
        except ArpackNoConvergence as error:
            raise RuntimeError(
                f"the largest eigenvalue was not found to a relative error of {tolerance:g} in {made} products: "
                "allow more with most_products, or a larger tolerance"
            ) from error
    value, eigenvector = values[-1], basis[:, -1].astype(dtype)
    residual = matvec(eigenvector) - value * eigenvector
    return Eigenvalue(float(value), float(np.linalg.norm(residual)), made)


def _flat(tensors: Sequence[Tensor]) -> NDArray[Any]:
    return np.concatenate([tensor.detach().reshape(-1).cpu().numpy() for tensor in tensors])


def _shaped(vector: NDArray[Any], parameters: Sequence[Tensor]) -> list[Tensor]:
    flat = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1))
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    return [part.view(p.shape).to(device=p.device, dtype=p.dtype) for part, p in zip(parts, parameters)]


def _check_loss(loss: Tensor) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise ValueError(f"loss_fn must return a scalar tensor, got {loss!r}")
    if not loss.isfinite():
        raise ValueError(f"the loss must be finite, got {loss.item():g}")


@contextmanager
def _left_alone(model: torch.nn.Module) -> Iterator[None]:
    """Undo what a forward pass leaves behind: running statistics, and the random numbers that it used."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), torch.backends.cudnn.flags(enabled=False):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
