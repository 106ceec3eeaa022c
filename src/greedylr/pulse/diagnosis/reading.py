"""A run with everything that is said about it: what terminal and page show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from greedylr.pulse.diagnosis.audit import Audit, audit
from greedylr.pulse.diagnosis.composition import Composition, explain
from greedylr.pulse.diagnosis.findings import Finding
from greedylr.pulse.diagnosis.health import examine
from greedylr.pulse.trace import Trace


@dataclass(frozen=True)
class Reading:
    """A run, judged.

    Attributes:
        name: What it is called; of several with one name, each its path.
        trace: What was recorded.
        audit: Its moves, judged.
        findings: Its health.
        composition: What the composition of its batches explains; None if none was logged.
    """

    name: str
    trace: Trace
    audit: Audit
    findings: list[Finding]
    composition: Composition | None


def read(paths: Sequence[str | os.PathLike[str]], composition: bool = True) -> list[Reading]:
    """Load and judge runs.

    Args:
        paths: Their folders.
        composition: Whether to look at the composition of the batches, which takes a second or so.

    Raises:
        OSError: If one is none.
        ValueError: If one is not a trace.
    """
    traces = [Trace.load(path) for path in paths]
    names = [trace.name for trace in traces]
    return [
        Reading(
            str(trace.path) if names.count(trace.name) > 1 else trace.name,
            trace,
            audit(trace),
            examine(trace),
            explain(trace) if composition else None,
        )
        for trace in traces
    ]
