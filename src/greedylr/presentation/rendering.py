"""Pages from templates, and numbers in few bytes."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import greedylr
from greedylr.extras import missing
from greedylr.presentation.words import count

try:
    import jinja2
    import numpy as np
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error


def render(folder: Path, template: str, generator: str, **values: Any) -> str:
    """A page as a string: HTML in which every text is escaped, and which loads nothing from anywhere.

    Args:
        folder: Where the template is, and what it includes.
        template: Its name there; it extends ``base.html.j2``, which is found from everywhere.
        generator: Named in the page's head, to tell it from pages of others.
        **values: What the template asks for; ``command``, if it is given, is what makes the page again.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["squeezed"] = squeezed
    shared = {
        "generator": generator,
        "version": greedylr.__version__,
        "date": date.today().isoformat(),
        "plotly": _plotly(),
        "count": count,
    }
    return environment.get_template(template).render(**shared | values)


@cache
def _plotly() -> Markup:
    return squeezed(get_plotlyjs())


def squeezed(text: str) -> Markup:
    """Text in few characters for a script of a page that has ``data-squeezed``: deflated, in base 85.

    The code is that of :func:`base64.b85encode`, with a comma for ``<``, which could end the script. The page unpacks
    it before its own script runs.

    Example:
        >>> squeezed("0" * 1000)
        Markup('c-k{C7zLwX6byF&0IeFkfd')
    """
    return Markup(base64.b85encode(zlib.compress(text.encode(), 9)).decode().replace("<", ","))


def compact(values: Iterable[float]) -> np.ndarray[Any, Any]:
    """An array that Plotly stores as a few bytes a number, where a list takes twenty characters each."""
    return np.asarray(list(values), dtype=np.float32)


def packed(values: Any, kind: Literal["<f4", "<f8"] = "<f4") -> str:
    """An array as text for a page's script: Base64 of its numbers, the lowest byte first.

    Args:
        values: Of any shape.
        kind: Of 32 bits a number, or of 64: steps of any size then stay exact.
    """
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()
