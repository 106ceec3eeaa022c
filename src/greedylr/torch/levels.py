"""Losses compared with their own domain's: what is left when the composition of the batches is taken out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MEMORY = 50
"""Losses of a domain that its level is a running mean of."""


MOST = 1000
"""Domains at most: a column of more values is a number, or a name for every batch."""

_ENOUGH = 10  # losses of a new domain after which its level and spread are known

OUTLIER = 6.0
"""Standard deviations from a domain's level from which a loss is an outlier, as ``spike`` is of the rule."""

_LEAST = 0.01  # share of the level that its deviation is taken to be at least, as in the rule
_LARGEST = 1e140  # of a difference, whose square is added up


class Levels:
    r"""The running level and spread of each domain, and one common level that moves with them.

    A loss :math:`\ell` of domain :math:`d` is passed on as

    .. math:: R + (\ell - L_d) \, S / s_d,

    with the domain's level :math:`L_d` and standard deviation :math:`s_d` from before it, and :math:`S^2` the mean of
    all domains' variances, weighed by their shares of the steps: a domain that is noisier must not look like a spike.
    The common level changes only as the domains' levels do, each weighed by its share,

    .. math:: R \leftarrow R + \tfrac{n_d}{n} \, (L_d^\text{new} - L_d),

    as a price index does, so that neither a change of composition nor a new domain moves it.

    What the rule would leave out of its averages is left out of these: a loss that is not finite, and one more than
    six standard deviations from its domain's level, but for the second in a row of its domain. The median of the first
    ten losses of a domain is its level, and the eight nearest to that give its spread. Until then the first three are
    passed on as :math:`R`, the others as :math:`R` and what they are off the median so far; where there is no other
    domain, all as they are.

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
        self._domains: dict[str, _Domain] = {}
        self._common = 0.0
        # Running sums, as there may be many domains: losses of those that are known, and their variances times their
        # losses, now and at most since it was added up.
        self._seen, self._spread, self._summed = 0.0, 0.0, 0.0

    def correct(self, loss: float, batch: Mapping[str, Any] | None) -> float:
        """The loss without its domain's level; what is not finite is passed on, and changes no level.

        Raises:
            ValueError: If the batch does not name its domain, or the column turns out to have too many.
            TypeError: If the domain is a number that is not whole.
        """
        if batch is None or self.by not in batch:
            raise ValueError(f"level_by={self.by!r} needs step(loss, batch={{{self.by!r}: ...}}), got batch={batch!r}")
        name = batch[self.by]
        if not isinstance(name, str):
            self._refuse_measure(name)
        if not math.isfinite(loss):
            return loss
        name = str(name)
        domain = self._domains.get(name)
        if domain is None:
            if len(self._domains) >= MOST:
                raise ValueError(
                    f"level_by={self.by!r} has more than {MOST:,} domains, {name!r} is the next: it looks like a "
                    "number or a name for every batch, not like a domain; put it into buckets"
                )
            if len(self._domains) == 1 and not self._seen:
                (other,) = self._domains.values()
                self._common = statistics.median(other.first)
            domain = self._domains[name] = _Domain()
        if domain.count < _ENOUGH:
            return self._meet(domain, loss)
        difference = min(max(loss - domain.level, -_LARGEST), _LARGEST)
        alone = len(self._domains) == 1
        corrected = loss if alone else self._common + difference * self._scale(domain)
        deviation = max(math.sqrt(domain.variance), _LEAST * abs(domain.level))
        outlier = abs(difference) > OUTLIER * deviation
        if not outlier or domain.outlier:
            self._learn(domain, difference)
        domain.outlier = outlier
        return corrected

    def _meet(self, domain: _Domain, loss: float) -> float:
        """One of the first losses of a domain."""
        alone = len(self._domains) == 1
        corrected = loss
        if not alone:
            # Not one value again and again, which the rule would take for a loss without noise.
            known = statistics.median(domain.first) if len(domain.first) >= _FEW else loss
            corrected = self._common + min(max(loss - known, -_LARGEST), _LARGEST)
        domain.first.append(loss)
        domain.count += 1.0
        if domain.count == _ENOUGH:
            domain.level = statistics.median(domain.first)
            squares = sorted(min(abs(one - domain.level), _LARGEST) ** 2 for one in domain.first)
            domain.variance = _NORMAL * statistics.fmean(squares[:_NEAR])
            domain.first.clear()
            self._seen += _ENOUGH
            self._take(domain.variance * domain.count, 0.0)
            if alone:
                self._common = domain.level
        return corrected

    def _scale(self, domain: _Domain) -> float:
        return math.sqrt(self._spread / self._seen / domain.variance) if domain.variance > 0 else 1.0

    def _learn(self, domain: _Domain, difference: float) -> None:
        before = domain.variance * domain.count
        domain.count += 1.0
        weight = 1.0 / min(domain.count, MEMORY)
        domain.level += weight * difference
        # Around the level from before, which is that much off itself.
        domain.variance += weight * (difference * difference * (1 - weight) - domain.variance)
        self._seen += 1.0
        self._take(domain.variance * domain.count, before)
        self._common += domain.count / self._seen * weight * difference

    def _take(self, new: float, old: float) -> None:
        """Keep the sum of the variances of all domains that are known well, each times its losses."""
        self._spread += new - old
        self._summed = max(self._summed, self._spread)
        # What is left when almost all is taken away is a difference of roundings: add up anew.
        if not self._spread > 1e-6 * self._summed:
            self._add_up()

    def _add_up(self) -> None:
        known = [domain for domain in self._domains.values() if domain.count >= _ENOUGH]
        self._spread = self._summed = sum((domain.variance * domain.count for domain in known), 0.0)

    def _refuse_measure(self, domain: Any) -> None:
        of_one = getattr(domain, "item", None) if getattr(domain, "shape", None) == () else None
        number = domain if of_one is None else of_one()
        if isinstance(number, float) and not number.is_integer():
            raise TypeError(
                f"level_by={self.by!r} must hold the name of a domain, a label or a whole number, got {domain!r}: "
                "put a measure into buckets"
            )

    def state_dict(self) -> dict[str, Any]:
        """Plain data, valid in strict JSON, with the same entries whatever was seen."""
        domains = self._domains.values()
        return {
            "by": self.by,
            "names": list(self._domains),
            "levels": [domain.level for domain in domains],
            "variances": [domain.variance for domain in domains],
            "counts": [domain.count for domain in domains],
            "outliers": [domain.outlier for domain in domains],
            "first": [list(domain.first) for domain in domains],
            "common": self._common,
            "sums": [self._spread, self._summed],
        }

    @classmethod
    def of(cls, state: Any) -> Levels:
        """The levels that :meth:`state_dict` was taken of.

        Raises:
            ValueError: If it is something else, or damaged.
        """
        fresh = cls("domain").state_dict()
        if not isinstance(state, Mapping) or set(state) != set(fresh):
            raise ValueError(f"levels in the saved state must have the entries {sorted(fresh)}, got {state!r}")
        self = cls(state["by"])
        columns = [state[name] for name in ("names", "levels", "variances", "counts", "outliers", "first")]
        if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            raise ValueError("levels in the saved state must be lists with an item for each domain")
        sums = state["sums"]
        if not isinstance(sums, list) or len(sums) != 2:
            raise ValueError(f"sums in the saved levels must be two numbers, got {sums!r}")
        self._common, self._spread, self._summed = (_number("common and sums", one) for one in (state["common"], *sums))
        if min(self._spread, self._summed) < 0:
            raise ValueError(f"sums in the saved levels must be at least 0, got {sums!r}")
        for name, level, variance, count, outlier, first in zip(*columns):
            domain = _Domain(_number("level", level), _number("variance", variance), _number("count", count))
            if not isinstance(name, str) or not isinstance(outlier, bool) or not isinstance(first, list):
                raise ValueError(f"a domain in the saved levels must have a name, got {name!r}, {outlier!r}, {first!r}")
            domain.outlier, domain.first = outlier, [_number("first", one) for one in first]
            if domain.variance < 0 or domain.count < 1 or len(first) != (0 if count >= _ENOUGH else count):
                raise ValueError(f"domain {name!r} in the saved levels has variance {variance!r} and count {count!r}")
            self._domains[name] = domain
        self._seen = sum((domain.count for domain in self._domains.values() if domain.count >= _ENOUGH), 0.0)
        return self


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} in the saved levels must be a finite number, got {value!r}")
    return float(value)


@dataclass(slots=True)
class _Domain:
    level: float = 0.0
    variance: float = 0.0
    count: float = 0.0
    outlier: bool = False  # the last one
    first: list[float] = field(default_factory=list)  # until it is known


_FEW = 3  # losses of which one outlier is not the median
_NEAR = 8
_NORMAL = 2.28
"""The variance of normal noise over the mean square of the eight of ten that are nearest to their median."""
