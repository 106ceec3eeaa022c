"""Time that passes, a fork, and the end of the process: events that a recorder is not called for."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greedylr.pulse.recording.recorder import Recorder


class Lifecycle:
    """Tells a recorder that time is up, that the process was forked, and of the error that ends the process.

    Of one piece with :class:`Recorder`, whose own methods it calls, and which it does not keep alive.

    Args:
        recorder: Whom to tell.
        seconds: Time between two ticks.
    """

    def __init__(self, recorder: Recorder, seconds: float) -> None:
        self._recorder = weakref.ref(recorder)
        self._stop = threading.Event()
        self._before = sys.excepthook
        self._mine = self._excepthook
        sys.excepthook = self._mine
        atexit.register(self._at_exit)
        threading.Thread(target=_tick, args=(self._recorder, self._stop, seconds), daemon=True).start()
        _open_recorders.add(recorder)

    def end(self) -> None:
        """Tell nothing from now on."""
        self._stop.set()
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


def _tick(reference: weakref.ref[Recorder], stop: threading.Event, seconds: float) -> None:
    # A recorder that is forgotten is none to wait for.
    while not stop.wait(seconds):
        recorder = reference()
        if recorder is None:
            return
        recorder._tick()
        del recorder
