"""Files that are written whole, and never over what somebody else wrote."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, never meets half of it; its folder is made if need be.

    Raises:
        OSError: If it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as part:
        part.write_text(text, encoding="utf-8", errors="replace")


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """An empty file beside another one, which takes its place once the block has ended without an exception.

    Raises:
        OSError: If there can be no file.
    """
    try:
        # A name that nobody can know, in a file that is new: a link that was planted is not followed.
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(file)) from error
    os.close(descriptor)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    """The permissions that new files do not get. It can be read by setting it alone."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def check_writable(page: Path, generator: str) -> None:
    """Raise if a page could not be written, or is not ours to overwrite. Nothing is made yet.

    Args:
        page: Where the page is to be.
        generator: What our own page names in its head.

    Raises:
        FileExistsError: If there is a page of the same name by somebody else.
        OSError: If the folder is none or cannot be written to. The message names it and says why.
    """
    out = page.parent
    refused = f"cannot write to {out}: "
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(refused + "it is not a folder")
    try:
        there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
        ours = not page.exists() or _is_ours(page, generator)
    except OSError as error:
        raise type(error)(refused + str(error.strerror)) from error
    if not ours:
        raise FileExistsError(refused + f"it has a {page.name} that greedylr did not write")


def _is_ours(page: Path, generator: str) -> bool:
    with page.open(encoding="utf-8", errors="replace") as stream:
        return f'<meta name="generator" content="{generator}">' in stream.read(1000)
