"""Named findings about a run, each with where it is, the numbers, and a sentence of advice.

Everything is told from the trace alone, whatever rule made it, on means of consecutive windows of 20 steps (in runs
of more than 40,000 steps, two thousand windows), which leave out what is not finite and what the rule called a spike.
What was marked as a disruption, or is found to be one, is nothing that another finding compares with.
``docs/pulse.md`` defines each finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from greedylr.control.decision import Action
from greedylr.extras import missing
from greedylr.pulse.diagnosis.disturbances import disturbances
from greedylr.pulse.diagnosis.findings import Finding, Kind
from greedylr.pulse.diagnosis.windows import Windows, clusters, find_upsets, windows_of
from greedylr.pulse.trace import Trace

try:
    from scipy import stats  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error


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
            if check is disturbances:
                begun = [one.first for one in found if one.kind in (Kind.DISRUPTION, Kind.NO_RECOVERY)]
                windows = replace(windows, upsets=windows.upsets + find_upsets(trace, windows, begun, marked=False))
    # Losses before and after a jump are not of one kind, and prove nothing together.
    jumps = [one.first for one in found if one.kind in (Kind.LEVEL_SHIFT, Kind.LOSS_SCALE)]
    upsets = jumps + [one.first for one in windows.upsets]
    between = {Kind.OVERFITTING: jumps, Kind.DIVERGENCE: jumps, Kind.PLATEAU: upsets}
    found = [one for one in found if not any(one.first <= step + 20 <= one.last for step in between.get(one.kind, ()))]
    return sorted(found, key=lambda one: (not one.serious, one.first, list(Kind).index(one.kind)))


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
    for group in clusters(steps, 5 * windows.size):
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


_CHECKS: tuple[Callable[[Trace, Windows], Iterator[Finding]], ...] = (
    disturbances,  # first, as nothing is compared with disruptions
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
