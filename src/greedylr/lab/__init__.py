"""Evidence: real problems, schedulers side by side, and what came of it."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from greedylr.extras import missing

# Looked for and not imported: that takes a second and a half, and many commands and workers do without.
for _package in ("numpy", "sklearn"):
    if find_spec(_package) is None:
        raise missing(ModuleNotFoundError(name=_package), "lab")

if TYPE_CHECKING:
    from greedylr.lab.comparison.comparing import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    # Everything that the lab is made of comes with it: other parts of the lab do without.
    if name == "compare":
        try:
            from greedylr.lab.comparison.comparing import compare
        except ModuleNotFoundError as error:
            raise missing(error, "lab") from error
        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
