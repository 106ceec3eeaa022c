"""The same decisions and numbers in other people's tools, through their own client libraries.

A sink is an observer, to be subscribed beside a :class:`~greedylr.pulse.Recorder` or instead of it, and
:func:`send` hands a recorded trace to one, after the run or for runs that are long over.

Every sink gets, by step: ``greedylr/loss`` and ``greedylr/lr`` (of several groups ``greedylr/lr_1`` and so on), every
``every`` steps and at every decision, and ``greedylr/<action>`` with 1 at the step of each decision that is not a
plain hold. What was logged has the name that it was logged under. On ranks other than 0 nothing is sent, and no file or
run is made.

A run that is resumed from a checkpoint does some steps again. Each is in the tool once: as it was done last where the
tool can forget, as it was done first where it cannot (MLflow, Weights & Biases).
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from greedylr.control.decision import Action, Decision
from greedylr.extras import missing
from greedylr.presentation import write_whole
from greedylr.pulse.recording.ranks import rank
from greedylr.pulse.recording.storage import QUIET, cell
from greedylr.pulse.trace import Trace

try:
    import numpy as np
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error

_PLAIN = QUIET | {Action.NOT_SIGNIFICANT}


class Sink(Protocol):
    """Destination of numbers.

    One that has a method ``go_back`` is told by it that the run goes on after a step: what is there of later steps is
    void, and at step 0 everything is.
    """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""

    def close(self) -> None:
        """Hand everything over."""


class Observing:
    """Turns decisions into numbers of a sink, as an observer of a scheduler; further ones are handed to :meth:`log`.

    Args:
        sink: Where they go.
        every: Steps between two losses that are sent; decisions that are no plain hold are all sent.

    Raises:
        ValueError: If ``every`` is less than 1.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from greedylr import GreedyLR
        >>> scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
        >>> path = tempfile.mkdtemp() + "/run.csv"
        >>> with Observing(CsvSink(path), every=1) as sink:
        ...     unsubscribe = scheduler.subscribe(sink)
        ...     scheduler.step(2.5)
        ...     sink.log(val_loss=2.75)
        >>> _, *rows = Path(path).read_text().splitlines()
        >>> print(rows[0]); print(rows[-1])
        1,greedylr/lr,...
        1,val_loss,2.75
    """

    def __init__(self, sink: Sink, every: int = 10) -> None:
        _check(every)
        self._sink, self._every = sink, every
        self._step: int | None = None  # the last one
        self.closed = False
        """True if the sink was closed: decisions are then not sent any more."""

    def watch(self, observed: object) -> None:
        """Take note of the step that a run is at; called by the scheduler, also when a state was loaded."""
        step = getattr(observed, "last_epoch", None)
        if step is not None and not self.closed:
            self._go_back(int(step))

    def __call__(self, decision: Decision) -> None:
        """Send one decision."""
        if self.closed:
            return
        if self._step is None or decision.step <= self._step:
            self._go_back(decision.step - 1)
        self._step = decision.step
        notable = decision.action not in _PLAIN
        if notable or decision.step % self._every == 0:
            values = _rates(decision.lr_after) | {"greedylr/loss": decision.loss}
            if notable:
                values[f"greedylr/{decision.action.name.lower()}"] = 1.0
            self._sink.write(decision.step, values)

    def log(self, *, step: int | None = None, **metrics: Any) -> None:
        """Send further numbers of the last step, all of them, as :meth:`greedylr.pulse.Recorder.log` records them.

        Args:
            step: The step they belong to; None: the last one decided.
            **metrics: Numbers, or tensors with one element (which are read, and waited for).

        Raises:
            ValueError: If the sink was closed.
        """
        if self.closed:
            raise ValueError("this sink is closed")
        # A tensor may be part of a graph, of which float() would warn.
        values = {name: float(value.item() if hasattr(value, "item") else value) for name, value in metrics.items()}
        if self._step is None:
            self._go_back(0)
        self._sink.write(self._step or 0 if step is None else step, values)

    def close(self) -> None:
        """Close the sink; the run may go on."""
        if not self.closed:
            self.closed = True
            self._sink.close()

    def _go_back(self, step: int) -> None:
        if step != self._step:
            self._step = step
            _go_back(self._sink, step)

    def __enter__(self) -> Observing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def send(trace: Trace, sink: Sink, every: int = 10) -> None:
    """Hand a recorded run to a sink: losses, learning rates, decisions, and every metric that was logged.

    Args:
        trace: The run.
        sink: Where it goes; it is not closed.
        every: Steps between two losses that are sent.

    Raises:
        ValueError: If ``every`` is less than 1.
    """
    _check(every)
    notable = {one.step: one for one in trace.decisions if one.action not in _PLAIN}
    values: dict[int, dict[str, float]] = {}
    for row in np.flatnonzero(trace.steps % every == 0).tolist():
        rates = _rates(tuple(trace.lrs[row].tolist()))
        values[int(trace.steps[row])] = rates | {"greedylr/loss": float(trace.losses[row])}
    for step, one in notable.items():
        values.setdefault(step, {}).update(
            _rates(one.lr_after) | {"greedylr/loss": one.loss, f"greedylr/{one.action.name.lower()}": 1.0}
        )
    for name, metric in trace.metrics.items():
        for step, value in zip(metric.steps.tolist(), metric.values.tolist()):
            values.setdefault(step, {})[name] = value
    _go_back(sink, 0)
    for step in sorted(values):  # Weights & Biases refuses steps that go back.
        sink.write(step, values[step])


class TensorBoardSink:
    """Event files for TensorBoard.

    Args:
        folder: Where they go. Where a run goes back, later steps of everything in this folder are hidden.

    Raises:
        ImportError: If ``tensorboard`` is not installed.
    """

    _SUFFIX = ".greedylr"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._begin: Callable[..., Any] = SummaryWriter
        self._folder = os.fspath(folder)
        self._writer: Any = None
        self._silent = rank() != 0
        self._after = 0  # the step that the next file goes on after

    def go_back(self, step: int) -> None:
        """Go on after a step."""
        self.close()
        self._after = step

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._silent:
            return
        if self._writer is None:
            earlier = any(Path(self._folder).glob(f"events.*{self._SUFFIX}"))
            void = (self._after + 1 if self._after else 0) if earlier else None
            self._writer = self._begin(self._folder, purge_step=void, filename_suffix=self._SUFFIX)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write and close the file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class WandbSink:
    """A run of Weights & Biases; set ``mode="offline"`` for a local one.

    Args:
        run: A run that is going on; None: one is begun with ``settings``, and finished by :meth:`close`.
        **settings: For ``wandb.init``.

    Raises:
        ImportError: If ``wandb`` is not installed.
    """

    def __init__(self, run: Any = None, **settings: Any) -> None:
        self._own = run is None
        self._run: Any = None
        self._last, self._again = 0, range(0)  # the last step, and those that are there already
        if rank():
            return
        if run is None:
            wandb = import_module("wandb")

            run = wandb.init(**settings)
        self._run = run
        # Its own axis: the run's step may be advanced by others.
        self._run.define_metric("greedylr/step", hidden=True)
        self._run.define_metric("greedylr/*", step_metric="greedylr/step")
        self._last = int(self._run.summary.get("greedylr/step", 0))
        self._again = range(1, self._last + 1)

    def go_back(self, step: int) -> None:
        """Go on after a step; what is there of later ones stays."""
        self._again = range(step + 1, self._last + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._run is not None and step not in self._again:
            self._last = max(self._last, step)
            self._run.log({**values, "greedylr/step": step})

    def close(self) -> None:
        """Finish the run if it was begun here."""
        if self._own and self._run is not None:
            self._run.finish()


class MlflowSink:
    """A run of MLflow, in whatever store its client is set to.

    Args:
        run_id: A run that is there; None: one is made in ``experiment``, and ended by :meth:`close`.
        experiment: Name of the experiment; made if need be.
        tracking_uri: Of the store; None: the client's.

    Raises:
        ImportError: If ``mlflow`` is not installed.
    """

    _PACKED = 500  # What the server takes at once, with room to spare.

    def __init__(
        self, run_id: str | None = None, experiment: str = "greedylr", tracking_uri: str | None = None
    ) -> None:
        self._metric = import_module("mlflow.entities").Metric
        self._client = import_module("mlflow.tracking").MlflowClient(tracking_uri)
        self._own = run_id is None
        self._silent = rank() != 0
        if run_id is None and not self._silent:
            found = self._client.get_experiment_by_name(experiment)
            number = self._client.create_experiment(experiment) if found is None else found.experiment_id
            run_id = str(self._client.create_run(number).info.run_id)
        self.run_id = run_id
        """The run."""
        self._waiting: list[Any] = []
        self._after = 0  # the step that the run went on after
        self._last: dict[str, int] = {}  # the last step of each metric
        self._there: dict[str, int] = {}  # the same, when the run went on

    def go_back(self, step: int) -> None:
        """Go on after a step; what is there of later ones stays."""
        self._after, self._there = step, dict(self._last)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._silent:
            return
        now = int(1000 * time.time())
        for name, value in values.items():
            if name not in self._last:
                self._last[name] = self._there[name] = self._last_of(name)
            if not self._after < step <= self._there.get(name, -1):
                self._last[name] = max(self._last[name], step)
                self._waiting.append(self._metric(name, value, now, step))
        if len(self._waiting) >= self._PACKED:
            self._send()

    def close(self) -> None:
        """Send the rest, and end the run if it was made here."""
        self._send()
        if self._own and not self._silent:
            self._client.set_terminated(self.run_id)

    def _last_of(self, name: str) -> int:
        history = [] if self._own else self._client.get_metric_history(self.run_id, name)
        return max((one.step for one in history), default=-1)

    def _send(self) -> None:
        for first in range(0, len(self._waiting), self._PACKED):
            self._client.log_batch(self.run_id, metrics=self._waiting[first : first + self._PACKED])
        self._waiting = []


class CsvSink:
    """A CSV file with a row for each number: step, name, value; whole in the file as soon as it is sent.

    Args:
        file: The file. If it is there, it is replaced, but that a run that is resumed goes on in it.

    Raises:
        OSError: If it cannot be written.
    """

    _HEAD = ("step", "name", "value")

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self._path = Path(file)
        self._file = None if rank() else self._open()
        self._void: int | None = 0  # the step after which rows are taken out before the next one is written

    def go_back(self, step: int) -> None:
        """Go on after a step: rows of later ones are taken out, as soon as there are new ones."""
        self._void = step

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._file is None:
            return
        if self._void is not None:
            self._file = self._take_out(self._file, self._void)
            self._void = None
        csv.writer(self._file).writerows([step, cell(name), repr(float(value))] for name, value in values.items())

    def close(self) -> None:
        """Write and close the file."""
        if self._file is not None:
            self._file.close()

    def _take_out(self, file: TextIO, after: int) -> TextIO:
        if not self._path.is_file():  # a pipe
            csv.writer(file).writerow(self._HEAD)
            return file
        file.close()
        rows = [row for row in self._rows() if int(row[0]) <= after] if after else []
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self._HEAD, *rows])
        write_whole(self._path.resolve(), text.getvalue())
        return self._open()

    def _open(self) -> TextIO:
        return open(self._path, "a", buffering=1, newline="", encoding="utf-8", errors="replace")

    def _rows(self) -> list[list[str]]:
        """Rows that a sink has written there, without one that a crash has torn."""
        with open(self._path, newline="", encoding="utf-8", errors="replace") as file:
            whole, _, _ = file.read().rpartition("\n")
        head, *rows = [*csv.reader(io.StringIO(whole, newline=""))] or [[]]
        if head != [*self._HEAD]:
            return []
        return [row for row in rows if len(row) == 3 and row[0].isdecimal()]


def _go_back(sink: Sink, step: int) -> None:
    go_back = getattr(sink, "go_back", None)
    if go_back is not None:
        go_back(step)


def _check(every: int) -> None:
    if every < 1:
        raise ValueError(f"every must be an integer of at least 1, got {every!r}")


def _rates(lrs: tuple[float, ...]) -> dict[str, float]:
    return {"greedylr/lr" if group == 0 else f"greedylr/lr_{group}": lr for group, lr in enumerate(lrs)}
