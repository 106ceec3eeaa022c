"""Numbers of other libraries as Python's own, so that settings are plain data whoever computed them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Integral, Real

LARGEST_INTEGER = 2**53
"""The most that counts and lengths may be: every integer up to it is a float as well."""


def number(value: object) -> int | float | None:
    """Python's number for any real one: of NumPy, a 0-d array or tensor, a fraction, a decimal. None if it is none.

    Booleans and strings are no numbers.

    Example:
        >>> from fractions import Fraction
        >>> number(Fraction(1, 4)), number(True), number("0.25")
        (0.25, None, None)
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        try:
            value = value.item()
        except (RuntimeError, TypeError, ValueError):  # a tensor without data, or one that is being traced
            return None
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, (Real, Decimal)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf  # type: ignore[operator]
        except ValueError:  # a NaN that may not be used
            return math.nan
    return None


def numbers(values: object) -> list[object] | None:
    """The items of a sequence or a 1-d array, or None if it is something else."""
    if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
        return list(values)
    if len(getattr(values, "shape", ())) == 1 and hasattr(values, "tolist"):
        return list(values.tolist())
    return None


def finite(values: Iterable[float]) -> bool:
    """True if all are finite."""
    return all(map(math.isfinite, values))
