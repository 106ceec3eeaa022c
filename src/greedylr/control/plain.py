"""Records to plain data and back, exactly: numbers, strings, lists, ``None``, valid in strict JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from reprlib import repr as short
from typing import Any, TypeVar

_R = TypeVar("_R")


def to_dict(record: Any) -> dict[str, Any]:
    """A dataclass as plain data; tuples become lists, infinities ``"inf"`` and ``"-inf"``.

    Example:
        >>> from greedylr.control.paper.state import PaperState
        >>> to_dict(PaperState((0.1,), (0.1,)))["reference"]
        'inf'
    """
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record) if field.init}


def from_dict(kind: type[_R], data: Any) -> _R:
    """The dataclass of :func:`to_dict`.

    Raises:
        ValueError: If ``data`` is no mapping, lacks an entry, has an unknown one, or one that is invalid.

    Example:
        >>> from greedylr.control.paper.config import PaperConfig
        >>> from_dict(PaperConfig, to_dict(PaperConfig.core())) == PaperConfig.core()
        True
    """
    entries(kind.__name__, data, {field.name for field in fields(kind) if field.init})  # type: ignore[arg-type]
    kinds = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for name, value in data.items():
        try:
            values[name] = _RESTORED.get(kinds[name], setting)(value)
        except ValueError as error:
            raise ValueError(f"cannot restore {kind.__name__}: {name} must be {error}, got {short(value)}") from None
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot restore {kind.__name__}: {error}") from None


def entries(kind: str, data: Any, names: set[str]) -> None:
    """Raise if ``data`` is no mapping with these entries and no others.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"cannot restore {kind}: it must be a mapping of names to values, got {short(data)}")
    if names != set(data):
        missing, unknown = sorted(names - set(data)), sorted(set(data) - names, key=repr)
        raise ValueError(f"cannot restore {kind}: missing entries {missing}, unknown entries {short(unknown)}")


# Of one kind each; a ValueError says which.


def integer(value: Any) -> int:
    """An integer, and no boolean."""
    if type(value) is not int:
        raise ValueError("an integer")
    return value


def flag(value: Any) -> bool:
    """A boolean."""
    if type(value) is not bool:
        raise ValueError("True or False")
    return value


def real(value: Any) -> float:
    """A number that is not NaN."""
    if isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
        raise ValueError("a number")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError("a number that a float can hold")
    return float(value)


def reals(value: Any) -> list[float]:
    """A list of numbers."""
    if not isinstance(value, (list, tuple)):
        raise ValueError("a list of numbers")
    try:
        return [real(item) for item in value]
    except ValueError:
        raise ValueError("a list of numbers") from None


def setting(value: Any) -> Any:
    """A number, a string, a boolean, ``None``, or a list of numbers; what it must be is for its record to say."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (float, list, tuple)):
        return tuple(reals(value)) if isinstance(value, (list, tuple)) else real(value)
    if isinstance(value, str):
        return float(value) if value in ("inf", "-inf") else value
    raise ValueError("plain data")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        # float(): NumPy's float64 is a float to everyone but torch.load(weights_only=True).
        return float(value) if math.isfinite(value) else str(value)
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


# By annotation; all others are settings.
_RESTORED: dict[Any, Callable[[Any], Any]] = {
    "int": integer,
    "bool": flag,
    "float": real,
    "tuple[float, ...]": lambda value: tuple(reals(value)),
    "list[float]": reals,
}
