"""A run with everything that is said about it: what terminal and page show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from greedylr.pulse.diagnosis.audit import Audit, audit
from greedylr.pulse.diagnosis.composition import Composition, explain
from greedylr.pulse.diagnosis.findings import Finding
from greedylr.pulse.diagnosis.health import examine
from greedylr.pulse.diagnosis.pooled import Pooled, pool
from greedylr.pulse.trace import Trace


@dataclass(frozen=True)
class Reading:
    """A run, judged.

    Attributes:
        name: What it is called; of several with one name, each its path.
        trace: What was recorded.
        audit: Its moves, judged.
        pooled: Its moves of a kind, judged together.
        findings: Its health.
        composition: What the composition of its batches explains; None if none was logged.
    """

    name: str
    trace: Trace
    audit: Audit
    pooled: list[Pooled]
    findings: list[Finding]
    composition: Composition | None


def read(paths: Sequence[str | os.PathLike[str]], thoroughly: bool = True) -> list[Reading]:
    """Load and judge runs.

    Args:
        paths: Their folders.
        thoroughly: Whether to judge moves together, and look at the composition of the batches: it takes a second or
            so, or, of tens of thousands of steps, ten.

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
            pool(trace) if thoroughly else [],
            examine(trace),
            explain(trace) if thoroughly else None,
        )
        for trace in traces
    ]
