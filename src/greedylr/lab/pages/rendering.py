"""From a template to a page, and numbers in few bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]


def render(template: str, generator: str, **values: Any) -> str:
    """A page as a string: HTML in which every text is escaped, and which loads nothing from anywhere.

    Args:
        template: Its path in the lab's folder; it extends ``pages/base.html.j2``.
        generator: Named in the page's head, to tell it from pages of others.
        **values: What the template asks for.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(generator=generator, plotly=Markup(get_plotlyjs()), **values)


def compact(values: Iterable[float]) -> np.ndarray[Any, Any]:
    """An array that Plotly stores as a few bytes a number, where a list takes twenty characters each."""
    return np.asarray(list(values), dtype=np.float32)
