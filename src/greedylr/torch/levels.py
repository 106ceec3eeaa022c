"""Losses compared with their own domain's: what is left when the composition of the batches is taken out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MEMORY = 50
"""Losses of a domain that its level is a running mean of."""


_ENOUGH = 10  # losses of a new domain after which its level and spread are known


class Levels:
    r"""The running level and spread of each domain, and one common level that moves with them.

    A loss :math:`\ell` of domain :math:`d` is passed on as

    .. math:: R + (\ell - L_d) \, S / s_d,

    with the domain's level :math:`L_d` and standard deviation :math:`s_d` from before it, and :math:`S^2` the mean of
    all domains' variances, weighed by their shares of the steps: a domain that is noisier must not look like a spike.
    The common level changes only as the domains' levels do, each weighed by its share,

    .. math:: R \leftarrow R + \tfrac{n_d}{n} \, (L_d^\text{new} - L_d),

    as a price index does, so that neither a change of composition nor a new domain moves it. The first ten losses of a
    domain that joins others are passed on as :math:`R`.

    Args:
        by: Name of the column of the batch that holds the domain.

    Example:
        Two domains far apart, none of which improves:

        >>> levels = Levels("domain")
        >>> [levels.correct(loss, {"domain": name}) for loss, name in [(1.0, "a"), (1.0, "a"), (5.0, "b"), (5.0, "b")]]
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, by: str) -> None:
        if not isinstance(by, str) or not by:
            raise ValueError(f"level_by must be the name of a column of the batch, got {by!r}")
        self.by = by
        self._levels: dict[str, list[float]] = {}  # level, variance and count of each
        self._common = 0.0

    def correct(self, loss: float, batch: Mapping[str, Any] | None) -> float:
        """The loss without its domain's level; what is not finite is passed on, and changes no level.

        Raises:
            ValueError: If the batch does not name its domain.
        """
        if batch is None or self.by not in batch:
            raise ValueError(f"level_by={self.by!r} needs step(loss, batch={{{self.by!r}: ...}}), got batch={batch!r}")
        if not math.isfinite(loss):
            return loss
        name = str(batch[self.by])
        known = self._levels.get(name)
        if known is None:
            if not self._levels:
                self._common = loss
            self._levels[name] = [loss, 0.0, 1.0]
            return self._common
        level, variance, count = known
        difference = loss - level
        corrected = self._common
        if len(self._levels) == 1:
            corrected += difference
        elif count >= _ENOUGH:
            corrected += difference * (math.sqrt(self._variance() / variance) if variance > 0 else 1.0)
        known[2] = count = count + 1.0
        weight = 1.0 / min(count, MEMORY)
        known[0] = level + weight * difference
        # Around the level from before, which is that much off itself.
        known[1] = variance + weight * (difference * difference * (1 - weight) - variance)
        share = count / sum(seen for _, _, seen in self._levels.values())
        self._common += share * (known[0] - level)
        return corrected

    def _variance(self) -> float:
        """Of all domains that are known well, each weighed by its share of the steps."""
        known = [(variance, count) for _, variance, count in self._levels.values() if count >= _ENOUGH]
        return sum(variance * count for variance, count in known) / sum(count for _, count in known)

    def state_dict(self) -> dict[str, Any]:
        """Plain data, valid in strict JSON."""
        return {
            "by": self.by,
            "levels": {name: list(one) for name, one in self._levels.items()},
            "common": self._common,
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Levels:
        """What :meth:`state_dict` was taken of."""
        self = cls(state["by"])
        self._levels = {name: [float(x) for x in one] for name, one in state["levels"].items()}
        self._common = float(state["common"])
        return self
