r"""Guarantee of stochastic gradient descent for exactly the learning rates that a run used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Recorded(Protocol):
    """A recorded run, as :class:`greedylr.pulse.Trace` is."""

    @property
    def steps(self) -> NDArray[np.int64]:
        """The steps of the rows, ascending."""

    @property
    def lrs(self) -> NDArray[np.float64]:
        """Learning rates after each of them, ``[row, group]``."""


@dataclass(frozen=True)
class Bound:
    r"""Guarantee of the theorem.

    Attributes:
        value: Bound on :math:`\mathbb E f(\bar x_T) - f^*`; None where the condition on the learning rates is violated,
            so that the theorem says nothing.
        distance_term: The part of ``value`` that comes from the start.
        noise_term: The part that comes from the gradient noise.
        highest: The condition: every learning rate must be below this, :math:`1 / (2 L_{\max})`.
        violating: Share of the steps whose learning rate is not.
        first_violation: The first such step, from 1; None if there is none.
        holding: The bound for the run up to there; None if the first step violates the condition already. Equal to
            ``value`` if no step does.
    """

    value: float | None
    distance_term: float | None
    noise_term: float | None
    highest: float
    violating: float
    first_violation: int | None
    holding: float | None


def convergence_bound(
    trace_or_lrs: Recorded | ArrayLike, *, smoothness: float, distance: float, noise: float = 0.0
) -> Bound:
    r"""Bound on the loss that SGD theory gives for a sequence of learning rates.

    For :math:`f = \tfrac1n \sum_i f_i` with every :math:`f_i` convex and :math:`L_{\max}`-smooth, SGD from
    :math:`x_0` with learning rates :math:`0 < \gamma_t < 1 / (2 L_{\max})` and
    :math:`p_t = \gamma_t (1 - 2 \gamma_t L_{\max})` satisfies

    .. math:: \mathbb E f(\bar x_T) - f^* \le \frac{\lVert x_0 - x^* \rVert^2}{2 \sum_t p_t}
              + \sigma^2 \, \frac{\sum_t \gamma_t^2}{\sum_t p_t},
              \qquad \bar x_T = \frac{\sum_t p_t x_t}{\sum_t p_t}.

    The bound is on that average of the iterates, not on the last one, and for learning rates that were fixed before the
    run. A rule that listens to the loss chooses them on the way: the value then says what the theorem guarantees for
    the same learning rates used again. For the rule itself it holds with :math:`p_t` and :math:`\gamma_t` replaced by
    their bounds, see ``docs/theory.md``, which has the proofs.

    Args:
        trace_or_lrs: A recorded run, or the learning rate of every optimizer step, shape ``(steps,)``.
        smoothness: :math:`L_{\max} > 0`, the largest smoothness constant of any :math:`f_i`, see
            :attr:`greedylr.theory.Sharpness.largest`. In the unit of the loss over that of the parameters squared.
        distance: :math:`\lVert x_0 - x^* \rVert \ge 0`.
        noise: :math:`\sigma \ge 0` with :math:`\sigma^2 = \mathbb E_i \lVert \nabla f_i(x^*) \rVert^2`, the gradient
            noise at the solution.

    Returns:
        The bound, or where its condition is violated.

    Raises:
        ValueError: If an argument is outside its range, if there is no step, or if the run has several parameter
            groups, of which the theorem does not know.

    Example:
        >>> convergence_bound([0.25] * 100, smoothness=1.0, distance=2.0).value
        0.16
        >>> bound = convergence_bound([0.25, 0.4, 0.6, 0.25], smoothness=1.0, distance=2.0)
        >>> bound.value, bound.first_violation, bound.violating
        (None, 3, 0.25)

    References:
        Garrigos and Gower, *Handbook of Convergence Theorems for (Stochastic) Gradient Methods*, arXiv:2301.11235,
        the theorem on SGD for convex sums with variable step sizes.
    """
    if not 0 < smoothness < math.inf:
        raise ValueError(f"smoothness must be a number with 0 < smoothness < inf, got {smoothness!r}")
    for name, value in (("distance", distance), ("noise", noise)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number with 0 <= {name} < inf, got {value!r}")
    lrs, counts = _learning_rates(trace_or_lrs)
    highest = 1 / (2 * smoothness)
    violating = lrs >= highest
    if not violating.any():
        distance_term, noise_term = _terms(lrs, counts, smoothness, distance, noise)
        total = distance_term + noise_term
        return Bound(total, distance_term, noise_term, highest, 0.0, None, total)
    first = int(violating.argmax())
    before = _terms(lrs[:first], counts[:first], smoothness, distance, noise) if first else None
    return Bound(
        value=None,
        distance_term=None,
        noise_term=None,
        highest=highest,
        violating=float(counts[violating].sum() / counts.sum()),
        first_violation=int(counts[:first].sum()) + 1,
        holding=None if before is None else sum(before),
    )


def _terms(
    lrs: NDArray[np.float64], counts: NDArray[np.float64], smoothness: float, distance: float, noise: float
) -> tuple[float, float]:
    weights = float((counts * lrs * (1 - 2 * lrs * smoothness)).sum())
    if not weights > 0:  # all learning rates are 0
        return math.inf if distance else 0.0, 0.0
    return distance**2 / (2 * weights), noise**2 * float((counts * lrs * lrs).sum()) / weights


def _learning_rates(trace_or_lrs: Recorded | ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Learning rates, and how many steps each was used for.

    A trace has those after each step: each is used at the next, and the first is beside them where it is known.
    """
    lrs = np.asarray(getattr(trace_or_lrs, "lrs", trace_or_lrs), dtype=np.float64)
    if lrs.ndim == 2 and lrs.shape[1] == 1:
        lrs = lrs[:, 0]
    if lrs.ndim == 2:
        raise ValueError(f"the theorem is about one learning rate, the run has {lrs.shape[1]} parameter groups")
    if lrs.ndim != 1 or not lrs.size:
        raise ValueError(f"trace_or_lrs must hold the learning rate of at least one step, got shape {lrs.shape}")
    if not np.all((lrs >= 0) & np.isfinite(lrs)):
        raise ValueError("learning rates must be finite numbers of at least 0")
    steps = getattr(trace_or_lrs, "steps", None)
    if steps is None:
        return lrs, np.ones_like(lrs)
    first = np.asarray(getattr(trace_or_lrs, "first_lrs", [math.nan]), dtype=np.float64)
    if math.isfinite(first[0]):
        lrs = np.concatenate([first[:1], lrs[:-1]])
    # Of a long run not every step has a row: a learning rate holds until the next row.
    return lrs, np.diff(np.asarray(steps, dtype=np.float64), prepend=0.0)
