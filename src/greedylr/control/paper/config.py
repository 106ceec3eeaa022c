"""Settings of the published algorithm: one frozen, validated record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from greedylr.control.settings import (
    Bound,
    bounds_of,
    reject,
    take_bound,
    take_choice,
    take_flag,
    take_int,
    take_real,
)


@dataclass(frozen=True, slots=True)
class PaperConfig:
    r"""Settings of the published algorithm, with the names, defaults and order of its implementation.

    One observation: smooth → in cooldown? count it down and clear both counters → else in warmup?
    likewise → else compare with the reference and count → raise if better more than ``patience``
    times in a row, else cut if worse more than ``patience`` times in a row:

    .. math:: \gamma \leftarrow \min(\gamma / F, \gamma_{\max}) \quad\text{or}\quad
              \gamma \leftarrow \max(\gamma \cdot F, \gamma_{\min}).

    Args:
        mode: ``"min"`` for a loss, ``"max"`` for a reward.
        factor: :math:`F` in (0, 1). Small is aggressive.
        patience: Observations in a row that count for nothing: 10 acts on the 11th.
        threshold: Changes smaller than this do not count as better; at least 0, below 1 if relative.
        threshold_mode: ``"abs"``: in the unit of the loss. ``"rel"``: as a share of \|reference\|.
        cooldown: Observations ignored after a cut.
        warmup: Observations ignored after a raise. Not a learning-rate ramp.
        min_lr: Lower bound of the learning rate; a number, or one per parameter group.
        max_lr: Upper bound of the learning rate; a number, or one per parameter group.
        eps: Changes of the learning rate that are not larger than this are not applied.
        smooth: Whether to compare the average of the last losses instead of the last loss.
        window_size: How many losses that average is over.
        reset_start: After this many cut attempts in a row with every group at its lower bound, the
            learning rates return to their initial values and the state is cleared.
        compare: ``"best"``: better means better than the best so far. ``"previous"``: better than the
            previous observation, as in the core rule.

    Raises:
        ValueError: If an argument is outside what is stated above.
        TypeError: If an argument is not of the kind stated above.

    References:
        arXiv:2512.14527, algorithm with safeguards; defaults of ``transformers.optimization.GreedyLR``.
    """

    bounds: ClassVar[tuple[str, str]] = ("min_lr", "max_lr")
    hears_slope: ClassVar[bool] = False

    mode: Literal["min", "max"] = "min"
    factor: float = 0.95
    patience: int = 10
    threshold: float = 1e-6
    threshold_mode: Literal["abs", "rel"] = "abs"
    cooldown: int = 0
    warmup: int = 0
    min_lr: Bound = 1e-3
    max_lr: Bound = 1.0
    eps: float = 1e-8
    smooth: bool = False
    window_size: int = 50
    reset_start: int = 500
    compare: Literal["best", "previous"] = "best"

    def __post_init__(self) -> None:
        """Validate, and turn numbers of other libraries into Python's, bounds per group into tuples."""
        take_choice(self, "mode", ("min", "max"))
        take_real(self, "factor", "0 < factor < 1", lambda x: 0 < x < 1)
        take_int(self, "patience", 0)
        take_choice(self, "threshold_mode", ("abs", "rel"))
        if self.threshold_mode == "rel":
            take_real(self, "threshold", "0 <= threshold < 1 (relative)", lambda x: 0 <= x < 1)
        else:
            take_real(self, "threshold", "0 <= threshold < inf", lambda x: x >= 0)
        take_int(self, "cooldown", 0)
        take_int(self, "warmup", 0)
        take_bound(self, "min_lr", "0 <= min_lr", lambda x: x >= 0)
        take_bound(self, "max_lr", "0 < max_lr", lambda x: x > 0, infinite=True)
        for low, high in _pairs(self.min_lr, self.max_lr):
            if low > high:
                reject("min_lr", self.min_lr, f"at most max_lr = {self.max_lr!r}, group by group")
        take_real(self, "eps", "0 <= eps < inf", lambda x: x >= 0)
        take_flag(self, "smooth")
        take_int(self, "window_size", 1)
        take_int(self, "reset_start", 1)
        take_choice(self, "compare", ("best", "previous"))

    @classmethod
    def core(cls, factor: float = 0.95, mode: Literal["min", "max"] = "min") -> PaperConfig:
        """The core rule: compare with the previous loss at every step, no safeguards, no bounds.

        Without bounds it need not converge even on a quadratic; it is here to be studied.

        Example:
            >>> PaperConfig.core(0.5).patience
            0
        """
        return cls(
            mode=mode,
            factor=factor,
            patience=0,
            threshold=0.0,
            min_lr=0.0,
            max_lr=math.inf,
            eps=0.0,
            compare="previous",
        )


def _pairs(low: Bound, high: Bound) -> list[tuple[float, float]]:
    lengths = {len(bound) for bound in (low, high) if not isinstance(bound, (int, float))}
    if len(lengths) == 2:
        raise ValueError(f"min_lr and max_lr must be given for as many groups, got {low!r} and {high!r}")
    groups = lengths.pop() if lengths else 1
    return list(zip(bounds_of(low, groups), bounds_of(high, groups)))
