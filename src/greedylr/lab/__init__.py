"""Evidence: real problems, schedulers side by side, and what came of it."""

from typing import TYPE_CHECKING, Any

from greedylr.extras import missing

try:
    import numpy  # noqa: F401
    import sklearn  # type: ignore[import-untyped]  # noqa: F401
except ModuleNotFoundError as error:
    raise missing(error, "lab") from error

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
