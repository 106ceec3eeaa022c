"""Questions about documented functions, answered from their docstrings."""

from __future__ import annotations

import random
import re

from greedylr.lab.catalogue.problems.transformers.sets.documentation import Function, functions
from greedylr.language_models.data.examples import Examples, Row, divide

_LONGEST = 160  # characters of an answer


def load() -> Examples:
    """Questions about purpose, arguments and defaults of functions; the same at every call."""
    rows = [row for function in functions() for row in _about(function)]
    random.Random(0).shuffle(rows)
    return Examples(*divide(rows))


def _about(function: Function) -> list[Row]:
    module = ".".join(part.removesuffix(".py") for part in function.module if not part.startswith("_"))
    name = f"{module}.{function.name}"
    summary = re.sub(r"\s+", " ", function.documentation.split("\n\n")[0]).strip()
    rows = []
    if 20 <= len(summary) <= _LONGEST:
        rows.append(_row(f"What does {name} do?", summary))
    if function.signature and len(function.signature) <= _LONGEST:
        rows.append(_row(f"What arguments does {name} take?", function.signature))
    for argument, value in function.defaults[:1]:
        rows.append(_row(f"What is {argument} in {name} by default?", value))
    return rows


def _row(question: str, answer: str) -> Row:
    return {"prompt": f"Question: {question}\nAnswer:", "completion": f" {answer}"}
