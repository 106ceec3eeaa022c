"""Text to pre-train on."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from greedylr.lab.catalogue.problems.problem import DataError

_HELD_OUT = 20  # One document in so many is validated on.


@dataclass(frozen=True)
class Texts:
    """Documents, divided: what is validated on are others."""

    train: tuple[str, ...]
    validation: tuple[str, ...]

    def digest(self) -> str:
        """A short text that stands for all of it."""
        return hashlib.sha256("\0".join([*self.train, "", *self.validation]).encode()).hexdigest()[:16]


def _manual() -> list[str]:
    """The language reference that ``help()`` shows: English."""
    try:
        from pydoc_data import topics  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DataError(f"the manual in the Python standard library cannot be read: {error}") from error
    return list(dict.fromkeys(text for _, text in sorted(topics.topics.items())))


def _library() -> list[str]:
    """The source code of Python's standard library, and its manual."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))
    if len(files) < 20:
        raise DataError(f"the sources of the Python standard library are not in {folder}")
    return [*(file.read_text(encoding="utf-8", errors="replace") for file in files), *_manual()]


TEXTS: dict[str, Callable[[], list[str]]] = {"manual": _manual, "library": _library}
"""Every text that comes with Python, by name."""


def find_texts(name: str) -> Texts:
    """Text by name: what comes with Python, or a ``.txt`` file, or a folder of them.

    Raises:
        DataError: If there is none, or too little of it.
    """
    if name in TEXTS:
        documents = TEXTS[name]()
    else:
        path = Path(name)
        files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
        try:
            documents = [file.read_text(encoding="utf-8", errors="replace") for file in files]
        except OSError as error:
            raise DataError(
                f"there is no text {name}: give a .txt file, a folder of them, or one of {', '.join(TEXTS)}"
            ) from error
    if len(documents) < _HELD_OUT:  # Paragraphs are the documents of a few files.
        documents = [part for document in documents for part in document.split("\n\n") if part.strip()]
    if sum(map(len, documents)) < 10_000 or len(documents) < _HELD_OUT:
        raise DataError(f"{name} has {sum(map(len, documents)):,} characters of text, and 10,000 are the fewest")
    train = [document for number, document in enumerate(documents) if number % _HELD_OUT]
    known = set(train)
    return Texts(tuple(train), tuple(one for one in documents[::_HELD_OUT] if one not in known))
