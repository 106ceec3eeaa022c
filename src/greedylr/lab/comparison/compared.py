"""Result of a comparison: to print, to draw, to write as a page, or to go on with."""

from __future__ import annotations

import html
import io
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.markup import escape

from greedylr.lab.analysis.statistics import Outcome
from greedylr.lab.analysis.statistics.differences import STAGES
from greedylr.lab.analysis.summary import Summary, summarize
from greedylr.lab.execution.fingerprint import versions
from greedylr.lab.report import page, words
from greedylr.lab.report.curves import Curves
from greedylr.lab.report.styles import styles
from greedylr.lab.results import Result
from greedylr.presentation.terminal import FittingTable

if TYPE_CHECKING:
    import plotly.graph_objects as go  # type: ignore[import-untyped]

_LATE = 0.05
"""A validation counts as that of a stage if it came by this share of the training later, and not more."""

_WIDTH = 120


class Tables:
    """Tables that rich prints in colour, and ``print`` without."""

    def __init__(self, *tables: FittingTable) -> None:
        self._tables = Group(*tables)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._tables

    def __str__(self) -> str:
        stream = io.StringIO()
        Console(file=stream, width=_WIDTH, highlight=False).print(self._tables)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


@dataclass(frozen=True)
class Compared:
    """Result of :func:`greedylr.lab.compare`.

    Attributes:
        results: One for each run, with all its curves.
        schedulers: Their names, the one in question first.
        fixed: Those of them that go by the step alone.
    """

    results: tuple[Result, ...]
    schedulers: tuple[str, ...]
    fixed: tuple[str, ...]

    @cached_property
    def summary(self) -> Summary:
        """Statistics of the first scheduler against each other one; see ``docs/statistics.md``."""
        stages = [stage for stage in STAGES if all(_has(result, stage) for result in self.results)]
        made = summarize(self.results, self.schedulers[0], fixed=self.fixed, stages=stages)
        # Where nobody looked before the end, all reach a target there.
        return made if len(stages) == len(STAGES) else replace(made, steps=())

    def table(self) -> Tables:
        """Final validation losses, mean ± deviation over seeds; and the verdicts on the first scheduler."""
        return Tables(*(self._losses(problem) for problem in self._problems()), *self._verdicts())

    def plot(self) -> go.Figure:
        """Final validation loss against the learning rate, a line for each scheduler, as a Plotly figure.

        Lines are means over seeds, bars reach from the lowest to the highest. Problems are beside each other.
        """
        from plotly.subplots import make_subplots  # type: ignore[import-untyped]

        problems = self._problems()
        figure = make_subplots(cols=len(problems), subplot_titles=[html.escape(name) for name in problems])
        look = styles(self.schedulers[0], self.schedulers[1:])
        for column, problem in enumerate(problems, start=1):
            for name in self.schedulers:
                points = {rate: self._finals(problem, name, rate) for rate in self._rates(problem)}
                means = {rate: _mean(its) for rate, its in points.items()}
                figure.add_scatter(
                    x=list(points),
                    y=list(means.values()),
                    error_y={
                        "array": [max(_losses(its)) - means[rate] for rate, its in points.items()],
                        "arrayminus": [means[rate] - min(_losses(its)) for rate, its in points.items()],
                    },
                    name=html.escape(words.title(name)),
                    legendgroup=name,
                    showlegend=column == 1,
                    line={"color": look[name].color, "dash": look[name].dash, "width": look[name].width},
                    row=1,
                    col=column,
                )
        figure.update_xaxes(
            type="log", title_text="learning rate" + ("" if self.summary.absolute else ", × the good one")
        )
        figure.update_yaxes(title_text="final validation loss", col=1)
        if all(loss > 0 for loss in _losses(self.summary.outcomes)):
            figure.update_yaxes(type="log")
        return figure

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write everything as an HTML page that needs nothing but itself.

        Args:
            path: Of the page; or of a folder, and it is ``report.html`` in there.

        Returns:
            The page's path.

        Raises:
            FileExistsError: If there is a file that greedylr did not write.
            OSError: If it cannot be written.
        """
        file = Path(path)
        file = file if file.suffix == ".html" else file / "report.html"
        curves = Curves()
        for _ in curves.watch(self.results):
            pass
        name = ", ".join(self._problems())
        about = page.About(name, "a comparison", "greedylr.lab.compare", len(self.results), versions())
        page.write(file, about, self.summary, curves)
        return file

    def _problems(self) -> list[str]:
        return list(dict.fromkeys(result.run.problem for result in self.results))

    def _rates(self, problem: str) -> list[float]:
        return sorted({result.run.multiplier for result in self.results if result.run.problem == problem})

    def _finals(self, problem: str, scheduler: str, rate: float) -> list[Outcome]:
        wanted = (problem, scheduler, rate)
        return [one for one in self.summary.outcomes if (one.problem, one.scheduler, one.multiplier) == wanted]

    def _losses(self, problem: str) -> FittingTable:
        rates = self._rates(problem)
        table = FittingTable(
            escape(f"{problem}: validation loss after training"),
            "",
            *(words.rate(rate, self.summary.absolute) for rate in rates),
        )
        for name in self.schedulers:
            table.add_row(escape(words.title(name)), *(_cell(self._finals(problem, name, rate)) for rate in rates))
        return table

    def _verdicts(self) -> list[FittingTable]:
        first = words.title(self.schedulers[0])
        table = FittingTable(
            escape(f"{first} against each rival at the end"),
            "rival",
            "cases",
            "better",
            "as good",
            "worse",
            "median benefit",
        )
        for one in self.summary.comparisons:
            if one.difference.stage == 1.0:
                better, worse = one.tally.better.count, one.tally.worse.count
                cases = len(one.tally.verdicts)
                cells = (cases, better, cases - better - worse, worse, words.benefit(one.difference.median))
                table.add_row(escape(words.title(one.difference.second)), *map(str, cells))
        return [table] if table else []


def _has(result: Result, stage: float) -> bool:
    """True if a run was validated at a stage, or soon after, or broke down before it."""
    begin, end = stage * result.run.steps, (stage + _LATE) * result.run.steps
    if stage == 1.0 or (result.failure is not None and len(result.losses) < begin):
        return True
    return any(begin <= step <= end for step in result.validation_steps)


def _losses(outcomes: Sequence[Outcome]) -> list[float]:
    return [one.counted_loss(1.0, one.start) for one in outcomes]


def _mean(outcomes: Sequence[Outcome]) -> float:
    return math.fsum(_losses(outcomes)) / len(outcomes)


def _cell(outcomes: Sequence[Outcome]) -> str:
    """Mean ± deviation over seeds, failed runs counted with their start, and how many failed."""
    losses = _losses(outcomes)
    spread = f" ± {statistics.stdev(losses):.2g}" if len(losses) > 1 else ""
    failed = sum(one.failed for one in outcomes)
    return f"{_mean(outcomes):.4g}{spread}" + (f", {failed} of {len(losses)} failed" if failed else "")
