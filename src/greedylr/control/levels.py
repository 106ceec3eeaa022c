"""Losses compared with their own domain's: what is left when the composition of the batches is taken out."""

from __future__ import annotations

import math
import statistics
import sys
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
_HIGHEST = sys.float_info.max / 2  # of a loss: the mean of two is finite
_LONGEST = 2.0**53  # of a count


class Levels:
    r"""The running level and spread of each domain, and one common level that moves with them.

    A loss :math:`\ell` of domain :math:`d` is passed on as

    .. math:: R + (\ell - L_d) \, S / s_d,

    with the domain's level :math:`L_d` and standard deviation :math:`s_d` from before it: a domain that is noisier must
    not look like a spike. A deviation is taken to be at least a hundredth of the level, as in the rule. The common
    level and deviation are at first those of the first domain, and change only as the domains' do, each weighed by its
    share of the steps,

    .. math::
        R \leftarrow R + \tfrac{n_d}{n} \, (L_d^\text{new} - L_d) \, S / s_d, \qquad
        S \leftarrow S \, (s_d^\text{new} / s_d)^{n_d / n},

    as price indices do, so that neither a change of composition nor a new domain moves them.

    What the rule would leave out of its averages is left out of these: a loss that is not finite, and an outlier, more
    than six deviations from its domain's level. An outlier is passed on, but no level moves with it. Ten in a row are
    no outliers: their domain has moved, and is met anew.

    A domain is met with ten losses: their median is its level, and the eight nearest to that give its spread. The first
    three losses of a new domain are passed on as :math:`R`, the others as :math:`R` and what they are off the median so
    far, at most :math:`S` where that is known; where there is no other domain, all as they are.

    Args:
        by: Name of the column of the composition that holds the domain: a label, or a whole number; a thousand at most.

    Example:
        Two domains far apart, none of which improves:

        >>> levels = Levels("domain")
        >>> [levels.correct(loss, {"domain": name}) for loss, name in [(1.0, "a"), (1.0, "a"), (5.0, "b"), (5.0, "b")]]
        [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, by: str) -> None:
        if not isinstance(by, str) or not by:
            raise ValueError(f"level_by must be the name of a column of the composition, got {by!r}")
        self.by = by
        self._domains: dict[str, _Domain] = {}
        self._common, self._spread = 0.0, 0.0  # R and the square of S
        self._seen = 0.0  # losses of the domains that are known

    def correct(self, loss: float, composition: Mapping[str, Any] | None) -> float:
        """The loss without its domain's level; what is not finite is passed on, and changes no level.

        Raises:
            ValueError: If the batch does not name its domain, or the column turns out to have too many.
            TypeError: If the domain is a number that is not whole.
        """
        if composition is None or self.by not in composition:
            raise ValueError(
                f"level_by={self.by!r} needs step(loss, composition={{{self.by!r}: ...}}), got {composition!r}"
            )
        name = composition[self.by]
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
                self._common = statistics.median(other.aside)
            domain = self._domains[name] = _Domain()
        alone = len(self._domains) == 1
        if not domain.count:
            corrected = loss if alone else self._common + self._usual(loss - domain.centre(loss))
            self._set_aside(domain, loss)
            return corrected
        difference = _bounded(loss - domain.level)
        corrected = loss if alone else self._common + _bounded(difference * self._scale(domain))
        if abs(difference) > OUTLIER * math.sqrt(domain.spread):
            self._set_aside(domain, loss)
        else:
            domain.aside.clear()
            self._learn(domain, difference)
        return corrected

    def _set_aside(self, domain: _Domain, loss: float) -> None:
        """Keep a loss that no level moves with; the tenth in a row tells where the domain is."""
        domain.aside.append(min(max(loss, -_HIGHEST), _HIGHEST))
        if len(domain.aside) < _ENOUGH:
            return
        level = statistics.median(domain.aside)
        squares = sorted(_bounded(one - level) ** 2 for one in domain.aside)
        domain.aside.clear()
        self._move(domain, level, _NORMAL * statistics.fmean(squares[:_NEAR]), _ENOUGH)

    def _learn(self, domain: _Domain, difference: float) -> None:
        weight = 1.0 / min(domain.count + 1.0, MEMORY)
        # Around the level from before, which is that much off itself.
        variance = domain.variance + weight * (difference * difference * (1 - weight) - domain.variance)
        self._move(domain, domain.level + weight * difference, variance, 1)

    def _move(self, domain: _Domain, level: float, variance: float, losses: int) -> None:
        """Set what is known of a domain, after so many more losses, and let the common values follow."""
        met, before, spread, scale = domain.count > 0, domain.level, domain.spread, self._scale(domain)
        domain.level, domain.variance = level, variance
        domain.count += losses
        self._seen += losses
        share = domain.count / self._seen
        if met:
            self._common += share * _bounded(_bounded(level - before) * scale)
        elif len(self._domains) == 1:
            self._common = level
        if met and min(spread, domain.spread, self._spread) > 0:
            self._spread = min(self._spread * (domain.spread / spread) ** share, _LARGEST**2)
        elif not self._spread > 0:
            self._spread = domain.spread

    def _scale(self, domain: _Domain) -> float:
        return math.sqrt(self._spread / domain.spread) if min(self._spread, domain.spread) > 0 else 1.0

    def _usual(self, difference: float) -> float:
        """The difference, or as much of it as is usual: that of an unknown domain may be of another order."""
        most = math.sqrt(self._spread) if self._seen else _LARGEST
        return min(max(difference, -most), most)

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
            "aside": [list(domain.aside) for domain in domains],
            "common": self._common,
            "spread": self._spread,
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
        columns = [state[name] for name in ("names", "levels", "variances", "counts", "aside")]
        if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            raise ValueError("levels in the saved state must be lists with an item for each domain")
        if len(columns[0]) > MOST:
            raise ValueError(f"levels in the saved state must be of {MOST:,} domains at most, got {len(columns[0]):,}")
        for name, level, variance, count, aside in zip(*columns):
            if not isinstance(name, str) or name in self._domains or not isinstance(aside, list):
                raise ValueError(f"a domain in the saved levels must have a name of its own, got {name!r}, {aside!r}")
            domain = self._domains[name] = _Domain(
                _number("level", level, -_HIGHEST, _HIGHEST),
                _number("variance", variance, 0.0, _NORMAL * _LARGEST**2),
                _number("count", count, 0.0, _LONGEST),
                [_number("aside", one, -_HIGHEST, _HIGHEST) for one in aside],
            )
            if 0 < domain.count < _ENOUGH or not (domain.count or aside) or len(aside) >= _ENOUGH:
                raise ValueError(
                    f"domain {name!r} in the saved levels must have no losses or at least {_ENOUGH}, and fewer "
                    f"than that set aside, got {count!r} and {len(aside)}"
                )
        self._seen = sum((domain.count for domain in self._domains.values()), 0.0)
        self._common = _number("common", state["common"], -_HIGHEST, _HIGHEST)
        self._spread = _number("spread", state["spread"], 0.0, _LARGEST**2)
        return self


def _bounded(difference: float) -> float:
    """A difference whose square can be added up; never NaN, and not infinite."""
    return min(max(difference, -_LARGEST), _LARGEST)


def _number(name: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name} in the saved levels must be a number from {least:g} to {most:g}, got {value!r}")
    return float(value)


@dataclass(slots=True)
class _Domain:
    level: float = 0.0
    variance: float = 0.0
    count: float = 0.0  # of the losses that made these; 0: not known yet
    aside: list[float] = field(default_factory=list)  # the first ones, and later outliers in a row

    @property
    def spread(self) -> float:
        """The variance, or the least that it is taken to be."""
        least = _LEAST * _bounded(self.level)
        return max(self.variance, least * least)

    def centre(self, loss: float) -> float:
        """Estimated level of a domain that is not known yet; its latest loss, as long as there are too few."""
        return statistics.median(self.aside) if len(self.aside) >= _FEW else loss


_FEW = 3  # losses of which one outlier is not the median
_NEAR = 8
_NORMAL = 2.28
"""The variance of normal noise over the mean square of the eight of ten that are nearest to their median."""
