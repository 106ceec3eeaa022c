"""Evidence: real problems, schedulers side by side, and what came of it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greedylr.lab.comparison.comparing import compare

__all__ = ["compare"]


def __getattr__(name: str) -> Any:
    # Everything that the lab is made of comes with it: other parts of the lab do without.
    if name == "compare":
        from greedylr.lab.comparison.comparing import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
