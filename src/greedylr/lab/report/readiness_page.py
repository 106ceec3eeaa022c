"""The page of ``greedylr report`` of a store: its tables, and nothing to draw."""

from __future__ import annotations

import shlex
from pathlib import Path

from greedylr import presentation
from greedylr.lab.report import words
from greedylr.lab.report.readiness import Production
from greedylr.presentation.words import count
from greedylr.pulse.report import GENERATOR

__all__ = ["GENERATOR", "about", "render", "write"]


def write(file: Path, name: str, found: Production, others: int) -> None:
    """Write the page, whole or not at all.

    Args:
        file: Where; its folder is made if need be. A page of ours that is there is replaced.
        name: Of the store.
        found: What it says.
        others: How many of its results are of another version.

    Raises:
        FileExistsError: If there is a file that greedylr did not write.
        OSError: If it cannot be written.
    """
    presentation.check_writable(file, GENERATOR)
    presentation.write_whole(file, render(name, found, others))


def render(name: str, found: Production, others: int) -> str:
    """The page as a string: HTML in which every text is escaped, and which loads nothing from anywhere.

    Args:
        name: Of the store.
        found: What it says.
        others: How many of its results are of another version.
    """
    return presentation.render(
        Path(__file__).parent,
        "readiness.html.j2",
        GENERATOR,
        command=f"{GENERATOR} {shlex.quote(name)}",
        name=name,
        about=about(found, others),
        table=found.table,
        by_rate={words.rate(rate, False): table for rate, table in found.by_rate.items()},
    )


def about(found: Production, others: int) -> list[str]:
    """Lines about the runs, to stand before the table.

    Args:
        found: What the store says.
        others: How many of its results are of another version.
    """
    counts = [(found.runs, "run"), (found.schedulers, "scheduler"), (found.cases, "case"), (found.seeds, "seed")]
    lines = [", ".join(count(number, what) for number, what in counts) + "."]
    if others:
        lines.append(
            f"{count(others, 'result')} of another version or of other code {'is' if others == 1 else 'are'} left out."
        )
    if found.unfinished:
        lines.append(f"Fixed schedules lack runs in {count(found.unfinished, 'place')}: regret may be too small.")
    if found.without_twin:
        lines.append(f"{count(found.without_twin, 'disturbed run')} without a twin: whether it recovered is not known.")
    return lines
