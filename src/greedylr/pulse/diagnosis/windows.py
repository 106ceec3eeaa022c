"""A run in consecutive windows, and its disruptions: what findings are told from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from greedylr.control.decision import Action
from greedylr.pulse.record import Floats, Ints, Record

LASTING = 20
"""Windows that a new level must last, if the run does."""

_EXTRAORDINARY = frozenset({Action.SPIKE, Action.EXPLOSION})


class Upset(NamedTuple):
    """A disruption, until the loss is back where it was.

    Attributes:
        first: The step where it begins.
        last: The last step before the loss is back; the last of the run if it never is.
        over: Whether the loss came back.
        marked: Whether the user marked it.
    """

    first: int
    last: int
    over: bool
    marked: bool


@dataclass(frozen=True)
class Windows:
    """Consecutive windows of a run.

    Attributes:
        size: Steps in each.
        first: First step of each.
        last: Last step of each.
        mean: Mean loss, lower is better.
        spread: Standard deviation of the losses.
        count: Losses in it.
        lr: Learning rate at its end.
        upsets: Disruptions of the run.
    """

    size: int
    first: Ints
    last: Ints
    mean: Floats
    spread: Floats
    count: Ints
    lr: Floats
    upsets: tuple[Upset, ...] = ()

    def calm(self) -> Windows:
        """Windows that another one may be compared with: outside of every disruption."""
        return self._outside(self.upsets)

    def settled(self) -> Windows:
        """Windows that say where the run is: outside of what came back, or began so lately that it may still do so."""
        return self._outside([one for one in self.upsets if self._passing(one)])

    def disrupted(self, step: int) -> bool:
        """True if a step lies in a rise that came back, or that began so lately that it still may."""
        return any(one.first <= step <= one.last and self._passing(one) for one in self.upsets)

    def _passing(self, upset: Upset) -> bool:
        return upset.over or upset.last - upset.first < LASTING * self.size

    def _outside(self, upsets: Sequence[Upset]) -> Windows:
        if not upsets:
            return self
        inside = [(self.last >= one.first) & (self.first <= one.last) for one in upsets]
        kept = ~np.any(inside, axis=0)
        names = ("first", "last", "mean", "spread", "count", "lr")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


def windows_of(record: Record) -> Windows:
    """The run in windows of 20 steps, or in two thousand; with the disruptions that were marked."""
    size = max(20, -(-record.last // 2000))
    usable = np.isfinite(record.losses)
    spikes = [one.step for one in record.decisions if one.action in _EXTRAORDINARY]
    usable &= ~np.isin(record.steps, spikes)
    number = (record.steps - 1) // size
    which, begins = np.unique(number[usable], return_index=True)
    values = record.sign * record.losses[usable]
    lrs = record.lrs[usable, 0]
    if not len(which):
        nothing, none = np.empty(0), np.empty(0, np.int64)
        return Windows(size, none, none, nothing, nothing, none, nothing)
    counts = np.diff([*begins, len(values)])
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.add.reduceat(values, begins) / counts
        squares = np.add.reduceat((values - np.repeat(mean, counts)) ** 2, begins)
    full = counts >= min(size // 2, int(counts.max()))
    ends = np.cumsum(counts) - 1
    windows = Windows(
        size=size,
        first=(which * size + 1)[full],
        last=np.minimum((which + 1) * size, record.last)[full],
        mean=mean[full],
        spread=np.sqrt(squares / np.maximum(counts - 1, 1))[full],
        count=counts[full].astype(np.int64),
        lr=lrs[ends][full],
    )
    # A mark is of the last step before.
    begun = [mark.step + 1 for mark in record.marks if mark.name.startswith("disruption")]
    return replace(windows, upsets=find_upsets(record, windows, begun, marked=True))


def find_upsets(record: Record, windows: Windows, begun: Iterable[int], marked: bool) -> tuple[Upset, ...]:
    """Disruptions that began at some steps: each until a window is back at the level of the two before it.

    Back is below that level plus their spread. Where the loss fell at once, and came up again within 20 windows, it is
    back then.
    """
    found: list[Upset] = []
    for first in sorted(set(begun)):
        if found and first <= found[-1].last:
            continue  # marked again while it lasts
        before = replace(windows, upsets=(*windows.upsets, *found)).calm()
        level = np.flatnonzero(before.last < first)[-2:]
        middle = float(before.mean[level].mean()) if len(level) else np.inf
        spread = float(before.spread[level].mean()) if len(level) else 0.0
        after = windows.first > first
        back = np.flatnonzero(after & (windows.mean <= middle + spread))
        dip = np.flatnonzero(after)[:LASTING]
        if len(level) and len(dip) and float(windows.mean[dip[0]]) < middle - 3 * spread:
            up = dip[windows.mean[dip] >= middle - spread]
            back = up if len(up) else back
        last = int(windows.first[back[0]]) - 1 if len(back) else record.last
        found.append(Upset(first, last, len(back) > 0, marked))
    return tuple(found)


def clusters(steps: list[int], gap: int) -> list[list[int]]:
    groups: list[list[int]] = []
    for step in steps:
        if groups and step - groups[-1][-1] <= gap:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups
