"""Losses compared with their own domain's: what is left when the composition of the batches is taken out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MEMORY = 50
"""Losses of a domain that its level is a running mean of."""


MOST = 1000
"""Domains at most: a column of more values is a number, or a name for every batch."""

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
        by: Name of the column of the batch that holds the domain: a label, or a whole number; a thousand at most.

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
        # Running sums, as there may be many domains: losses; those of domains that are known well, and their variances
        # times their losses, now and at most since it was added up.
        self._seen, self._known, self._spread, self._summed = 0.0, 0.0, 0.0, 0.0

    def correct(self, loss: float, batch: Mapping[str, Any] | None) -> float:
        """The loss without its domain's level; what is not finite is passed on, and changes no level.

        Raises:
            ValueError: If the batch does not name its domain, or the column turns out to have too many.
            TypeError: If the domain is a number that is not whole.
        """
        if batch is None or self.by not in batch:
            raise ValueError(f"level_by={self.by!r} needs step(loss, batch={{{self.by!r}: ...}}), got batch={batch!r}")
        domain = batch[self.by]
        if not isinstance(domain, str):
            self._refuse_measure(domain)
        if not math.isfinite(loss):
            return loss
        name = str(domain)
        known = self._levels.get(name)
        if known is None:
            if len(self._levels) >= MOST:
                raise ValueError(
                    f"level_by={self.by!r} has more than {MOST:,} domains, {name!r} is the next: it looks like a "
                    "number or a name for every batch, not like a domain; put it into buckets"
                )
            if not self._levels:
                self._common = loss
            self._levels[name] = [loss, 0.0, 1.0]
            self._seen += 1.0
            return self._common
        level, variance, count = known
        difference = loss - level
        corrected = self._common
        if len(self._levels) == 1:
            corrected += difference
        elif count >= _ENOUGH:
            corrected += difference * (math.sqrt(self._spread / self._known / variance) if variance > 0 else 1.0)
        known[2] = count = count + 1.0
        weight = 1.0 / min(count, MEMORY)
        known[0] = level + weight * difference
        # Around the level from before, which is that much off itself.
        known[1] = variance + weight * (difference * difference * (1 - weight) - variance)
        self._seen += 1.0
        if count >= _ENOUGH:
            self._take(known[1] * count, variance * (count - 1.0) if count > _ENOUGH else 0.0)
            self._known += 1.0 if count > _ENOUGH else count
        self._common += count / self._seen * (known[0] - level)
        return corrected

    def _take(self, new: float, old: float) -> None:
        """Keep the sum of the variances of all domains that are known well, each times its losses."""
        self._spread += new - old
        self._summed = max(self._summed, self._spread)
        # What is left when almost all is taken away is a difference of roundings: add up anew.
        if not self._spread > 1e-6 * self._summed:
            self._add_up()

    def _add_up(self) -> None:
        known = [(variance, count) for _, variance, count in self._levels.values() if count >= _ENOUGH]
        self._spread = self._summed = sum((variance * count for variance, count in known), 0.0)

    def _refuse_measure(self, domain: Any) -> None:
        of_one = getattr(domain, "item", None) if getattr(domain, "shape", None) == () else None
        number = domain if of_one is None else of_one()
        if isinstance(number, float) and not number.is_integer():
            raise TypeError(
                f"level_by={self.by!r} must hold the name of a domain, a label or a whole number, got {domain!r}: "
                "put a measure into buckets"
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain data, valid in strict JSON."""
        return {
            "by": self.by,
            "levels": {name: list(one) for name, one in self._levels.items()},
            "common": self._common,
            "sums": [self._spread, self._summed],
        }

    @classmethod
    def of(cls, state: dict[str, Any]) -> Levels:
        """What :meth:`state_dict` was taken of."""
        self = cls(state["by"])
        self._levels = {name: [float(x) for x in one] for name, one in state["levels"].items()}
        self._common = float(state["common"])
        counts = [count for _, _, count in self._levels.values()]
        self._seen = sum(counts, 0.0)
        self._known = sum((count for count in counts if count >= _ENOUGH), 0.0)
        self._add_up()
        if "sums" in state:  # to the last digit
            self._spread, self._summed = (float(x) for x in state["sums"])
        return self
