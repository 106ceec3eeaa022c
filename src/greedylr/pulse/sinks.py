"""The same decisions and numbers in other people's tools, through their own client libraries.

A sink is an observer, to be subscribed beside a :class:`~greedylr.pulse.Recorder` or instead of it, and
:func:`send` hands a recorded trace to one, after the run or for runs that are long over.

Every sink gets, by step: ``greedylr/loss`` and ``greedylr/lr`` (of several groups ``greedylr/lr_1`` and so on), every
``every`` steps and at every decision, and ``greedylr/<action>`` with 1 at the step of each decision that is not a
plain hold. What was logged has the name that it was logged under. On ranks other than 0 nothing is sent, and no file or
run is made.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import Any, Protocol

from greedylr.control.decision import Action, Decision
from greedylr.extras import missing
from greedylr.pulse.ranks import rank
from greedylr.pulse.storage import QUIET, cell
from greedylr.pulse.trace import Trace

try:
    import numpy as np
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error

_PLAIN = QUIET | {Action.NOT_SIGNIFICANT}


class Sink(Protocol):
    """Where numbers go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""

    def close(self) -> None:
        """Hand everything over."""

    def go_back(self, step: int) -> None:
        """The steps after this one are done again: what was sent of them no longer counts."""


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
        self._step = 0  # the last one
        self.closed = False
        """Whether the ``with`` block is over: decisions are then not sent any more."""

    def watch(self, scheduler: Any) -> None:
        """Called by the scheduler: a state that was loaded may have taken it to another step."""
        step = int(getattr(scheduler, "last_epoch", self._step))
        if step != self._step and not self.closed:
            self._sink.go_back(step)
        self._step = step

    def __call__(self, decision: Decision) -> None:
        """Send one decision."""
        if self.closed:
            return
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
            ValueError: If the ``with`` block is over.
        """
        if self.closed:
            raise ValueError("this sink is closed")
        # A tensor may be part of a graph, of which float() would warn.
        values = {name: float(value.item() if hasattr(value, "item") else value) for name, value in metrics.items()}
        self._sink.write(self._step if step is None else step, values)

    def __enter__(self) -> Observing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closed = True
        self._sink.close()


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
    for step in sorted(values):  # Weights & Biases refuses steps that go back.
        sink.write(step, values[step])


class TensorBoardSink:
    """Event files for TensorBoard.

    Args:
        folder: Where they go.

    Raises:
        ImportError: If ``tensorboard`` is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open = partial(SummaryWriter, os.fspath(folder))
        self._writer: Any = None if rank() else self._open()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write and close the file."""
        if self._writer is not None:
            self._writer.close()

    def go_back(self, step: int) -> None:
        """Begin another file that takes the place of the others from there on."""
        if self._writer is not None:
            self._writer.close()
            self._writer = self._open(purge_step=step + 1)


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
        if rank():
            return
        if run is None:
            wandb = import_module("wandb")

            run = wandb.init(**settings)
        self._run = run
        # Its own axis: the run's step may be advanced by others.
        self._run.define_metric("greedylr/step", hidden=True)
        self._run.define_metric("greedylr/*", step_metric="greedylr/step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._run is not None:
            self._run.log({**values, "greedylr/step": step})

    def close(self) -> None:
        """Finish the run if it was begun here."""
        if self._own and self._run is not None:
            self._run.finish()

    def go_back(self, step: int) -> None:
        """A history is only ever added to: the axis ``greedylr/step`` goes back."""


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

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._silent:
            return
        now = int(1000 * time.time())
        self._waiting += [self._metric(name, value, now, step) for name, value in values.items()]
        if len(self._waiting) >= self._PACKED:
            self._send()

    def close(self) -> None:
        """Send the rest, and end the run if it was made here."""
        self._send()
        if self._own and not self._silent:
            self._client.set_terminated(self.run_id)

    def go_back(self, step: int) -> None:
        """What comes later has a later time, and is what MLflow shows of a step."""

    def _send(self) -> None:
        for first in range(0, len(self._waiting), self._PACKED):
            self._client.log_batch(self.run_id, metrics=self._waiting[first : first + self._PACKED])
        self._waiting = []


class CsvSink:
    """A CSV file with a row for each number: step, name, value; whole in the file as soon as it is sent.

    Args:
        file: The file; replaced if it is there.

    Raises:
        OSError: If it cannot be written.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self._file: Any = None
        if rank():
            return
        self._file = open(file, "w+", buffering=1, newline="", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._writer = csv.writer(self._file)
        self._writer.writerow(["step", "name", "value"])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        if self._file is not None:
            self._writer.writerows([step, cell(name), repr(float(value))] for name, value in values.items())

    def close(self) -> None:
        """Write and close the file."""
        if self._file is not None:
            self._file.close()

    def go_back(self, step: int) -> None:
        """Take out the rows of later steps."""
        if self._file is None:
            return
        self._file.seek(0)
        head, *rows = csv.reader(self._file)
        self._file.seek(0)
        self._file.truncate()
        self._writer.writerow(head)
        self._writer.writerows(row for row in rows if int(row[0]) <= step)


def _check(every: int) -> None:
    if every < 1:
        raise ValueError(f"every must be an integer of at least 1, got {every!r}")


def _rates(lrs: tuple[float, ...]) -> dict[str, float]:
    return {"greedylr/lr" if group == 0 else f"greedylr/lr_{group}": lr for group, lr in enumerate(lrs)}
