"""An observer that keeps the trace of a run in a folder, at about a microsecond a step."""

from __future__ import annotations

import atexit
import os
import platform
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import greedylr
from greedylr.control import plain
from greedylr.control.decision import Action, Decision
from greedylr.control.observers import Observer
from greedylr.pulse import storage

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Scalar = float | str

WRITE_EVERY = 0.5
"""Seconds: what was recorded longer ago has been handed to the operating system, at the latest by the next step."""

THIN_FROM = 20_000_000
"""Bytes from which on losses are thinned: every second step, and at each further eighth of it half of that."""

_QUIET = storage.QUIET  # looked up at every step

_THINNEST = 64  # Then the decisions, which are all kept, are most of the file.


class Scheduler(Protocol):
    """What the recorder needs of a scheduler: :class:`greedylr.GreedyLR` has it."""

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """Call ``observer`` with every decision, having told it by ``watch`` whom it observes."""


class Recorder:
    """Keeps every loss, learning rate and decision of a run, and whatever else is logged, in a folder.

    What was recorded is written twice a second, in whole lines, so that a crash or ``kill -9`` loses at most the last
    half second of steps, and a file that is being written can be read. A folder that holds a trace is continued:
    steps that are done again, after a checkpoint was loaded, replace those from before. From 20 MB on losses are
    thinned: decisions, spikes and the largest loss of each stretch are kept. On ranks other than 0 (environment
    variable
    ``RANK``) nothing is recorded.

    It is an observer: give it the scheduler, or hand it to an adapter as one of its ``observers``.

    Args:
        path: The folder; made if need be.
        scheduler: What to record; None: whatever it is subscribed to.
        meta: What to remember about the run, say ``{"task": "digits", "seed": 3}``; plain numbers and strings.

    Raises:
        OSError: If the folder cannot be written to, or another process is recording there: here, or from
            :meth:`GreedyLR.step` once the disk is full.
        TypeError: If something in ``meta`` is neither a number nor a string.

    Example:
        >>> import tempfile, torch
        >>> from greedylr import GreedyLR
        >>> from greedylr.pulse import Trace
        >>> scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
        >>> path = tempfile.mkdtemp()
        >>> with Recorder(path, scheduler) as recorder:
        ...     scheduler.step(2.5, batch={"domain": "news"})
        ...     recorder.log(grad_norm=0.3)
        ...     scheduler.step(float("inf"))
        >>> trace = Trace.load(path)
        >>> trace.losses.tolist(), [decision.action.name for decision in trace.decisions]
        ([2.5, inf], ['NON_FINITE'])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        scheduler: Scheduler | None = None,
        *,
        meta: Mapping[str, Scalar] | None = None,
    ) -> None:
        self.path = Path(path)
        self._meta = dict(meta or {})
        for name, value in self._meta.items():
            if not isinstance(value, (int, float, str)):
                raise TypeError(f"meta must hold numbers and strings, got {name}={value!r}")
        self._silent = os.environ.get("RANK", "0") != "0"
        self._observed: Any = None  # whose batches are recorded
        self._optimizer: Any = None
        self._unsubscribe: Callable[[], None] = _nothing
        self._began = time.time()
        self._process = os.getpid()
        self._clear()
        self._step = 0  # the last one
        self._lrs: tuple[float, ...] | None = None
        self._quiet = Action.GATHERING
        self._every = 1
        self._stretch: list[float] = []
        self._quiet_until = 0.0
        self._clock = time.monotonic
        self._due = self._clock() + WRITE_EVERY
        self._file: Any = None
        if not self._silent:
            self._open()
            # What ends the process ends the record; a recorder that is forgotten is none to wait for.
            self._hook = _Hook(self)
        if scheduler is not None:
            self._unsubscribe = scheduler.subscribe(self)

    def watch(self, scheduler: Any) -> None:
        """Record the settings of ``scheduler``; called by it, when this recorder is subscribed or a state was loaded.

        Args:
            scheduler: Has ``config``, the settings in force. If it has an ``optimizer`` with parameter groups, learning
                rates that somebody else sets there are noticed; if it has ``batch``, that is recorded at every step.
        """
        self._observed = scheduler if hasattr(scheduler, "batch") else None
        self._optimizer = getattr(scheduler, "optimizer", None)
        config = scheduler.config
        # What is derived from the settings is not among them.
        span = getattr(config, "window_length", None) or getattr(config, "window", None)
        settings = {"family": type(config).__name__, "span": span, **plain.to_dict(config)}
        self._flush()
        self._write({"config": settings})
        self._lrs = None  # A checkpoint or a rescue has set another one: that is nobody else's.

    def __call__(self, decision: Decision) -> None:
        """Record one decision."""
        step, loss, action, before, after, _ = decision
        if step != self._step + 1:
            self._flush()
            self._first = step
        self._step = step
        lrs = self._lrs
        if after is not lrs and after != lrs:
            self._change(step, after)
        if action not in _QUIET or (before is not lrs and lrs is not None and before[: len(lrs)] != lrs):
            self._keep(decision)
        if action is not self._quiet and action in _QUIET:
            if action in storage.PHASES or self._quiet in storage.PHASES:
                self._phases.append((step, action.name if action in storage.PHASES else ""))
            self._quiet = action
        self._lrs = after
        if self._every == 1:
            self._losses.append(loss)
        else:
            self._thin(step, loss)
        if self._observed is not None:
            batch = self._observed.batch
            if batch is not None and (self._every == 1 or step % self._every == 0):
                self._batches.append((len(self._losses) - 1, batch))
        if self._clock() > self._due:
            self._look_at_optimizer()
            self._flush()

    def _change(self, step: int, lrs: tuple[float, ...]) -> None:
        if self._changes and len(lrs) != len(self._changes[-1][1]):  # A group joined: one number of them in a block.
            self._step = step - 1
            self._flush()
            self._step = step
        self._changes.append((step, lrs))

    def _keep(self, decision: Decision) -> None:
        before, known = decision.lr_before, self._lrs
        if before != known:
            self._found.append((len(self._decisions), before))
            if known is not None and before[: len(known)] != known:  # The paper family counts from what it finds.
                self._note_foreign(before[0])
        self._decisions.append(decision)

    def log(self, *, step: int | None = None, **metrics: Any) -> None:
        """Record further numbers of the last step, such as ``val_loss``, ``probe_loss`` or ``grad_norm``.

        A ``probe_loss``, that of one fixed batch, is the judge of decisions. Validation is what begins with ``val``
        or ``eval``.

        Args:
            step: The step they belong to; None: the last one recorded.
            **metrics: Numbers, or tensors with one element (which are read, and waited for).
        """
        at = self._step if step is None else step
        for name, value in metrics.items():
            kept = self._metrics.get(name)
            if kept is None:
                kept = self._metrics[name] = ([], [])
            steps, values = kept
            if self._every > 1 and at - (steps[-1] if steps else self._logged.get(name, -self._every)) < self._every:
                continue
            if value.__class__ is not float:
                # A tensor may be part of a graph, of which float() would warn.
                value = float(value.item() if hasattr(value, "item") else value)
            steps.append(at)
            values.append(value)
        if self._clock() > self._due:
            self._flush()

    def mark(self, name: str, **details: Scalar) -> None:
        """Mark the last step with words, say ``mark("shard", number=7)`` or ``mark("disruption")``.

        Args:
            name: What happened; shown on the page.
            **details: Numbers and strings about it.
        """
        self._flush()
        self._write({"mark": {"step": self._step, "name": name, "details": details}})

    def fail(self, error: BaseException) -> None:
        """Record that something broke; what leaves the ``with`` block, or ends the process, comes here by itself.

        Args:
            error: What was raised.
        """
        self._flush()
        # Named, as torch is not imported here: OutOfMemoryError of torch, MemoryError of Python.
        kind = type(error).__name__
        memory = isinstance(error, MemoryError) or kind == "OutOfMemoryError"
        record = {"step": self._step, "kind": kind, "message": str(error)[:1000], "out_of_memory": memory}
        self._write({"failure": record})

    def flush(self) -> None:
        """Hand everything to the operating system now."""
        self._flush()

    def close(self) -> None:
        """Write the rest, stop observing, and end the record as finished."""
        self._close("finished")

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._file is not None:
            self.fail(error)
        self._close("finished" if error is None else "failed")

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._close("finished")

    def _close(self, how: str) -> None:
        self._unsubscribe()
        self._unsubscribe = _nothing
        if self._file is None:
            return
        self._hook.remove()
        if os.getpid() == self._process:  # else a fork, which shares the file
            self._look_at_optimizer()
            self._flush()
            self._write({"end": how, "time": time.time()})
        self._file.close()
        self._file = None

    def _open(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        file = open(self.path / storage.FILE, "ab+", buffering=0)  # noqa: SIM115 (closed by _close)
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    raise OSError(error.errno, f"another recorder is writing to {self.path}") from error
            self._size = _drop_torn_line(file)
        except BaseException:
            file.close()
            raise
        self._file = file
        started = {
            "format": storage.FORMAT,
            "time": self._began,
            "process": self._process,
            "host": platform.node(),
            "python": platform.python_version(),
            "greedylr": greedylr.__version__,
            "meta": self._meta,
        }
        self._write({"start": started})

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._means: list[float] = []
        self._highs: list[float] = []
        self._changes: list[tuple[int, tuple[float, ...]]] = []
        self._decisions: list[Decision] = []
        self._found: list[tuple[int, tuple[float, ...]]] = []
        self._phases: list[tuple[int, str]] = []
        self._batches: list[tuple[int, Mapping[str, Any]]] = []
        self._metrics: dict[str, tuple[list[int], list[float]]] = {}
        self._logged: dict[str, int] = getattr(self, "_logged", {})
        self._first = getattr(self, "_step", 0) + 1

    def _thin(self, step: int, loss: float) -> None:
        """Keep the steps that are multiples, and the mean and the largest loss since the one before."""
        self._stretch.append(loss)
        if step % self._every == 0:
            self._losses.append(loss)
            self._means.append(sum(self._stretch) / len(self._stretch))
            self._highs.append(max(self._stretch))
            self._stretch.clear()
            if len(self._losses) == 1:
                self._first = step

    def _look_at_optimizer(self) -> None:
        """Whether somebody else has set the learning rate since; seldom, and never on a device."""
        if self._optimizer is None or self._lrs is None:
            return
        group = self._optimizer.param_groups[0]
        lr = group["lr"]
        if lr.__class__ is not float and not isinstance(lr, (int, float)):
            if getattr(getattr(lr, "device", None), "type", "") != "cpu":
                return
            lr = float(lr)
            if abs(lr - self._lrs[0]) <= 1e-6 * abs(self._lrs[0]):
                return  # the same in float32
        if lr != self._lrs[0]:
            self._note_foreign(float(lr))

    def _note_foreign(self, found: float) -> None:
        """Note a learning rate that is not the scheduler's; once in a while is enough."""
        now = self._clock()
        if self._lrs is not None and now >= self._quiet_until:
            self._quiet_until = now + WRITE_EVERY
            self._write({"foreign": {"step": self._step, "found": storage.number(found), "written": self._lrs[0]}})

    def _flush(self) -> None:
        self._due = self._clock() + WRITE_EVERY
        if not (self._losses or self._decisions or self._metrics or self._changes):
            return
        if self._silent:
            self._clear()
            return
        record: dict[str, Any] = {"first": self._first, "n": len(self._losses), "last": self._step}
        record["seconds"] = round(time.time() - self._began, 3)
        if self._losses:
            record["loss"] = storage.doubles(self._losses)
        if self._every > 1:
            record["every"] = self._every
            if self._means:
                record["mean"], record["high"] = storage.singles(self._means), storage.singles(self._highs)
        if self._changes:
            record["lr"] = {
                "step": storage.steps([step for step, _ in self._changes]),
                "groups": len(self._changes[-1][1]),
                "value": storage.doubles([lr for _, lrs in self._changes for lr in lrs]),
            }
        if self._phases:
            record["phases"] = self._phases
        if self._decisions:
            record["decisions"] = storage.decisions(self._decisions, self._found, self._every > 1)
        if self._batches:
            record["batch"] = _columns(self._batches)
        if self._metrics:
            record["metrics"] = {
                name: [storage.steps(steps), storage.doubles(values)]
                for name, (steps, values) in self._metrics.items()
                if steps
            }
            self._logged.update({name: steps[-1] for name, (steps, _) in self._metrics.items() if steps})
        self._clear()
        self._write(record)
        over = self._size - THIN_FROM
        self._every = 1 if over < 0 else min(2 ** (1 + 8 * over // THIN_FROM), _THINNEST)

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is None:
            if not self._silent:
                raise ValueError(f"{self.path}: this recorder is closed")
            return
        line = storage.to_line(record)
        if self._file.write(line) != len(line):
            raise OSError(f"{self.path}: the disk took only part of a line")
        self._size += len(line)


class _Hook:
    """Tells a recorder of the error that ends the process, in place of those who forget to close it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = weakref.ref(recorder)
        self._before = sys.excepthook
        self._mine = self._excepthook
        sys.excepthook = self._mine
        atexit.register(self._at_exit)

    def remove(self) -> None:
        # Whoever hooked in later calls this one, which finds the recorder closed and hands on.
        if sys.excepthook is self._mine:
            sys.excepthook = self._before
        atexit.unregister(self._at_exit)

    def _excepthook(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        recorder = self._recorder()
        if recorder is not None and recorder._file is not None:
            recorder.fail(error)
            recorder._close("failed")
        self._before(kind, error, traceback)

    def _at_exit(self) -> None:
        recorder = self._recorder()
        if recorder is not None:
            recorder._close("finished")


def _nothing() -> None:
    pass


def _columns(batches: list[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """What the batches were made of, by column: numbers, or codes of labels; ``row`` where some steps had none."""
    columns: dict[str, Any] = {}
    names = dict.fromkeys(name for _, batch in batches for name in batch)
    for name in names:
        values = [batch.get(name) for _, batch in batches]
        try:
            columns[name] = storage.singles(values)  # type: ignore[arg-type]
            continue
        except TypeError:  # labels, or nothing at some steps
            found = dict.fromkeys(values)
        if any(isinstance(value, str) for value in found):
            labels = list(dict.fromkeys(str(value) for value in found if value is not None))
            codes = {label: code for code, label in enumerate(labels, start=1)}
            of_value = {value: 0 if value is None else codes[str(value)] for value in found}
            coded = [of_value[value] for value in values]
            wide = len(codes) > 255
            text = storage.counts(coded) if wide else storage.small(coded)
            columns[name] = {"labels": labels, "wide": wide, "code": text}
        else:
            columns[name] = storage.singles([float("nan") if value is None else float(value) for value in values])
    record: dict[str, Any] = {"columns": columns}
    if batches[-1][0] != len(batches) - 1:
        record["row"] = storage.counts([row for row, _ in batches])
    return record


def _drop_torn_line(file: Any) -> int:
    """Cut off what follows the last end of line, reading back block by block; the length that is left."""
    end: int = file.seek(0, os.SEEK_END)
    position = end
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            position = start + found + 1
            break
        position = start
    if position < end:
        file.truncate(position)
    return position
