"""Files that are written whole, and never over what somebody else wrote."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write a text file so that a reader, or a crash, never meets half of it.

    Raises:
        OSError: If it cannot be written.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def check_writable(page: Path, generator: str) -> None:
    """Make the folder of a page, and raise if the page could not be written there, or is not ours to overwrite.

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
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        ours = not page.exists() or _is_ours(page, generator)
    except OSError as error:
        raise type(error)(refused + str(error.strerror)) from error
    if not ours:
        raise FileExistsError(refused + f"it has a {page.name} that greedylr did not write")


def _is_ours(page: Path, generator: str) -> bool:
    with page.open(encoding="utf-8", errors="replace") as stream:
        return f'<meta name="generator" content="{generator}">' in stream.read(1000)
