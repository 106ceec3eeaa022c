"""A run with everything that is said about it: what terminal and page show."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from greedylr.pulse.diagnosis.audit import Audit, audit
from greedylr.pulse.diagnosis.composition import Composition, explain
from greedylr.pulse.diagnosis.findings import Finding
from greedylr.pulse.diagnosis.health import examine
from greedylr.pulse.diagnosis.pooled import Pooled, pool
from greedylr.pulse.trace import Follower, Trace


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
        judged: The last step that audit and findings know of.
    """

    name: str
    trace: Trace
    audit: Audit
    pooled: list[Pooled]
    findings: list[Finding]
    composition: Composition | None
    judged: int


def read(paths: Sequence[str | os.PathLike[str]]) -> list[Reading]:
    """Load and judge runs, which takes a second or so, or, of tens of thousands of steps, ten.

    Args:
        paths: Their folders.

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
            pool(trace),
            examine(trace),
            explain(trace),
            trace.last,
        )
        for trace in traces
    ]


_SHARE = 0.05


class Watched:
    """A run that is looked at again and again while it goes on.

    A look reads what has been added. What is said about the run is said anew when the time that this takes is a
    twentieth of what has passed since, and when the run is over; moves are not judged together.

    Args:
        path: Its folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._follower = Follower(path)
        self._known: tuple[Audit, list[Finding], int] | None = None
        self._due = 0.0

    def look(self) -> Reading:
        """The run as it is by now.

        Raises:
            OSError: If there is none.
            ValueError: If it is not a trace.
        """
        trace = self._follower.look()
        begun = time.monotonic()
        if self._known is None or trace.over or begun >= self._due:
            self._known = audit(trace), examine(trace), trace.last
            ended = time.monotonic()
            self._due = ended + (ended - begun) / _SHARE
        audited, findings, judged = self._known
        return Reading(trace.name, trace, audited, [], findings, None, judged)
