"""Observers: whoever is told of every decision."""

from __future__ import annotations

from collections.abc import Callable

from greedylr.control.decision import Decision

Observer = Callable[[Decision], object]
"""Takes every decision; what it returns is not looked at.

One that has a method ``watch`` is told by it, before the first decision and whenever a state was loaded, whom it
observes: something with the settings in force as ``config``, and possibly with an ``optimizer`` and the composition of
the ``batch``.
"""


def introduce(observer: Observer, observed: object) -> None:
    """Tell an observer that wants to know it whom it is about to observe."""
    watch = getattr(observer, "watch", None)
    if watch is not None:
        watch(observed)
