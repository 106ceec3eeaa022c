"""Observation of a run: its trace, the audit of its decisions, its health, and the report."""

from typing import TYPE_CHECKING, Any

from greedylr.pulse.recording.recorder import Recorder

if TYPE_CHECKING:
    from greedylr.pulse.trace import Trace

__all__ = ["Recorder", "Trace"]


def __getattr__(name: str) -> Any:
    # Reading needs NumPy, recording nothing.
    if name == "Trace":
        from greedylr.pulse.trace import Trace

        return Trace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
