"""Packages that parts of greedylr need beside PyTorch, and the extra that brings them."""

from __future__ import annotations


def missing(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """The error to raise where an import failed: it says what to install.

    Args:
        error: From the import.
        extra: Name of the extra that has the package.
    """
    if error.name is None or error.name.split(".")[0] == "greedylr":
        return error
    return ModuleNotFoundError(
        f"this part of greedylr needs {error.name}, which is not installed: pip install 'greedylr[{extra}]', or, in a "
        f"clone of the repository, pip install '.[{extra}]'",
        name=error.name,
    )
