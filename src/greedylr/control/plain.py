"""Records to plain data and back, exactly: numbers, strings, lists, ``None``, valid in strict JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

_R = TypeVar("_R")


def to_dict(record: Any) -> dict[str, Any]:
    """A dataclass as plain data; tuples become lists, infinities ``"inf"`` and ``"-inf"``.

    Example:
        >>> from greedylr.control.state import PaperState
        >>> to_dict(PaperState((0.1,), (0.1,)))["reference"]
        'inf'
    """
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record) if field.init}


def from_dict(kind: type[_R], data: dict[str, Any]) -> _R:
    """The dataclass of :func:`to_dict`.

    Raises:
        ValueError: If ``data`` lacks an entry or has an unknown one, or one of another kind.

    Example:
        >>> from greedylr.control.config import PaperConfig
        >>> from_dict(PaperConfig, to_dict(PaperConfig.core())) == PaperConfig.core()
        True
    """
    names = {field.name for field in fields(kind) if field.init}  # type: ignore[arg-type]
    if not isinstance(data, dict):
        raise ValueError(f"cannot restore {kind.__name__}: it must be a mapping of its entries, got {data!r}")
    if names != set(data):
        missing, unknown = sorted(names - set(data)), sorted(set(data) - names)
        raise ValueError(f"cannot restore {kind.__name__}: missing entries {missing}, unknown entries {unknown}")
    values = {name: _restored(name, value) for name, value in data.items()}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.init and field.type in _VALID and not _VALID[field.type](values[field.name]):
            valid, got = field.type, data[field.name]
            raise ValueError(f"cannot restore {kind.__name__}: {field.name} must be {valid}, got {got!r}")
    return kind(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        # float(): NumPy's float64 is a float to everyone but torch.load(weights_only=True).
        return float(value) if math.isfinite(value) else str(value)
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _restored(name: str, value: Any) -> Any:
    if isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, list):
        # Losses are appended to; everything else in a list is one number per parameter group.
        items = [_restored(name, item) for item in value]
        return items if name == "losses" else tuple(items)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


# By annotation. A configuration validates the rest itself.
_VALID: dict[Any, Callable[[Any], bool]] = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "float": _is_number,
    "tuple[float, ...]": lambda value: isinstance(value, tuple) and all(map(_is_number, value)),
    "list[float]": lambda value: isinstance(value, list) and all(map(_is_number, value)),
}
