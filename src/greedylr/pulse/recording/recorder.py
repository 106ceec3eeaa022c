"""An observer that keeps the trace of a run in a folder, at about a microsecond a step."""

from __future__ import annotations

import atexit
import math
import operator
import os
import platform
import sys
import threading
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
from greedylr.pulse.recording import storage
from greedylr.pulse.recording.journal import Journal
from greedylr.pulse.recording.ranks import rank

Scalar = float | str

WRITE_EVERY = 0.5
"""Seconds after which what was recorded is handed to the operating system: by the next step, or, if there is none for
as long again, without it. 0: at every step."""

THIN_FROM = 20_000_000
"""Bytes from which on losses are thinned: every second step, and at each further eighth of it half of that."""

_THINNEST = 64  # Then the decisions, which are all kept, are most of the file.

# Looked up at every step.
_QUIET = storage.QUIET


class Scheduler(Protocol):
    """Interface that the recorder needs of a scheduler: :class:`greedylr.GreedyLR` has it."""

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """Call ``observer`` with every decision, having told it by ``watch`` whom it observes."""


class Recorder:
    """Keeps every loss, learning rate and decision of a run, and whatever else is logged, in a folder.

    What was recorded is written twice a second, in whole lines, so that a crash or ``kill -9`` loses at most the last
    second, and a file that is being written can be read. A folder that holds a trace is continued: steps that are
    done again, after a checkpoint was loaded, replace those from before. From 20 MB on losses are thinned: decisions,
    spikes and the largest loss of each stretch are kept. On ranks other than 0 (see
    :func:`greedylr.pulse.recording.ranks.rank`), and in processes that are forked, nothing is recorded.

    It is an observer: give it the scheduler, or hand it to an adapter as one of its ``observers``. Close it, or use it
    in a ``with`` block. Any thread may log; a signal handler may not, but may set a flag for the loop to act on.

    Args:
        path: The folder; made if need be. One for each run, and for each scheduler.
        scheduler: What to record; None: whatever it is subscribed to.
        meta: What to remember about the run, say ``{"task": "digits", "seed": 3}``; plain numbers and strings.

    Raises:
        OSError: If the folder cannot be written to, or another process is recording there: here, or from
            :meth:`GreedyLR.step` once the disk is full, when nothing is lost yet.
        TypeError: If something in ``meta`` is neither a number nor a string.
        ValueError: If the folder holds something else under the name of a trace; from :meth:`GreedyLR.step`, if a
            second scheduler tells its decisions in between, so that steps go back.

    Example:
        >>> import tempfile, torch
        >>> from greedylr import GreedyLR
        >>> from greedylr.pulse import Trace
        >>> scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
        >>> path = tempfile.mkdtemp()
        >>> with Recorder(path, scheduler) as recorder:
        ...     scheduler.step(2.5, composition={"domain": "news"})
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
        self._meta = {name: storage.scalar(f"meta[{name!r}]", value) for name, value in (meta or {}).items()}
        self._lock = threading.RLock()  # Against threads that log, and the one that writes while no step is made.
        self._journal: Journal | None = None
        self._closed = False
        self._observed: Any = None  # whose batches are recorded
        self._optimizer: Any = None
        self._counts = False  # whether it is known how many steps were made before
        self._unsubscribe: Callable[[], None] = _nothing
        self._began = time.monotonic()
        self._step = 0  # the last one
        self._lrs: tuple[float, ...] | None = None  # after it
        self._before: tuple[float, ...] | None = None  # before the first step of this stretch, until it is written
        self._recorded: tuple[float, ...] | None = None  # the last that were recorded: of thinned steps, not all are
        self._quiet: Action | None = None  # the last that compared nothing; None: unknown
        self._every = 1
        self._stretch: list[float] = []  # losses since the last row that was kept
        self._logged: dict[str, int] = {}
        self._skipped: dict[str, tuple[int, float]] = {}
        self._last_foreign = -math.inf
        self._due = WRITE_EVERY == 0  # for the next step to write
        self._clear()
        self._hook: _Hook | None = None
        self._stop = threading.Event()
        try:
            if rank() == 0:
                self._journal = Journal(self.path)
                self._begin()
            if scheduler is not None:
                self._unsubscribe = scheduler.subscribe(self)
        except BaseException:
            self._abandon()
            raise

    def watch(self, scheduler: Any) -> None:
        """Record the settings of ``scheduler``; called by it, when this recorder is subscribed or a state was loaded.

        Args:
            scheduler: Has ``config``, the settings in force. If it has an ``optimizer`` with parameter groups, learning
                rates that somebody else sets there are noticed; if it has a ``composition``, that is recorded at every
                step; if it has ``last_epoch``, its number of steps so far, two schedulers that take turns are noticed.
        """
        with self._lock:
            self._flush()
            self._observed = scheduler if hasattr(scheduler, "composition") else None
            self._optimizer = getattr(scheduler, "optimizer", None)
            self._counts = hasattr(scheduler, "last_epoch")
            self._go_on_after(int(scheduler.last_epoch) if self._counts else self._step)
            config = scheduler.config
            # What is derived from the settings is not among them.
            span = getattr(config, "window_length", None) or getattr(config, "window", None)
            self._write({"config": {"family": type(config).__name__, "span": span, **plain.to_dict(config)}})

    def __call__(self, decision: Decision) -> None:
        """Record one decision."""
        if self._journal is None:
            return
        with self._lock:
            step, loss, action, before, after, _ = decision
            if step != self._step + 1:
                self._jump(step)
            lrs, recorded = self._lrs, self._recorded
            if lrs is None:
                self._before = before
            if self._every > 1:
                self._thin(step, loss, after)
            else:
                if after is not lrs and after != lrs:
                    self._change(step, after)
                self._losses.append(loss)
            self._step = step
            if action not in _QUIET or (before is not lrs and lrs is not None and before[: len(lrs)] != lrs):
                self._keep(decision, recorded)
            within = action in storage.WITHIN and self._quiet is not Action.WARMING_UP
            if action is not self._quiet and action in _QUIET and not within:
                if action in storage.PHASES or self._quiet in storage.PHASES or self._quiet is None:
                    self._phases.append((step, action.name if action in storage.PHASES else ""))
                self._quiet = action
            self._lrs = after
            if self._observed is not None:
                composition = self._observed.composition
                if composition is not None and (self._every == 1 or step % self._every == 0):
                    self._batches.append((len(self._losses) - 1, dict(composition)))  # Its owner may use it again.
            if self._due:
                self._due = WRITE_EVERY == 0
                self._look_at_optimizer()
                self._flush()

    def log(self, *, step: int | None = None, **metrics: Any) -> None:
        """Record further numbers of the last step, such as ``val_loss``, ``probe_loss`` or ``grad_norm``.

        A ``probe_loss``, that of one fixed batch, is the judge of decisions. Validation is what is called ``val`` or
        ``eval``, or begins with that and an underscore.

        Args:
            step: The step they belong to; None: the last one recorded.
            **metrics: Numbers, or tensors with one element (which are read, and waited for).

        Raises:
            TypeError: If ``step`` is no whole number, or a metric no number.
            ValueError: If ``step`` is negative, or the recorder is closed.
        """
        with self._lock:
            if self._journal is None:
                self._check_open()
                return
            at = self._step if step is None else _checked(step)
            for name, value in metrics.items():
                if value.__class__ is not float:
                    value = storage.as_float(value)
                try:
                    steps, values = self._metrics[name]
                except KeyError:
                    steps, values = self._metrics[name] = ([], [])
                if self._every > 1:
                    last = steps[-1] if steps else self._logged.get(name, -self._every)
                    if 0 <= at - last < self._every:
                        self._skipped[name] = at, value
                        continue
                    self._skipped.pop(name, None)
                steps.append(at)
                values.append(value)

    def mark(self, name: str, **details: Any) -> None:
        """Mark the last step with words, say ``mark("shard", number=7)`` or ``mark("disruption")``.

        Args:
            name: What happened; shown on the page.
            **details: Numbers and strings about it.

        Raises:
            TypeError: If a detail is neither.
            ValueError: If the recorder is closed.
        """
        noted = {key: storage.scalar(key, value) for key, value in details.items()}
        with self._lock:
            self._check_open()
            self._flush()
            self._write({"mark": {"step": self._step, "name": storage.label(name), "details": noted}})

    def fail(self, error: BaseException) -> None:
        """Record that something broke; what leaves the ``with`` block, or ends the process, comes here by itself.

        Args:
            error: What was raised.
        """
        # By name and words, as torch is not imported here: OutOfMemoryError on a device, RuntimeError on the host.
        kind, message = type(error).__name__, str(error)
        words = message.lower()
        memory = isinstance(error, MemoryError) or kind == "OutOfMemoryError"
        memory = memory or "out of memory" in words or "can't allocate memory" in words
        with self._lock:
            self._check_open()
            self._flush()
            failure = {"step": self._step, "kind": kind, "message": storage.label(message, 1000)}
            self._write({"failure": failure | {"out_of_memory": memory}})

    @property
    def closed(self) -> bool:
        """True if the record has ended."""
        return self._closed

    def flush(self) -> None:
        """Hand everything to the operating system now."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Write the rest, stop observing, and end the record as finished."""
        self._close("finished")

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        how = "finished"
        try:
            if error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0)):
                how = "failed"
                if not self._closed:
                    self.fail(error)
        finally:
            self._close(how)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self._close("abandoned")  # Nobody has said how it ended.

    def _close(self, how: str) -> None:
        with self._lock:
            self._unsubscribe()
            self._unsubscribe = _nothing
            if self._closed:
                return
            self._closed = True
            journal = self._journal
            if journal is None:
                return
            if self._hook is not None:
                self._hook.remove()
            self._stop.set()
            try:
                self._look_at_optimizer()
                self._flush()
                self._keep_the_last()
                journal.write({"end": how, "time": time.time()})
            finally:
                self._journal = None
                journal.close()

    def _begin(self) -> None:
        started = {
            "format": storage.FORMAT,
            "time": time.time(),
            "process": os.getpid(),
            "host": platform.node(),
            "python": platform.python_version(),
            "greedylr": greedylr.__version__,
            "meta": self._meta,
        }
        self._write({"start": started})
        # What ends the process ends the record; a recorder that is forgotten is none to wait for.
        self._hook = _Hook(self)
        threading.Thread(target=_tick, args=(weakref.ref(self), self._stop), daemon=True).start()
        _open_recorders.add(self)

    def _abandon(self) -> None:
        """A start that failed leaves no lock, no thread and no hook."""
        self._closed = True
        self._stop.set()
        if self._hook is not None:
            self._hook.remove()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _after_fork(self) -> None:
        """In the child: the file is the parent's, and a lock that is held would be held for ever."""
        self._lock = threading.RLock()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path}: this recorder is closed")

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._means: list[float] = []
        self._highs: list[float] = []
        self._changes: list[tuple[int, tuple[float, ...]]] = []
        self._decisions: list[Decision] = []
        self._found: list[tuple[int, tuple[float, ...]]] = []
        self._phases: list[tuple[int, str]] = []
        self._batches: list[tuple[int, dict[str, Any]]] = []
        self._troubled: list[tuple[int, dict[str, Any]]] = []  # of decisions at steps that have no row
        self._metrics: dict[str, tuple[list[int], list[float]]] = {}
        self._first = self._made = self._step + 1  # the first step in this block that has a row, and that was made

    def _jump(self, step: int) -> None:
        """Steps are left out, or done again: another block."""
        if self._counts and step <= self._step:
            raise ValueError(
                f"{self.path}: step {step} follows step {self._step}: two schedulers tell this recorder their "
                f"decisions; give each a recorder and a folder of its own"
            )
        self._flush()
        self._go_on_after(step - 1)

    def _go_on_after(self, step: int) -> None:
        """Forget the steps before, which may not be those that led here."""
        self._step = step
        self._first = self._made = step + 1
        # A checkpoint or a rescue may have set another learning rate: that is nobody else's.
        self._lrs = self._recorded = self._quiet = None
        self._stretch.clear()
        self._skipped.clear()

    def _change(self, step: int, lrs: tuple[float, ...]) -> None:
        if self._changes and len(lrs) != len(self._changes[-1][1]):
            self._flush(within_a_step=True)  # A group joined: there is one number of them in a block.
        self._changes.append((step, lrs))
        self._recorded = lrs

    def _keep(self, decision: Decision, recorded: tuple[float, ...] | None) -> None:
        step, _, _, before, after, _ = decision
        if after != self._recorded:
            self._change(step, after)
        if before != recorded:
            self._found.append((len(self._decisions), before))
        known = self._lrs
        if known is not None and before[: len(known)] != known:  # The paper family counts from what it finds.
            self._note_foreign(before[0])
        if self._every > 1 and decision.action in storage.TROUBLE and self._observed is not None:
            composition = self._observed.composition
            if composition is not None and step % self._every:
                self._troubled.append((len(self._decisions), dict(composition)))
        self._decisions.append(decision)

    def _thin(self, step: int, loss: float, lrs: tuple[float, ...]) -> None:
        """Keep the steps that are multiples."""
        self._stretch.append(loss)
        if step % self._every == 0:
            if lrs != self._recorded:
                self._change(step, lrs)
            self._row(step, loss)

    def _row(self, step: int, loss: float) -> None:
        """A row of a thinned part, with the mean and the largest loss since the one before."""
        if not self._losses:
            self._first = step
        finite = [one for one in self._stretch if math.isfinite(one)]
        self._losses.append(loss)
        self._means.append(sum(finite) / len(finite) if finite else math.nan)
        self._highs.append(max(finite, default=math.nan))
        self._stretch.clear()

    def _keep_the_last(self) -> None:
        """Keep the steps that thinning has left out, where nothing follows."""
        if self._stretch:
            self._first = self._step
            self._row(self._step, self._stretch[-1])
            if self._lrs is not None and self._lrs != self._recorded:
                self._changes.append((self._step, self._lrs))
        self._metrics.update({name: ([at], [value]) for name, (at, value) in self._skipped.items()})
        self._flush()

    def _look_at_optimizer(self) -> None:
        """True if somebody else has set the learning rate since; rare, and never on a device."""
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
        now = time.monotonic()
        if self._lrs is not None and now >= self._last_foreign + WRITE_EVERY:
            self._last_foreign = now
            self._write({"foreign": {"step": self._step, "found": storage.number(found), "written": self._lrs[0]}})

    def _tick(self) -> None:
        """Time is up: the next step is to write. What should have been written at the last tick is written now."""
        with self._lock:
            if not self._due:
                self._due = True
                return
            try:
                self._flush()
            except OSError:
                return  # It is kept, and whoever makes the next step, or closes, is told.

    def _flush(self, within_a_step: bool = False) -> None:
        # Of thinned steps nothing may be left but that they were made.
        if self._step < self._made and not (self._losses or self._metrics):
            return
        if self._journal is None:
            self._clear()
            return
        record: dict[str, Any] = {"first": self._first, "n": len(self._losses), "made": self._made, "last": self._step}
        record["seconds"] = round(time.monotonic() - self._began, 3)
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
        if self._before is not None:
            record["before"], self._before = storage.doubles(self._before), None
        if self._phases:
            record["phases"] = self._phases
        if self._decisions:
            record["decisions"] = storage.decisions(self._decisions, self._found, self._every > 1)
            if self._troubled:
                record["decisions"]["batch"] = storage.columns(self._troubled)
        if self._batches:
            record["batch"] = storage.columns(self._batches)
        metrics = {name: kept for name, kept in self._metrics.items() if kept[0]}
        if metrics:
            record["metrics"] = {
                name: [storage.steps(steps), storage.doubles(values)] for name, (steps, values) in metrics.items()
            }
        self._journal.write(record)
        self._logged.update({name: steps[-1] for name, (steps, _) in metrics.items()})
        if not within_a_step:
            over = self._journal.size - THIN_FROM
            self._every = 1 if over < 0 else min(2 ** (1 + 8 * over // THIN_FROM), _THINNEST)
        self._clear()

    def _write(self, record: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.write(record)


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
        if recorder is not None and not recorder._closed:
            recorder.fail(error)
            recorder._close("failed")
        self._before(kind, error, traceback)

    def _at_exit(self) -> None:
        recorder = self._recorder()
        if recorder is not None:
            recorder._close("finished")


_open_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _forked() -> None:
    for recorder in list(_open_recorders):
        recorder._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _tick(reference: weakref.ref[Recorder], stop: threading.Event) -> None:
    while not stop.wait(max(WRITE_EVERY, 0.05)):
        recorder = reference()
        if recorder is None:
            return
        recorder._tick()
        del recorder


def _checked(step: int) -> int:
    at = operator.index(step)
    if at < 0:
        raise ValueError(f"step must be at least 0, got {step!r}")
    return at


def _nothing() -> None:
    pass
