"""An observer that keeps the trace of a run in a folder, at about a microsecond a step."""

from __future__ import annotations

import math
import operator
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import greedylr
from greedylr.control.decision import Action, Decision
from greedylr.control.observers import Observer
from greedylr.pulse.recording import storage
from greedylr.pulse.recording.journal import Journal
from greedylr.pulse.recording.lifecycle import Lifecycle
from greedylr.pulse.recording.ranks import rank

Scalar = float | str

WRITE_EVERY = 0.5
"""Seconds after which what was recorded is handed to the operating system: by the next step, or, if there is none for
as long again, without it. 0: at every step."""

MOST_STEPS = 1024
"""Steps after which it is handed over without waiting for that, so that memory has a bound however fast they are."""

# Looked up at every step.
_QUIET = storage.QUIET


class Scheduler(Protocol):
    """Interface that the recorder needs of a scheduler: :class:`greedylr.GreedyLR` has it."""

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """Call ``observer`` with every decision, having told it by ``watch`` whom it observes."""


class Recorder:
    """Keeps every loss, learning rate and decision of a run, and whatever else is logged, in a folder.

    What was recorded is written twice a second, or after 1,024 steps if those are faster, in whole lines, so that a
    crash or ``kill -9`` loses at most the last second, memory has a bound, and a file that is being written can be
    read. A folder that holds a trace is continued: steps that are done again, after a checkpoint was loaded, replace
    those from before. On ranks other than 0 (see :func:`greedylr.pulse.recording.ranks.rank`), and in processes that
    are forked, nothing is recorded.

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
        self._told: deque[tuple[Decision, dict[str, Any] | None]] = deque()  # not yet in columns
        self._logged: deque[tuple[int, dict[str, float]]] = deque()  # likewise
        self._lrs: tuple[float, ...] | None = None  # after the last step that is in columns
        self._before: tuple[float, ...] | None = None  # before the first step of this stretch, until it is written
        self._quiet: Action | None = None  # the last that compared nothing; None: unknown
        self._last_foreign = -math.inf
        self._due = WRITE_EVERY == 0  # for the next step to write
        self._clear()
        self._lifecycle: Lifecycle | None = None
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
            self._write({"config": storage.settings(scheduler.config)})

    def __call__(self, decision: Decision) -> None:
        """Record one decision."""
        if self._journal is None:
            return
        step = decision.step
        if step != self._step + 1:
            self._jump(step)
        self._step = step
        composition = None if self._observed is None else self._observed.composition
        # Without the lock, which would take as long as all the rest: a deque is safe by itself. Columns can wait. The
        # composition cannot: its owner may use it again.
        self._told.append((decision, None if composition is None else dict(composition)))
        if self._due or not step % MOST_STEPS:
            with self._lock:
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
        if self._journal is None:
            self._check_open()
            return
        at = self._step if step is None else _checked(step)
        for name, value in metrics.items():
            if value.__class__ is not float:
                metrics[name] = storage.as_float(value)
        self._logged.append((at, metrics))

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
            if self._lifecycle is not None:
                self._lifecycle.end()
            try:
                self._look_at_optimizer()
                self._flush()
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
        self._lifecycle = Lifecycle(self, max(WRITE_EVERY, 0.05))

    def _abandon(self) -> None:
        """A start that failed leaves no lock, no thread and no hook."""
        self._closed = True
        if self._lifecycle is not None:
            self._lifecycle.end()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _after_fork(self) -> None:
        """Let go of the file in a child: it is the parent's, and a lock that is held would be held for ever."""
        self._lock = threading.RLock()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path}: this recorder is closed")

    def _clear(self) -> None:
        self._first = 0  # the first step of this block, if there is one
        self._losses: list[float] = []
        self._changes: list[tuple[int, tuple[float, ...]]] = []
        self._decisions: list[Decision] = []
        self._found: list[tuple[int, tuple[float, ...]]] = []
        self._phases: list[tuple[int, str]] = []
        self._batches: list[tuple[int, dict[str, Any]]] = []
        self._metrics: dict[str, tuple[list[int], list[float]]] = {}

    def _jump(self, step: int) -> None:
        """Steps are left out, or done again: another block."""
        if self._counts and step <= self._step:
            raise ValueError(
                f"{self.path}: step {step} follows step {self._step}: two schedulers tell this recorder their "
                f"decisions; give each a recorder and a folder of its own"
            )
        with self._lock:
            self._flush()
            self._go_on_after(step - 1)

    def _go_on_after(self, step: int) -> None:
        """Forget the steps before, which may not be those that led here."""
        self._step = step
        # A checkpoint or a rescue may have set another learning rate: that is nobody else's.
        self._lrs = self._quiet = None

    def _sort(self) -> None:
        """Put into columns what was told and logged; what cannot be, as the disk is full, stays for the next time."""
        logged = len(self._logged)  # Before all else, so that no number comes before its step.
        for _ in range(len(self._told)):
            decision, composition = self._told[0]
            step, loss, action, before, after, _ = decision
            known, quiet = self._lrs, self._quiet
            if after is not known and after != known:
                if self._changes and len(after) != len(self._changes[-1][1]):
                    self._write_block()  # A group joined: all steps of a block have as many.
                self._changes.append((step, after))
            self._told.popleft()
            if known is None:
                self._before = before
            if not self._losses:
                self._first = step
            self._losses.append(loss)
            self._lrs = after
            if composition is not None:
                self._batches.append((len(self._losses) - 1, composition))
            foreign = before is not known and known is not None and before[: len(known)] != known
            compared = action is not quiet and action not in _QUIET
            if compared or foreign:
                if before != known:
                    self._found.append((len(self._decisions), before))
                self._decisions.append(decision)
            another = action is not quiet and not compared
            if another and not (action in storage.WITHIN and quiet is not Action.WARMING_UP):
                if action in storage.PHASES or quiet in storage.PHASES or quiet is None:
                    self._phases.append((step, action.name if action in storage.PHASES else ""))
                self._quiet = action
            if foreign and known is not None:  # The paper family counts from what it finds.
                self._note_foreign(step, before[0], known[0])
        for _ in range(logged):
            at, metrics = self._logged.popleft()
            for name, value in metrics.items():
                try:
                    steps, values = self._metrics[name]
                except KeyError:
                    steps, values = self._metrics[name] = ([], [])
                steps.append(at)
                values.append(value)

    def _look_at_optimizer(self) -> None:
        """Note it if somebody else has set the learning rate since the last step; never on a device."""
        self._sort()
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
            self._note_foreign(self._step, float(lr), self._lrs[0])

    def _note_foreign(self, step: int, found: float, written: float) -> None:
        """Note a learning rate that is not the scheduler's; once in a while is enough."""
        now = time.monotonic()
        if now >= self._last_foreign + WRITE_EVERY:
            self._last_foreign = now
            self._write({"foreign": {"step": step, "found": storage.number(found), "written": written}})

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

    def _flush(self) -> None:
        self._sort()
        self._write_block()

    def _write_block(self) -> None:
        if not (self._losses or self._metrics):
            return
        if self._journal is None:
            self._clear()
            return
        first = self._first if self._losses else self._step + 1
        record: dict[str, Any] = {"first": first, "seconds": round(time.monotonic() - self._began, 3)}
        if self._losses:
            record["loss"] = storage.doubles(self._losses)
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
            record["decisions"] = storage.decisions(self._decisions, self._found)
        if self._batches:
            record["batch"] = storage.columns(self._batches)
        if self._metrics:
            record["metrics"] = {
                name: [storage.steps(steps), storage.doubles(values)] for name, (steps, values) in self._metrics.items()
            }
        self._journal.write(record)
        self._clear()

    def _write(self, record: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.write(record)


def _checked(step: int) -> int:
    at = operator.index(step)
    if at < 0:
        raise ValueError(f"step must be at least 0, got {step!r}")
    return at


def _nothing() -> None:
    pass
