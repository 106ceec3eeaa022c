"""Examples to fine-tune on: prompts and what is to follow them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greedylr.lab.catalogue.problems.problem import DataError

VALIDATION = 64
"""Examples that are validated on, at most."""

Row = dict[str, Any]
Score = Callable[[Sequence[str], Sequence[Row]], float]
"""Takes answers and the examples that they are answers to; gives the share that is right."""


@dataclass(frozen=True)
class Examples:
    """A set of examples, divided.

    Attributes:
        train: Rows with a ``prompt`` and a ``completion``, or with ``messages``, or with a ``text``.
        validation: Others, of which no prompt is trained on.
        score: The task's own measure of answers; None if there is none.
        measure: What that measures.
    """

    train: list[Row]
    validation: list[Row]
    score: Score | None = None
    measure: str = "tokens predicted"

    def first(self, count: int | None) -> Examples:
        """The same with at most so many to train on."""
        return self if count is None else Examples(self.train[:count], self.validation, self.score, self.measure)

    def digest(self) -> str:
        """A short text that stands for all rows."""
        listed = json.dumps([self.train, self.validation], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(listed.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Set:
    """A set that is made here.

    Attributes:
        title: Name to show to a person.
        source: What it is made of, and under which licence.
        load: Makes it, the same at every call; raises :class:`DataError` if it cannot.
    """

    title: str
    source: str
    load: Callable[[], Examples]


def divide(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Every tenth row to validate on, if its prompt is not trained on as well; at most 64 of them, spread evenly.

    Args:
        rows: In an order that does not change.
    """
    train = [row for number, row in enumerate(rows) if number % 10]
    known = {_asked(row) for row in train}
    new = [row for row in rows[::10] if _asked(row) not in known]
    if len(new) > VALIDATION:
        new = [new[number * len(new) // VALIDATION] for number in range(VALIDATION)]
    return train, new


def _asked(row: Row) -> str:
    if "messages" in row:
        return json.dumps(row["messages"][:-1] or row["messages"], sort_keys=True)
    return str(row.get("prompt", row.get("text")))


def _instructions() -> Examples:
    from greedylr.language_models.data.instructions import load

    return load()


def _sql() -> Examples:
    from greedylr.language_models.data.sql import load

    return load()


def _french() -> Examples:
    from greedylr.language_models.data.french import load

    return load()


SETS: dict[str, Set] = {
    "instructions": Set(
        "questions about functions of NumPy, SciPy and scikit-learn",
        "their docstrings (BSD licence), as installed",
        _instructions,
    ),
    "sql": Set(
        "questions in English and the SQL that answers them",
        "generated over small tables; every answer is executed on SQLite",
        _sql,
    ),
    "french": Set(
        "questions and translations in French",
        "the Debian packages debian-handbook (CC-BY-SA 3.0 or GPL 2) and debian-faq-fr (GPL 2)",
        _french,
    ),
}
"""Every set that is made here, by name."""


def find(name: str) -> Examples:
    """Examples by name: a set that is made here; several, joined by ``+``, in turns; a JSONL file; or a hub's data set.

    Args:
        name: ``sql``, ``sql+french``, ``rows.jsonl``, ``owner/name``.

    Raises:
        DataError: If there are none.
    """
    if "+" in name and not Path(name).exists():
        return _in_turns([find(one) for one in name.split("+")])
    if name in SETS:
        return SETS[name].load()
    if Path(name).suffix in (".jsonl", ".json"):
        return _of(_rows(Path(name)), name)
    return _of(_from_the_hub(name), name)


BLOCK = 160
"""Training examples of one set before the next set's turn, where there are several."""


def _in_turns(parts: Sequence[Examples]) -> Examples:
    """A block of each, and again, as long as all have some; validation is on equal parts of all."""
    blocks = min(len(part.train) for part in parts) // BLOCK
    if not blocks:
        raise DataError(f"sets that take turns need {BLOCK} examples each")
    train = [
        row for number in range(blocks) for part in parts for row in part.train[number * BLOCK : (number + 1) * BLOCK]
    ]
    share = VALIDATION // len(parts)
    return Examples(train, [row for part in parts for row in part.validation[:share]])


def _rows(file: Path) -> list[Row]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [json.loads(line) for line in lines]
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{file} is not JSON, one object a line: {error}") from error


def _from_the_hub(name: str) -> list[Row]:
    import datasets  # type: ignore[import-untyped]

    try:
        loaded = datasets.load_dataset(name, split="train")
    except Exception as error:  # Whatever the hub's client raises.
        raise DataError(
            f"there are no data {name}: neither here ({', '.join(SETS)}; files end in .jsonl) nor on the hub, or there "
            f"is no network. {str(error).strip().splitlines()[0]}"
        ) from error
    return [dict(row) for row in loaded]


def _of(rows: Sequence[Row], name: str) -> Examples:
    kept = [known for row in rows if (known := _known(row)) is not None]
    if len(kept) < 20:
        raise DataError(
            f"{name} has {len(kept)} usable rows of {len(rows)}, and 20 are the fewest. A row has a prompt and a "
            "completion, or messages, or a text (or instruction, input and output)"
        )
    return Examples(*divide(kept))


def _known(row: Any) -> Row | None:
    """A row in one of the forms that TRL's ``SFTTrainer`` takes."""
    if not isinstance(row, dict):
        return None
    for names in (("prompt", "completion"), ("messages",), ("text",)):
        if all(row.get(name) for name in names):
            return {name: row[name] for name in names}
    if row.get("instruction") and row.get("output"):
        given = f"\n{row['input']}" if row.get("input") else ""
        return {"prompt": f"{row['instruction']}{given}\n", "completion": str(row["output"])}
    return None
