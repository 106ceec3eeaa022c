"""Text that comes with every Python: its source code, its manual, and the names of Unicode's characters.

What is validated on is apart from what is trained on: other files, other paragraphs, other names, and of these only
what does not happen to occur there too. All of it differs a little from one version of Python to the next.
"""

from __future__ import annotations

import sysconfig
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from greedylr.lab.catalogue.problems.problem import Data, DataError
from greedylr.lab.catalogue.problems.task import Examples

CHARACTERS = 128
"""ASCII; whatever is above becomes the last one."""

TRAIN_FILES = (
    "argparse.py",
    "configparser.py",
    "difflib.py",
    "doctest.py",
    "inspect.py",
    "ipaddress.py",
    "mailbox.py",
    "optparse.py",
    "pickle.py",
    "subprocess.py",
    "tarfile.py",
    "threading.py",
    "typing.py",
)
"""Source files to train on; these and the next are in every CPython from 3.10 on."""

VALIDATION_FILES = ("heapq.py", "statistics.py", "textwrap.py")
"""Source files to validate on."""

_HELD_OUT = 8  # One paragraph of the manual, and one Unicode name, in so many is validated on.


class Text(NamedTuple):
    """Characters as numbers below :data:`CHARACTERS`: to train on, and to validate on."""

    train: Tensor
    validation: Tensor


def code() -> Text:
    """Source code of the standard library.

    Raises:
        DataError: If it cannot be read.
    """
    return Text(encode(read_source(TRAIN_FILES)), encode(read_source(VALIDATION_FILES)))


def prose() -> Text:
    """The language reference as ``help()`` shows it: English.

    Raises:
        DataError: If it is not there.
    """
    try:
        from pydoc_data import topics  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DataError(f"the manual in the Python standard library cannot be read: {error}") from error
    # A paragraph may stand under several topics.
    paragraphs = dict.fromkeys("\n\n".join(text for _, text in sorted(topics.topics.items())).split("\n\n"))
    return _split(paragraphs, "\n\n")


def names() -> Text:
    """The names of the characters after the ideographs, one a line: mostly Yi and Hangul syllables, and predictable."""
    return _split(filter(None, (unicodedata.name(chr(number), "") for number in range(0xA000, 0x10000))), "\n")


def windows(text: Tensor, length: int, apart: int = 1) -> Examples:
    """Windows of ``length`` characters, each with the characters that follow; views, not copies.

    Args:
        text: Encoded text.
        length: Characters of a window.
        apart: Characters from the beginning of one window to that of the next.
    """
    return Examples(text[:-1].unfold(0, length, apart), text[1:].unfold(0, length, apart))


def spread(text: Tensor, length: int, count: int) -> Examples:
    """``count`` windows spread evenly over a text."""
    return windows(text, length, (len(text) - 1 - length) // (count - 1)).batch(torch.arange(count))


def unseen(examples: Examples, text: Tensor) -> Examples:
    """Examples whose inputs do not occur anywhere in a text."""
    known = bytes(text.tolist())
    return examples.batch(torch.tensor([bytes(window.tolist()) not in known for window in examples.inputs]))


def prediction(text: Text, length: int, validation: int = 256) -> Data:
    """Windows in which to predict each next character: all there are to train on, ``validation`` to validate on."""
    return Data(windows(text.train, length), held_out(text, length, validation))


def held_out(text: Text, length: int, count: int) -> Examples:
    """``count`` windows of the text to validate on, spread over it, that do not occur in the text to train on."""
    new = unseen(spread(text.validation, length, 3 * count), text.train)
    return new.batch(torch.arange(count) * len(new.inputs) // count)


def encode(text: bytes) -> Tensor:
    """Characters as numbers; read as text files are, the same whatever the line ends on disk."""
    raw = torch.frombuffer(bytearray(text.replace(b"\r\n", b"\n")), dtype=torch.uint8)
    return raw.to(torch.int64).clamp(max=CHARACTERS - 1)


def read_source(files: Iterable[str]) -> bytes:
    """Source files of the standard library, one after the other.

    Raises:
        DataError: If one cannot be read.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    try:
        return b"".join((folder / name).read_bytes() for name in files)
    except OSError as error:
        raise DataError(f"the sources of the Python standard library cannot be read: {error}") from error


def _split(pieces: Iterable[str], between: str) -> Text:
    """Every eighth piece to validate on, the others to train on."""
    parts: tuple[list[str], list[str]] = ([], [])
    for number, piece in enumerate(pieces):
        parts[number % _HELD_OUT == 0].append(piece)
    train, validation = (encode(between.join(part).encode("ascii", "replace")) for part in parts)
    return Text(train, validation)
