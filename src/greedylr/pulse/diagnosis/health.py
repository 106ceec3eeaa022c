"""Named findings about a run, each with where it is, the numbers, and a sentence of advice.

Everything is told from the trace alone, whatever rule made it, on means of consecutive windows of 20 steps (in runs
of more than 40,000 steps, two thousand windows), which leave out what is not finite and what the rule called a spike.
What was marked as a disruption, or is found to be one, is nothing that another finding compares with.
``docs/pulse.md`` defines each finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

import numpy as np

from greedylr.control.decision import Action
from greedylr.extras import missing
from greedylr.pulse.trace import Floats, Ints, Trace

try:
    from scipy import stats  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error


class Kind(Enum):
    """Every finding; the value is its name, and a sentence of advice follows in :data:`ADVICE`."""

    FAILED = "the run broke off"
    NON_FINITE = "the loss was not finite"
    DIVERGENCE = "divergence"
    OVERFITTING = "overfitting: the loss is lying"
    LR_IGNORED = "something else sets the learning rate"
    LEVEL_SHIFT = "the loss jumped to another level"
    LOSS_SCALE = "the scale of the loss changed"
    NO_RECOVERY = "spikes without recovery"
    DISRUPTION = "disruption, recovered"
    SINKING = "sinking to the floor"
    AT_BOUND = "raised to the bound"
    OSCILLATING = "oscillating"
    PLATEAU = "plateau"


ADVICE = {
    Kind.FAILED: "Look at what was raised; where it ran out of memory, at the batch of that step.",
    Kind.NON_FINITE: (
        "Look at that batch and at the gradient norm before it; clip gradients, or let a Rescue go back to a snapshot."
    ),
    Kind.DIVERGENCE: "The learning rate is or was too high: start lower, warm up, lower max_scale, or clip gradients.",
    Kind.OVERFITTING: (
        "Stop, or go back to the best validation; regularise; with await_validation the scheduler hears the "
        "validation loss, and cuts where it rises."
    ),
    Kind.LR_IGNORED: "Take out the other scheduler or hook, or the learning rate is not what the decisions say.",
    Kind.LEVEL_SHIFT: (
        "Look for a change of data at that step, a new shard or domain; stratify the batches, or log their "
        "composition and set level_by."
    ),
    Kind.LOSS_SCALE: (
        "Look for a change of reduction, of batch or sequence length, of loss weights, or for new and harder data; "
        "the rule needs a loss in one unit."
    ),
    Kind.NO_RECOVERY: (
        "The model was damaged: go back to a checkpoint before that step, or use a Rescue; clip gradients."
    ),
    Kind.DISRUPTION: "Nothing to do if it is seldom; look at the batches of those steps if it is not.",
    Kind.SINKING: (
        "If the loss still falls, it is cut by noise or composition: lengthen window, raise significance; "
        "else the run is over."
    ),
    Kind.AT_BOUND: (
        "The initial learning rate is far too low, or the bound too tight: start higher, or raise max_scale."
    ),
    Kind.OSCILLATING: (
        "It moves on noise or on a periodic order of the data: shuffle, lengthen window, or raise significance."
    ),
    Kind.PLATEAU: (
        "Nothing more is learnt: stop early, anneal (total_steps), or change something else than the learning rate."
    ),
}


class Finding(NamedTuple):
    """One finding.

    Attributes:
        kind: Which.
        first: The step where it begins.
        last: The step where it ends.
        numbers: What was seen, in words.
    """

    kind: Kind
    first: int
    last: int
    numbers: str

    @property
    def advice(self) -> str:
        """Advice."""
        return ADVICE[self.kind]

    @property
    def serious(self) -> bool:
        """True if it spoils the run, rather than slows it or is already over."""
        return self.kind in _SERIOUS


_SERIOUS = frozenset(
    {
        Kind.FAILED,
        Kind.NON_FINITE,
        Kind.DIVERGENCE,
        Kind.OVERFITTING,
        Kind.LR_IGNORED,
        Kind.NO_RECOVERY,
        Kind.LOSS_SCALE,
    }
)

_EXTRAORDINARY = frozenset({Action.SPIKE, Action.EXPLOSION})
_TAIL, _LAST = 5, 20
"""Windows that the new level is measured over, and that it must last, if the run does."""


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
        """Those that another one may be compared with: outside of every disruption."""
        return self._outside(self.upsets)

    def settled(self) -> Windows:
        """Those that say where the run is: outside of what came back, or began so lately that it may still do so."""
        return self._outside([one for one in self.upsets if self._passing(one)])

    def disrupted(self, step: int) -> bool:
        """True if a step lies in a rise that came back, or that began so lately that it still may."""
        return any(one.first <= step <= one.last and self._passing(one) for one in self.upsets)

    def _passing(self, upset: Upset) -> bool:
        return upset.over or upset.last - upset.first < _LAST * self.size

    def _outside(self, upsets: Sequence[Upset]) -> Windows:
        if not upsets:
            return self
        inside = [(self.last >= one.first) & (self.first <= one.last) for one in upsets]
        kept = ~np.any(inside, axis=0)
        names = ("first", "last", "mean", "spread", "count", "lr")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


def examine(trace: Trace) -> list[Finding]:
    """All findings about a run, the serious ones first, then by step.

    Args:
        trace: The run; may still be going on.

    Example:
        >>> import tempfile, torch
        >>> from greedylr import GreedyLR
        >>> from greedylr.pulse import Recorder, Trace
        >>> scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
        >>> with Recorder(tempfile.mkdtemp(), scheduler) as recorder:
        ...     for loss in (2.0, 1.9, float("nan"), 1.8):
        ...         scheduler.step(loss)
        >>> [(finding.kind.name, finding.first, finding.numbers) for finding in examine(Trace.load(recorder.path))]
        [('NON_FINITE', 3, '1 loss was NaN or infinite')]
    """
    windows = windows_of(trace)
    found: list[Finding] = []
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for check in _CHECKS:
            found += check(trace, windows)
            if check is _disturbances:
                begun = [one.first for one in found if one.kind in (Kind.DISRUPTION, Kind.NO_RECOVERY)]
                windows = replace(windows, upsets=windows.upsets + _upsets(trace, windows, begun, marked=False))
    # Losses before and after a jump are not of one kind, and prove nothing together.
    jumps = [one.first for one in found if one.kind in (Kind.LEVEL_SHIFT, Kind.LOSS_SCALE)]
    upsets = jumps + [one.first for one in windows.upsets]
    between = {Kind.OVERFITTING: jumps, Kind.DIVERGENCE: jumps, Kind.PLATEAU: upsets}
    found = [one for one in found if not any(one.first <= step + 20 <= one.last for step in between.get(one.kind, ()))]
    return sorted(found, key=lambda one: (not one.serious, one.first, list(Kind).index(one.kind)))


def windows_of(trace: Trace) -> Windows:
    """The run in windows of 20 steps, or in two thousand; with the disruptions that were marked."""
    size = max(20, -(-trace.last // 2000))
    usable = np.isfinite(trace.means)
    spikes = [one.step for one in trace.decisions if one.action in _EXTRAORDINARY]
    usable &= ~np.isin(trace.steps, spikes)
    number = (trace.steps - 1) // size
    which, begins = np.unique(number[usable], return_index=True)
    values = trace.sign * trace.means[usable]
    lrs = trace.lrs[usable, 0]
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
        last=np.minimum((which + 1) * size, trace.last)[full],
        mean=mean[full],
        spread=np.sqrt(squares / np.maximum(counts - 1, 1))[full],
        count=counts[full].astype(np.int64),
        lr=lrs[ends][full],
    )
    # A mark is of the last step before.
    begun = [mark.step + 1 for mark in trace.marks if mark.name.startswith("disruption")]
    return replace(windows, upsets=_upsets(trace, windows, begun, marked=True))


def _upsets(trace: Trace, windows: Windows, begun: Iterable[int], marked: bool) -> tuple[Upset, ...]:
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
        dip = np.flatnonzero(after)[:_LAST]
        if len(level) and len(dip) and float(windows.mean[dip[0]]) < middle - 3 * spread:
            up = dip[windows.mean[dip] >= middle - spread]
            back = up if len(up) else back
        last = int(windows.first[back[0]]) - 1 if len(back) else trace.last
        found.append(Upset(first, last, len(back) > 0, marked))
    return tuple(found)


def _main_phase(trace: Trace) -> tuple[int, int]:
    """First and last step in which the loss, not warmup, climb or annealing, sets the learning rate."""
    first, last = 1, trace.last
    for one in trace.phases:
        if one.name in ("annealing", "over"):
            last = min(last, one.first - 1)
        else:
            first = max(first, one.last + 1)
    return first, last


def _failed(trace: Trace, windows: Windows) -> Iterator[Finding]:
    for one in trace.failures:
        what = f"{one.kind}: {one.message}" if one.message else one.kind
        memory = ", out of memory" if one.out_of_memory else ""
        yield Finding(Kind.FAILED, one.step, one.step, f"{what[:200]}{memory}")
    if trace.status == "killed":
        yield Finding(Kind.FAILED, trace.last, trace.last, "the process ended without a word: killed, or out of memory")


def _non_finite(trace: Trace, windows: Windows) -> Iterator[Finding]:
    steps = [one.step for one in trace.decisions if one.action is Action.NON_FINITE]
    for group in _clusters(steps, 5 * windows.size):
        count = f"{len(group)} losses were" if len(group) > 1 else "1 loss was"
        yield Finding(Kind.NON_FINITE, group[0], group[-1], f"{count} NaN or infinite")


def _divergence(trace: Trace, windows: Windows) -> Iterator[Finding]:
    broken = np.flatnonzero(~np.isfinite(trace.losses))
    if len(broken) and len(trace.losses) - broken[0] >= 2 * windows.size:
        finite = np.isfinite(trace.losses)
        last_good = int(np.flatnonzero(finite)[-1]) if finite.any() else -1
        if len(trace.losses) - 1 - last_good >= windows.size:
            yield Finding(
                Kind.DIVERGENCE, int(trace.steps[last_good + 1]), trace.last, "no finite loss any more, to the end"
            )
            return
    calm, settled = windows.calm(), windows.settled()
    mean = calm.mean
    if len(mean) < 6:
        return
    # The lowest of the last ones: data that come by turns may end with the hard ones.
    start, best, end = float(mean[:2].mean()), float(mean.min()), float(settled.mean[-3:].min())
    noise = float(np.median(calm.spread / np.sqrt(calm.count)))
    lowest = int(mean.argmin())
    damaged = [one for one in windows.upsets if one.marked and not one.over]
    if damaged:
        told = any(not one.marked and not one.over for one in windows.upsets)
        if not told and len(settled.mean) > len(mean) and end > best + 0.5 * (start - best):
            numbers = f"ends at {trace.sign * end:.4g}, never back on its level after a disruption that was marked"
            yield Finding(Kind.NO_RECOVERY, damaged[0].first, trace.last, numbers)
    elif end > start + 4 * noise and end - start > 0.02 * abs(start):
        numbers = f"ends at {trace.sign * end:.4g}, above the {trace.sign * start:.4g} it began with"
        yield Finding(Kind.DIVERGENCE, int(calm.last[lowest]), trace.last, numbers)
    elif start - best > 10 * noise and end > best + 0.5 * (start - best):
        at_best, at_first = f"{trace.sign * best:.4g} at best", f"{trace.sign * start:.4g} at first"
        numbers = f"ends at {trace.sign * end:.4g}, after {at_best} and {at_first}"
        yield Finding(Kind.DIVERGENCE, int(calm.last[lowest]), trace.last, numbers)


def _overfitting(trace: Trace, windows: Windows) -> Iterator[Finding]:
    name = trace.validation
    if name is None or not any(word in name.lower() for word in ("loss", "ppl", "perplexity", "error")):
        return
    steps, values = trace.metrics[name]
    usable = np.isfinite(values) & ~np.array([windows.disrupted(step) for step in steps.tolist()], bool)
    steps, values = steps[usable], values[usable]
    best = int(values.argmin()) if len(values) else 0
    if len(values) < 6 or len(values) - best <= 3:
        return
    noise = 1.4826 * float(np.median(np.abs(np.diff(values, 2)))) / np.sqrt(6)
    rise = float(np.mean(values[-3:]) - values[best])
    # One that came before the best validation is over for this purpose, whether or not the loss came all the way back.
    since = replace(windows, upsets=tuple(one for one in windows.upsets if one.over or one.first > steps[best]))
    if not all(one.over for one in since.upsets):
        return  # The training loss has not fallen below where it was.
    calm = since.calm()
    then = calm.last >= steps[best]
    mean, error = calm.mean[then], calm.spread[then] ** 2 / calm.count[then]
    share = max(len(mean) // 4, 3)
    if rise <= max(4 * noise, 0.01 * abs(values[best])) or len(mean) < 2 * share:
        return
    before, after = float(mean[:share].mean()), float(mean[-share:].mean())
    error = float(np.sqrt(error[:share].sum() + error[-share:].sum())) / share
    if before - after > 3 * error:
        numbers = (
            f"{name} rose from {values[best]:.4g} to {np.mean(values[-3:]):.4g} "
            f"while the training loss went from {trace.sign * before:.4g} to {trace.sign * after:.4g}"
        )
        yield Finding(Kind.OVERFITTING, int(steps[best]), int(steps[-1]), numbers)


def _ignored(trace: Trace, windows: Windows) -> Iterator[Finding]:
    if trace.foreign:
        one = trace.foreign[0]
        times = "once" if len(trace.foreign) == 1 else f"{len(trace.foreign)} times"
        numbers = f"found {one.found:g} in the optimizer where {one.written:g} had been written, {times}"
        yield Finding(Kind.LR_IGNORED, one.step, trace.foreign[-1].step, numbers)


def _disturbances(trace: Trace, windows: Windows) -> Iterator[Finding]:
    """One event, one name: the losses that lead to a level that lasts are no disruption of their own."""
    jumps = list(_jumps(trace, windows.settled()))
    yield from jumps
    for one in _disruptions(trace, windows):
        if not any(abs(one.first - jump.first) <= 2 * windows.size for jump in jumps):
            yield one


def _jumps(trace: Trace, windows: Windows) -> Iterator[Finding]:
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
        later = mean[number + 1 : number + 1 + _LAST]
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
            and _sudden(trace, _where(trace, *around, jump > 0), level, new)
        )
        # Where the loss was falling anyway, it need not stay up there.
        expected = _going_on(mean[max(number - 10, 0) : number], level, np.arange(3, 3 + len(later)))
        lasting = bool(np.all(later > expected + 0.4 * jump))
        climbing = float(after[-1] - after[0]) > 0.5 * abs(jump)
        jumped = jump > max(1.5 * noise, 8 * drift, 0.02 * abs(level)) and lasting and not climbing
        jumped = jumped and jump > _usual(changes, number)
        peaked = False
        if jump > 0 and (scaled or jumped):
            usual = _peak(trace, int(windows.first[number - 3]), int(windows.last[number - 1]))
            peaked = _peak(trace, *around) > (2 * ratio * usual if scaled else level + 4 * jump)
        if peaked or not (scaled or jumped):
            number += 1
            continue
        step = _where(trace, *around, jump > 0)
        words = f"from {trace.sign * level:.4g} to {trace.sign * new:.4g}"
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
    """By how much the level, of five windows, is above that of three before, with one in between, all along the run."""
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


def _peak(trace: Trace, first: int, last: int) -> float:
    """Mean of the five largest losses in between: far above the level that they lead to, they are a disruption."""
    begin, end = np.searchsorted(trace.steps, [first, last + 1])
    values = trace.sign * trace.losses[begin:end]
    largest = np.sort(values[np.isfinite(values)])[-5:]
    return float(largest.mean()) if len(largest) else 0.0


def _where(trace: Trace, first: int, last: int, up: bool) -> int:
    """The step in between that parts low from high best."""
    begin, end = np.searchsorted(trace.steps, [first, last + 1])
    values, steps = trace.sign * trace.means[begin:end], trace.steps[begin:end]
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


def _sudden(trace: Trace, step: int, level: float, new: float) -> bool:
    """True if a step, not a slope, leads from one level to the other: where a loss falls fast, its noise does too.

    A line with a step in it is fitted to the logarithms of the forty losses before and after.
    """
    middle = int(np.searchsorted(trace.steps, step))
    rows = np.arange(max(middle - 40, 0), min(middle + 40, len(trace.steps)))
    values = trace.sign * trace.means[rows]
    rows, values = rows[np.isfinite(values)], values[np.isfinite(values)]
    logs = np.log(np.maximum(values, 0.01 * min(level, new)))
    terms = np.column_stack([np.ones(len(rows)), rows - middle, rows >= middle]).astype(float)
    inverse = np.linalg.pinv(terms.T @ terms)
    fitted = inverse @ terms.T @ logs
    noise = float(((logs - terms @ fitted) ** 2).sum()) / max(len(rows) - 3, 1)
    height = abs(float(fitted[2]))
    return height > 0.6 * abs(np.log(new / level)) and height > 4 * float(np.sqrt(noise * inverse[2, 2]))


def _disruptions(trace: Trace, windows: Windows) -> Iterator[Finding]:
    """Several losses far above the windows before, close together, and a level that comes back."""
    by_step = _outliers(trace, windows)
    for group in _clusters(sorted(by_step), windows.size):
        # Hard batches come one by one, in some runs often: three rows among five in a row are no chance.
        rows = np.searchsorted(trace.steps, group)
        if len(rows) < 3 or int((rows[2:] - rows[:-2]).min()) > 4:
            continue
        calm = windows.calm()
        before = np.flatnonzero(calm.last < group[0])[-2:]
        after = np.flatnonzero(windows.first > group[-1])
        if not len(before) or not len(after):
            continue
        line = float(calm.mean[before].mean()) + float(calm.spread[before].mean())
        back = after[windows.mean[after] <= line]
        worst = max(trace.sign * by_step[step] for step in group)
        words = f"{len(group)} losses far above the window before, up to {trace.sign * worst:.4g}"
        if len(back):
            steps_back = int(windows.last[back[0]]) - group[-1]
            within = f"{steps_back} step{'' if steps_back == 1 else 's'}"
            yield Finding(Kind.DISRUPTION, group[0], int(windows.first[back[0]]), f"{words}; back within {within}")
        elif len(after) >= _TAIL:
            yield Finding(Kind.NO_RECOVERY, group[0], trace.last, f"{words}; never back on its level")


def _outliers(trace: Trace, windows: Windows) -> dict[int, float]:
    """Losses, by step, far above the two windows before.

    By ten standard deviations, taken from the quartiles; and, as the losses of some runs have long tails, by three
    times what one in fifty was above the two windows before it in the last ten windows.
    """
    steps, values = trace.steps, trace.sign * trace.means
    highs = values if trace.sign < 0 else trace.highs
    found: dict[int, float] = {}
    over = np.full(len(steps), np.nan)  # above the two windows before; not those that were found
    rows = np.searchsorted(steps, [windows.first, windows.last + 1])
    for number in range(2, len(windows.first)):
        before = values[rows[0][number - 2] : rows[1][number - 1]]
        low, middle, high = np.quantile(before[np.isfinite(before)], [0.25, 0.5, 0.75])
        here = slice(rows[0][number], rows[1][number])
        over[here] = highs[here] - middle
        lately = over[rows[0][max(number - 10, 0)] : rows[0][number]]
        lately = lately[np.isfinite(lately)]
        tail = float(np.quantile(lately, 0.98)) if len(lately) else 0.0
        far = max(10 * max((high - low) / 1.349, 0.01 * abs(middle)), 3 * tail)
        above = np.isfinite(highs[here]) & (over[here] > far)
        found.update(zip(steps[here][above].tolist(), (trace.sign * highs[here][above]).tolist()))
        over[here][above] = np.nan
    return found


def _sinking(trace: Trace, windows: Windows) -> Iterator[Finding]:
    first, last = _main_phase(trace)
    inside = (trace.steps >= first) & (trace.steps <= last)
    lrs, steps = trace.lrs[inside, 0], trace.steps[inside]
    upset = np.any([(steps >= one.first) & (steps <= one.last) for one in windows.upsets], axis=0)
    usual = np.where(upset, 0.0, lrs)
    if not len(lrs) or not usual.max() > 0:
        return
    stuck = _steps_of(Action.AT_MIN, trace, windows)
    highest = int(usual.argmax())
    if len(stuck) >= 3:
        yield Finding(
            Kind.SINKING, stuck[0], last, f"{len(stuck)} cuts came to nothing at the lower bound, {lrs[-1]:.3g}"
        )
    elif lrs[-1] < 0.01 * lrs[highest]:
        numbers = f"from {lrs[highest]:.3g} to {lrs[-1]:.3g}, divided by {lrs[highest] / max(lrs[-1], 1e-300):.0f}"
        yield Finding(Kind.SINKING, int(steps[highest]), last, numbers)


def _at_bound(trace: Trace, windows: Windows) -> Iterator[Finding]:
    steps = _steps_of(Action.AT_MAX, trace, windows)
    if len(steps) >= 3:
        lr = trace.decisions[[one.step for one in trace.decisions].index(steps[0])].lr_after[0]
        yield Finding(
            Kind.AT_BOUND, steps[0], steps[-1], f"{len(steps)} raises came to nothing at the upper bound, {lr:.3g}"
        )


def _steps_of(action: Action, trace: Trace, windows: Windows) -> list[int]:
    return [one.step for one in trace.decisions if one.action is action and not windows.disrupted(one.step)]


_REVERSALS = 8


def _oscillating(trace: Trace, windows: Windows) -> Iterator[Finding]:
    """Each move takes back the one before, within three windows of the rule: in long runs noise moves it at times."""
    moves = [one for one in trace.moves if not windows.disrupted(one.step)]
    run: list[int] = []
    for number, one in enumerate(moves):
        before = moves[number - 1]
        close = number and one.step - before.step <= 3 * trace.window
        if close and one.raised != before.raised:
            run.append(one.step)
            continue
        yield from _oscillation(run)
        run = [one.step]
    yield from _oscillation(run)


def _oscillation(run: list[int]) -> Iterator[Finding]:
    if len(run) > _REVERSALS:
        yield Finding(Kind.OSCILLATING, run[0], run[-1], f"{len(run) - 1} moves in a row took the one before back")


def _plateau(trace: Trace, windows: Windows) -> Iterator[Finding]:
    """The last part of the main phase, a third at least, without a slope and without gain."""
    _, last = _main_phase(trace)
    calm = windows.calm()
    inside = calm.last <= last
    mean, first = calm.mean[inside], calm.first[inside]
    if len(mean) < 30:
        return
    gain = float(mean[:2].mean() - mean.min())
    for share in (0.25, 0.5, 2 / 3):
        begin = int(share * len(mean))
        part = mean[begin:]
        line = stats.linregress(np.arange(len(part)), part)
        change, error = (abs(float(value)) * len(part) for value in (line.slope, line.stderr))
        # That no slope is seen proves nothing where the noise would hide one.
        if change <= 2 * error and change + 2 * error < 0.03 * max(gain, 1e-300):
            where = f"{trace.sign * float(part.mean()):.4g} for {last - int(first[begin]) + 1} steps"
            yield Finding(Kind.PLATEAU, int(first[begin]), last, where)
            return


def _clusters(steps: list[int], gap: int) -> list[list[int]]:
    groups: list[list[int]] = []
    for step in steps:
        if groups and step - groups[-1][-1] <= gap:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


_CHECKS: tuple[Callable[[Trace, Windows], Iterator[Finding]], ...] = (
    _disturbances,  # first, as nothing is compared with disruptions
    _failed,
    _non_finite,
    _divergence,
    _overfitting,
    _ignored,
    _sinking,
    _at_bound,
    _oscillating,
    _plateau,
)
