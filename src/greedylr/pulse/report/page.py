"""The page as a string, and as a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from greedylr import presentation
from greedylr.pulse.diagnosis.reading import Reading
from greedylr.pulse.report import words
from greedylr.pulse.report.data import run_data
from greedylr.pulse.report.readiness import compare

GENERATOR = "greedylr report"
"""Named in the page's head, to tell it from pages of others."""


def render(readings: list[Reading]) -> str:
    """The page as a string.

    Args:
        readings: The runs, at least one.

    Returns:
        HTML in which every text is escaped, and which loads nothing from anywhere.
    """
    return presentation.render(
        Path(__file__).parent,
        "report.html.j2",
        GENERATOR,
        command=f"{GENERATOR} {shlex.join(str(reading.trace.path) for reading in readings)}",
        readings=readings,
        words=words,
        table=compare(readings) if len(readings) > 1 else None,
        facts={reading.name: _facts(reading) for reading in readings},
        data=[run_data(reading, len(readings)) for reading in readings],
    )


def write(file: Path, readings: list[Reading]) -> None:
    """Write the page, whole or not at all.

    Args:
        file: Where; its folder is made if need be. A page of ours that is there is replaced.
        readings: The runs, at least one.

    Raises:
        FileExistsError: If there is a file that greedylr did not write.
        OSError: If it cannot be written.
    """
    presentation.check_writable(file, GENERATOR)
    presentation.write_whole(file, render(readings))


def _facts(reading: Reading) -> list[tuple[str, Any]]:
    """Lines about a run."""
    trace = reading.trace
    own = {name: value for name, value in trace.meta.items() if name not in ("greedylr", "python", "host", "time")}
    facts: list[tuple[str, Any]] = [
        ("status", trace.status),
        ("steps", trace.last),
        ("duration", words.duration(trace.seconds)),
        ("moves", len(trace.moves)),
    ]
    facts += words.course(trace)
    facts += list(own.items())
    facts += [(name, trace.meta[name]) for name in ("host", "python", "greedylr") if name in trace.meta]
    return facts
