r"""Growth of the distance to the minimum under the core rule, on quadratics.

The core rule compares each loss with the one before: :math:`\gamma \leftarrow \gamma / F` where the loss fell,
:math:`\gamma \leftarrow \gamma \cdot F` where it did not. Under plain gradient descent on
:math:`f(x) = \tfrac12 \sum_i \lambda_i x_i^2` everything about it can be computed: in one dimension in closed form, in
several by simulation. Proofs: ``docs/theory.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import spence  # type: ignore[import-untyped]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GrowthRate:
    r"""Growth of :math:`\lVert x \rVert` per step, in natural logarithms: negative where the rule converges.

    Attributes:
        rates: Growth per step from each start, shape ``(starts,)``.
        overshoots: Natural logarithm of the largest loss seen over the first, from each start.
    """

    rates: Floats
    overshoots: Floats

    @property
    def mean(self) -> float:
        """Mean over the starts."""
        return float(self.rates.mean())

    @property
    def worst(self) -> float:
        """Largest over the starts."""
        return float(self.rates.max())

    @property
    def diverging(self) -> float:
        """Share of the starts from which the distance grows."""
        return float((self.rates > 0).mean())


def cycle_growth_rate(factor: float, u: ArrayLike) -> Floats:
    r"""Growth per step of the core rule's cycle in one dimension.

    After a climb the learning rate alternates between two values. With :math:`u = \gamma \lambda` the larger of them,
    :math:`2 < u \le 2/F`, two steps multiply the distance by :math:`(u - 1) \, |1 - F u|`, so that

    .. math:: \Lambda(F, u) = \tfrac12 \ln \bigl( (u - 1) \, |1 - F u| \bigr).

    Args:
        factor: :math:`F` in (0, 1).
        u: The larger learning rate of the cycle times the curvature, in :math:`(2, 2/F]`; any shape.

    Returns:
        The growth per step, in the shape of ``u``; :math:`-\infty` at :math:`u = 1/F`, where one step lands on the
        minimum.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> float(cycle_growth_rate(0.25, 8.0).round(3))  # grows sevenfold in two steps
        0.973
    """
    _check_factor("factor", factor)
    larger = np.asarray(u, dtype=np.float64)
    if not np.all((larger > 2) & (larger <= 2 / factor)):
        raise ValueError(f"u must be in (2, 2 / factor] = (2, {2 / factor:g}], got {u!r}")
    with np.errstate(divide="ignore"):
        return np.asarray(np.log((larger - 1) * np.abs(1 - factor * larger)) / 2)


def mean_growth_rate(factor: float) -> float:
    r"""Growth per step of the core rule in one dimension, averaged over initial learning rates, in closed form.

    The initial learning rate decides which cycle is reached, as the rule moves :math:`\ln u` in steps of
    :math:`\ln(1/F)`. If :math:`\ln \gamma_0` is uniform over one such step,

    .. math::
        \bar\Lambda(F) = \frac{1}{2 \ln(1/F)} \int_2^{2/F} \ln\bigl((u-1)|1-Fu|\bigr) \frac{du}{u}
                       = \frac{\operatorname{Re} \operatorname{Li}_2(2F) - \operatorname{Re} \operatorname{Li}_2(2/F)}
                              {2 \ln(1/F)},

    with the dilogarithm :math:`\operatorname{Li}_2`. Negative where the rule converges on average.

    Args:
        factor: :math:`F` in (0, 1).

    Raises:
        ValueError: If ``factor`` is outside (0, 1).

    Example:
        >>> [round(mean_growth_rate(F), 3) for F in (0.25, 0.5, 0.95)]
        [-0.15, -0.3, -0.001]
    """
    _check_factor("factor", factor)
    return (_dilogarithm(2 * factor) - _dilogarithm(2 / factor)) / (2 * math.log(1 / factor))


def growth_rate(
    factor: float,
    eigenvalues: Sequence[float] = (1.0,),
    *,
    cut: float | None = None,
    starts: int = 100,
    steps: int = 3000,
    noise: float = 0.0,
    seed: int = 0,
) -> GrowthRate:
    r"""Growth per step of the core rule under gradient descent on a quadratic, by simulation.

    The distance is kept as a direction and a logarithm, so that neither convergence nor divergence leaves the range of
    floating point. Initial learning rates are spread evenly, on the logarithmic scale, over one step of the rule below
    :math:`2 / \lambda_\max`; initial points are drawn from the sphere.

    Args:
        factor: :math:`F` in (0, 1): a raise divides by it.
        eigenvalues: Curvatures :math:`\lambda_i > 0`, one for each dimension.
        cut: What a cut multiplies by, in (0, 1). None: ``factor``, as in the core rule. Smaller: it cuts harder than
            it raises.
        starts: Number of starts, at least 1.
        steps: Steps from each; the growth is taken over the second half.
        noise: Standard deviation of multiplicative gradient noise: every component of every gradient is multiplied by
            :math:`1 + \text{noise} \cdot \mathcal N(0, 1)`.
        seed: Seed of the initial points and of the noise.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        The published rule diverges from nearly every second start; one that cuts twice as hard as it raises, from none:

        >>> growth_rate(0.9).diverging, growth_rate(0.9, cut=0.9**2).diverging
        (0.49, 0.0)
    """
    _check_factor("factor", factor)
    down = factor if cut is None else cut
    _check_factor("cut", down)
    curvatures = np.asarray(eigenvalues, dtype=np.float64)
    if curvatures.ndim != 1 or not curvatures.size or not np.all((curvatures > 0) & np.isfinite(curvatures)):
        raise ValueError(f"eigenvalues must be positive numbers, one for each dimension, got {eigenvalues!r}")
    for name, value, least in (("starts", starts, 1), ("steps", steps, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be a number with 0 <= noise < inf, got {noise!r}")
    random = np.random.default_rng(seed)
    point = random.standard_normal((starts, curvatures.size))
    point /= np.linalg.norm(point, axis=1, keepdims=True)
    log_lr = np.log(2 / curvatures.max()) + math.log(factor) * (np.arange(starts) + 0.5) / starts
    log_norm, halfway = np.zeros(starts), np.zeros(starts)
    before = first = highest = _log_loss(point, curvatures)
    for step in range(steps):
        gradient = curvatures * point
        if noise:
            gradient *= 1 + noise * random.standard_normal(point.shape)
        point = point - np.exp(log_lr)[:, None] * gradient
        # A start that lands on the minimum to the last bit stays there: as far away as the smallest float.
        norm = np.maximum(np.linalg.norm(point, axis=1), np.finfo(np.float64).tiny)
        point /= norm[:, None]
        log_norm += np.log(norm)
        loss = 2 * log_norm + _log_loss(point, curvatures)
        log_lr += np.where(loss < before, -math.log(factor), math.log(down))
        before, highest = loss, np.maximum(highest, loss)
        if step == steps // 2 - 1:
            halfway = log_norm.copy()
    return GrowthRate((log_norm - halfway) / (steps - steps // 2), highest - first)


def _log_loss(point: Floats, curvatures: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log((curvatures * point * point).sum(axis=1) / 2))


def _dilogarithm(x: float) -> float:
    """Real part of the dilogarithm of a positive number."""
    if x <= 1:
        return float(spence(1 - x))
    return math.pi**2 / 3 - math.log(x) ** 2 / 2 - float(spence(1 - 1 / x))


def _check_factor(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be a number with 0 < {name} < 1, got {value!r}")
