"""Observers: whoever is told of every decision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from greedylr.control.decision import Decision

Observer = Callable[[Decision], object]
"""Takes every decision; what it returns is not looked at.

One that has a method ``watch`` is told by it, before the first decision and whenever a state was loaded, whom it
observes: something with the settings in force as ``config``, and possibly with an ``optimizer`` and the
``composition`` of the batch.

One that has a method ``log`` is handed further numbers as keyword arguments, which belong to the last decision: what
adapters know of validation, under names that begin with ``val`` or ``eval``. Not if it has an attribute ``closed`` that
is true.
"""


def introduce(observer: Observer, observed: object) -> None:
    """Tell an observer that wants to know it whom it is about to observe."""
    watch = getattr(observer, "watch", None)
    if watch is not None:
        watch(observed)


def tell(observers: Iterable[Observer], decision: Decision) -> None:
    """Call every observer with a decision.

    Raises:
        BaseException: Whatever the first observer raises, when all have been called; an interrupt goes first.
    """
    failed: BaseException | None = None
    for observer in observers:
        try:
            observer(decision)
        except BaseException as error:  # It must not cost the others this step.
            failed = _first(failed, error)
    if failed is not None:
        raise failed


def hand_on(observers: Iterable[Observer], metrics: Mapping[str, Any]) -> None:
    """Give observers that take them the numbers of a validation; what is no number is left out.

    Raises:
        BaseException: As :func:`tell`.
    """
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}
    failed: BaseException | None = None
    for observer in observers:
        log = getattr(observer, "log", None)
        if log is not None and numbers and not getattr(observer, "closed", False):
            try:
                log(**numbers)
            except BaseException as error:
                failed = _first(failed, error)
    if failed is not None:
        raise failed


def _first(failed: BaseException | None, error: BaseException) -> BaseException:
    return error if failed is None or (isinstance(failed, Exception) and not isinstance(error, Exception)) else failed
