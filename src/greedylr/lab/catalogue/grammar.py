"""Names with settings: ``paper:factor=0.5,patience=3`` is the entry ``paper`` with two settings of its own."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any


def read(name: str) -> tuple[str, dict[str, Any]]:
    """The entry and the settings in a name; values are numbers, True, False, None, or words.

    Raises:
        ValueError: If what follows the colon is no list of settings.

    Example:
        >>> read("paper:factor=0.5,smooth=False")
        ('paper', {'factor': 0.5, 'smooth': False})
        >>> read("paper")
        ('paper', {})
    """
    entry, colon, listed = name.partition(":")
    settings = {}
    for one in listed.split(",") if colon else ():
        setting, equals, value = one.partition("=")
        if not setting.isidentifier() or not equals or not value or setting in settings:
            raise ValueError(f"a name with settings is written as paper:factor=0.5,patience=3, got {name!r}")
        settings[setting] = _value(value)
    return entry, settings


def write(entry: str, settings: Mapping[str, Any]) -> str:
    """The name of an entry with settings; there is one way to write it, as another would be another run in a store.

    Example:
        >>> write("paper", {"patience": 3, "factor": 0.50})
        'paper:factor=0.5,patience=3'
    """
    listed = ",".join(f"{setting}={value}" for setting, value in sorted(settings.items()))
    return f"{entry}:{listed}" if listed else entry


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a word
    return value if isinstance(value, (bool, int, float, type(None))) else text
