"""Records to plain data and back, exactly: numbers, strings, lists, ``None``, valid in strict JSON."""

from __future__ import annotations

import math
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
        ValueError: If ``data`` lacks an entry or has an unknown one.

    Example:
        >>> from greedylr.control.config import PaperConfig
        >>> from_dict(PaperConfig, to_dict(PaperConfig.core())) == PaperConfig.core()
        True
    """
    names = {field.name for field in fields(kind) if field.init}  # type: ignore[arg-type]
    if names != set(data):
        missing, unknown = sorted(names - set(data)), sorted(set(data) - names)
        raise ValueError(f"cannot restore {kind.__name__}: missing entries {missing}, unknown entries {unknown}")
    return kind(**{name: _restored(name, value) for name, value in data.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return list(value) if isinstance(value, (tuple, list)) else value


def _restored(name: str, value: Any) -> Any:
    if value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, list):
        # Losses are appended to; everything else in a list is one number per parameter group.
        return list(value) if name == "losses" else tuple(value)
    return value
