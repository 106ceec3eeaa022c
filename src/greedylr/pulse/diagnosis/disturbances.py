"""Jumps of the loss to another level, and disruptions that pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from greedylr.pulse.diagnosis.findings import Finding, Kind
from greedylr.pulse.diagnosis.windows import LASTING, Windows, clusters
from greedylr.pulse.record import Floats, Ints, Record

_TAIL = 5
"""Windows that a new level is measured over."""


def disturbances(record: Record, windows: Windows) -> Iterator[Finding]:
    """One event, one name: the losses that lead to a level that lasts are no disruption of their own."""
    jumps = list(_jumps(record, windows.settled()))
    yield from jumps
    for one in _disruptions(record, windows):
        if not any(abs(one.first - jump.first) <= 2 * windows.size for jump in jumps):
            yield one


def _jumps(record: Record, windows: Windows) -> Iterator[Finding]:
    """New levels that last: another scale, other data, or a damaged model."""
    mean, spread = windows.mean, windows.spread
    changes = _changes(mean)
    number = 3
    while number + _TAIL < len(mean):
        before, after = mean[number - 3 : number], mean[number + 1 : number + 1 + _TAIL]
        noise = float(np.median(spread[number - 3 : number]))
        level, new = float(before.mean()), float(np.median(after))
        drift = abs(float(before[-1] - before[0])) / 2
        spread_after = float(np.median(spread[number + 1 : number + 1 + _TAIL]))
        later = mean[number + 1 : number + 1 + LASTING]
        ratio = new / level if level > 0 and new > 0 else 1.0
        jump = new - level
        around = int(windows.first[number - 1]), int(windows.last[number + 1])
        # A learning rate that is cut at once lets the loss fall at once.
        cut = float(windows.lr[number + 1]) < 0.5 * float(windows.lr[number - 3 : number].max())
        scaled = (
            not (cut and ratio < 1)
            and (ratio >= 4 or ratio <= 1 / 4)
            and 0.5 < (spread_after / noise if noise else 1.0) / ratio < 2
            and abs(np.log(before[-1] / before[0])) < 0.3 * abs(np.log(ratio))
            and (later.min() > 1.5 * level if ratio > 1 else later.max() < level / 1.5)
            and _sudden(record, _where(record, *around, jump > 0), level, new)
        )
        # Where the loss was falling anyway, it need not stay up there.
        expected = _going_on(mean[max(number - 10, 0) : number], level, np.arange(3, 3 + len(later)))
        lasting = bool(np.all(later > expected + 0.4 * jump))
        climbing = float(after[-1] - after[0]) > 0.5 * abs(jump)
        jumped = jump > max(1.5 * noise, 8 * drift, 0.02 * abs(level)) and lasting and not climbing
        jumped = jumped and jump > _usual(changes, number)
        peaked = False
        if jump > 0 and (scaled or jumped):
            usual = _peak(record, int(windows.first[number - 3]), int(windows.last[number - 1]))
            peaked = _peak(record, *around) > (2 * ratio * usual if scaled else level + 4 * jump)
        if peaked or not (scaled or jumped):
            number += 1
            continue
        step = _where(record, *around, jump > 0)
        words = f"from {record.sign * level:.4g} to {record.sign * new:.4g}"
        if scaled:
            yield Finding(
                Kind.LOSS_SCALE, step, int(windows.last[number + _TAIL]), f"{words}, its noise alike: × {ratio:.3g}"
            )
        elif spread_after > 2 * max(ratio, 1.0) * noise:
            numbers = f"{words}, and {spread_after / noise:.1f} times as noisy" if noise else words
            yield Finding(Kind.NO_RECOVERY, step, int(windows.last[number + _TAIL]), numbers)
        else:
            yield Finding(
                Kind.LEVEL_SHIFT,
                step,
                int(windows.last[number + _TAIL]),
                f"{words}, {jump / noise if noise else np.inf:.1f} standard deviations",
            )
        number += _TAIL


def _changes(mean: Floats) -> Floats:
    """Height of the level, of five windows, above that of three before, with one in between, all along the run."""
    if len(mean) < 3 + 1 + _TAIL:
        return np.empty(0)
    before = np.lib.stride_tricks.sliding_window_view(mean, 3)[: -_TAIL - 1].mean(axis=1)
    after = np.lib.stride_tricks.sliding_window_view(mean, _TAIL)[4:]
    changes: Floats = np.median(after, axis=1) - before
    return changes


def _usual(changes: Floats, number: int) -> float:
    """Least change at a window that counts; the level wanders by less anyway where noise is smooth.

    Three times the spread of the changes elsewhere in the run, each beside the one before that it shares no window
    with: what the loss falls by is no spread. It is taken from their lowest quarter, as a short run may be half steep
    fall and disruption. Nothing for less than ten of them.
    """
    apart = 3 + 1 + _TAIL
    turns = np.abs(changes[apart:] - changes[:-apart]) / np.sqrt(2)
    own = number - 3
    elsewhere = np.r_[turns[: max(own - 2 * apart + 1, 0)], turns[own + apart :]]
    return 3 * float(np.quantile(elsewhere, 0.25)) / 0.3186 if len(elsewhere) >= 10 else 0.0


def _going_on(history: Floats, level: float, windows: Ints) -> Floats:
    """The level so many windows on, if it falls as it did: by the same share, so that it does not fall below zero."""
    relative = history.min() > 0
    course = np.log(history) if relative else history
    rate = min(float(np.polyfit(np.arange(len(history)), course, 1)[0]), 0.0)
    further = rate * windows.astype(np.float64)
    return level * np.exp(further) if relative else level + further


def _peak(record: Record, first: int, last: int) -> float:
    """Mean of the five largest losses in between: far above the level that they lead to, they are a disruption."""
    begin, end = np.searchsorted(record.steps, [first, last + 1])
    values = record.sign * record.losses[begin:end]
    largest = np.sort(values[np.isfinite(values)])[-5:]
    return float(largest.mean()) if len(largest) else 0.0


def _where(record: Record, first: int, last: int, up: bool) -> int:
    """The step in between that parts low from high best."""
    begin, end = np.searchsorted(record.steps, [first, last + 1])
    values, steps = record.sign * record.losses[begin:end], record.steps[begin:end]
    good = np.isfinite(values)
    values, steps = values[good], steps[good]
    if len(values) < 4:
        return first
    values = np.clip(values, *np.quantile(values, [0.02, 0.98]))
    counts = np.arange(1, len(values))
    sums = np.cumsum(values)[:-1]
    difference = (values.sum() - sums) / (len(values) - counts) - sums / counts
    gain = (difference if up else -difference) * np.sqrt(counts * (len(values) - counts))
    return int(steps[int(gain.argmax()) + 1])


def _sudden(record: Record, step: int, level: float, new: float) -> bool:
    """True if a step, not a slope, leads from one level to the other: where a loss falls fast, its noise does too.

    A line with a step in it is fitted to the logarithms of the forty losses before and after.
    """
    middle = int(np.searchsorted(record.steps, step))
    rows = np.arange(max(middle - 40, 0), min(middle + 40, len(record.steps)))
    values = record.sign * record.losses[rows]
    rows, values = rows[np.isfinite(values)], values[np.isfinite(values)]
    logs = np.log(np.maximum(values, 0.01 * min(level, new)))
    terms = np.column_stack([np.ones(len(rows)), rows - middle, rows >= middle]).astype(float)
    inverse = np.linalg.pinv(terms.T @ terms)
    fitted = inverse @ terms.T @ logs
    noise = float(((logs - terms @ fitted) ** 2).sum()) / max(len(rows) - 3, 1)
    height = abs(float(fitted[2]))
    return height > 0.6 * abs(np.log(new / level)) and height > 4 * float(np.sqrt(noise * inverse[2, 2]))


def _disruptions(record: Record, windows: Windows) -> Iterator[Finding]:
    """Several losses far above the windows before, close together, and a level that comes back."""
    by_step = _outliers(record, windows)
    for group in clusters(sorted(by_step), windows.size):
        # Hard batches come one by one, in some runs often: three rows among five in a row are no chance.
        rows = np.searchsorted(record.steps, group)
        if len(rows) < 3 or int((rows[2:] - rows[:-2]).min()) > 4:
            continue
        calm = windows.calm()
        before = np.flatnonzero(calm.last < group[0])[-2:]
        after = np.flatnonzero(windows.first > group[-1])
        if not len(before) or not len(after):
            continue
        line = float(calm.mean[before].mean()) + float(calm.spread[before].mean())
        back = after[windows.mean[after] <= line]
        worst = max(record.sign * by_step[step] for step in group)
        words = f"{len(group)} losses far above the window before, up to {record.sign * worst:.4g}"
        if len(back):
            steps_back = int(windows.last[back[0]]) - group[-1]
            within = f"{steps_back} step{'' if steps_back == 1 else 's'}"
            yield Finding(Kind.DISRUPTION, group[0], int(windows.first[back[0]]), f"{words}; back within {within}")
        elif len(after) >= _TAIL:
            yield Finding(Kind.NO_RECOVERY, group[0], record.last, f"{words}; never back on its level")


def _outliers(record: Record, windows: Windows) -> dict[int, float]:
    """Losses, by step, far above the two windows before.

    By ten standard deviations, taken from the quartiles; and, as the losses of some runs have long tails, by three
    times what one in fifty was above the two windows before it in the last ten windows.
    """
    steps, values = record.steps, record.sign * record.losses
    found: dict[int, float] = {}
    over = np.full(len(steps), np.nan)  # above the two windows before; not those that were found
    rows = np.searchsorted(steps, [windows.first, windows.last + 1])
    for number in range(2, len(windows.first)):
        before = values[rows[0][number - 2] : rows[1][number - 1]]
        low, middle, high = np.quantile(before[np.isfinite(before)], [0.25, 0.5, 0.75])
        here = slice(rows[0][number], rows[1][number])
        over[here] = values[here] - middle
        lately = over[rows[0][max(number - 10, 0)] : rows[0][number]]
        lately = lately[np.isfinite(lately)]
        tail = float(np.quantile(lately, 0.98)) if len(lately) else 0.0
        far = max(10 * max((high - low) / 1.349, 0.01 * abs(middle)), 3 * tail)
        above = np.isfinite(values[here]) & (over[here] > far)
        found.update(zip(steps[here][above].tolist(), (record.sign * values[here][above]).tolist()))
        over[here][above] = np.nan
    return found
