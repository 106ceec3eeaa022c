r"""Was the loss telling the truth? Every move of the learning rate, judged by the losses that followed it.

Before the move stand the losses of three windows, the compared ones included. Their least-squares line, drawn on,
predicts the mean of the next window. A raise or a cut is *confirmed* if the loss comes out below that, *refuted* if
above, and *undecidable* if the difference could be chance, two-sided at 5%. The losses are taken in blocks of a
quarter of a window. With :math:`R_{ij} = \rho^{|i-j|}` for how alike the blocks are, :math:`c` the weights with which
they enter into the difference (of the new mean from the prediction), and :math:`M` what takes them to their distances
from the line, its variance is

.. math:: \hat\sigma^2 \, c^\top R c, \qquad \hat\sigma^2 = \lVert M y \rVert^2 / \operatorname{tr}(M R),

where :math:`\hat\sigma` may be another after the move (Welch), and :math:`\rho` is the autocorrelation of the
distances, without the bias that the line brings, plus one standard error. Noise that is smooth, or a slow wave, comes
out away from any line, and must prove nothing.

One run has no twin without the move, so this is no proof of cause: it says whether what followed was better or worse
than going on as before.

A reflex, after an explosion or a loss that is not finite, claims that trouble was ahead and the cut averts it. It is
confirmed if the next window is finite and not significantly above the line drawn through the losses before the
trouble, refuted otherwise.

The end of a climb claims that the loss had risen, of which a line through the fall before it knows nothing. Judged is
the next window against halfway between the lowest smoothed loss and the one that objected: where it would come out on
average if both were chance. Below it, the loss has come back down. Where the losses before were plainly autocorrelated,
the variances are larger by :math:`(1 + \rho) / (1 - \rho)`.

Where the loss of a fixed batch was logged as ``probe_loss``, that is what is judged by: it does not change with the
composition of the batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from greedylr.control.decision import Action, Decision
from greedylr.extras import missing
from greedylr.pulse.record import Floats, Ints, Record
from greedylr.pulse.recording.storage import TROUBLE

try:
    from scipy import stats  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error

LEVEL = 0.05
"""Share of the verdicts that chance alone may decide."""

HISTORY = 3
"""Windows that the trend is drawn through."""

PROBE = "probe_loss"
"""The metric that judges in place of the training loss."""

_LEAST_BEFORE, _LEAST_AFTER = 8, 5
_LEAST_PROBES = 4, 2
_BLOCKS = 4  # of a window
_MOST_ALIKE = 0.99
_REFLEXES = frozenset({Action.EXPLOSION, Action.NON_FINITE})


class Verdict(Enum):
    """Verdict of the losses after a move."""

    CONFIRMED = "confirmed: the loss then came out below what the trend before predicted"
    REFUTED = "refuted: the loss then came out above what the trend before predicted"
    RECOVERED = "confirmed: the loss was back on its trend in the next window"
    NOT_RECOVERED = "refuted: the loss was not back on its trend in the next window"
    CAME_BACK = "confirmed: the loss then came back from where it had risen to"
    STAYED_UP = "refuted: the loss then stayed where it had risen to"
    UNDECIDABLE = "undecidable: the difference may be chance"
    TOO_FEW = "undecidable: too few losses before or after it"
    NOT_YET = "not yet: the window after it is not over"

    @property
    def short(self) -> str:
        """``confirmed``, ``refuted``, ``undecidable`` or ``not yet``."""
        return self.value.partition(":")[0]


class Audited(NamedTuple):
    """One move, judged.

    Attributes:
        decision: The move.
        verdict: What became of it.
        predicted: Mean of the next window as the trend before has it, or halfway up the rise that ended a climb; NaN if
            there were too few losses.
        actual: Mean of the next window; NaN if there were too few losses.
        standard_error: Of their difference.
        p_value: Probability of so large a difference by chance alone.
        judge: ``loss``, or ``probe_loss``.
        phase: ``first third``, ``second third`` or ``last third`` of the run.
    """

    decision: Decision
    verdict: Verdict
    predicted: float
    actual: float
    standard_error: float
    p_value: float
    judge: str
    phase: str


class Shares(NamedTuple):
    """Number of moves that were confirmed, refuted and undecidable; those not to be judged yet are undecidable."""

    confirmed: int
    refuted: int
    undecidable: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


PHASES = ("first third", "second third", "last third")


def third(steps: Any, last: int) -> Any:
    """Number of the third of a run, from 0, that a step, or each of several, is in."""
    return np.minimum(3 * (steps - 1) // max(last, 1), 2)


@dataclass(frozen=True)
class Audit:
    """All moves of a run, judged, in order."""

    moves: tuple[Audited, ...]

    @property
    def shares(self) -> Shares:
        """Shares of all moves."""
        return _shares(self.moves)

    def by_action(self) -> dict[str, Shares]:
        """Shares of the moves of each action, by the action's name."""
        return self._by(lambda one: one.decision.action.name, [action.name for action in Action])

    def by_phase(self) -> dict[str, Shares]:
        """Shares of the moves in each third of the run."""
        return self._by(lambda one: one.phase, PHASES)

    def _by(self, key: Callable[[Audited], str], order: tuple[str, ...] | list[str]) -> dict[str, Shares]:
        groups: dict[str, list[Audited]] = {name: [] for name in order}
        for one in self.moves:
            groups[key(one)].append(one)
        return {name: _shares(group) for name, group in groups.items() if group}


def audit(record: Record) -> Audit:
    """Judge every move of a run by the losses that followed.

    Args:
        record: The run.

    Example:
        A loss that falls faster and faster bears the raises out:

        >>> import tempfile, torch
        >>> from greedylr import GreedyLR
        >>> from greedylr.pulse import Recorder, Trace
        >>> scheduler = GreedyLR.paper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
        >>> with Recorder(tempfile.mkdtemp(), scheduler) as recorder:
        ...     for step in range(200):
        ...         scheduler.step(9.0 - (step / 100) ** 2)
        >>> shares = audit(Trace.load(recorder.path)).shares
        >>> shares.confirmed > 0, shares.refuted
        (True, 0)
    """
    window = record.window
    judge = PROBE if PROBE in record.metrics else "loss"
    if judge == PROBE:
        metric = record.metrics[PROBE]
        steps, values = metric.steps, record.sign * metric.values
        finite = np.isfinite(values)
        trouble = np.empty(0, np.int64)
        least = _LEAST_PROBES
    else:
        steps, values = record.steps, record.sign * record.losses
        finite = np.isfinite(values)
        trouble = np.array([one.step for one in record.decisions if one.action in TROUBLE], np.int64)
        least = _LEAST_BEFORE, _LEAST_AFTER
    usable = finite & ~np.isin(steps, trouble)
    broken = steps[~finite]
    kept_steps, kept = steps[usable], values[usable]

    def comparison(one: Decision) -> _Comparison | None:
        if one.action is Action.BACKED_OFF and judge != PROBE:
            return _halfway(kept_steps, kept, one, window, record.sign)
        return _compare(kept_steps, kept, one.step, window, least)

    return Audit(tuple([_judged(record, one, judge, comparison(one), broken) for one in record.moves]))


class _Comparison(NamedTuple):
    predicted: float
    actual: float
    standard_error: float
    p_value: float


def _compare(steps: Ints, values: Floats, at: int, window: int, least: tuple[int, int]) -> _Comparison | None:
    """The mean after a step against the line through the values before; None if there are too few."""
    middle = int(np.searchsorted(steps, at, side="right"))
    begin = int(np.searchsorted(steps, at - HISTORY * window, side="right"))
    end = int(np.searchsorted(steps, at + window, side="right"))
    if least == _LEAST_PROBES:  # They may be far apart.
        begin, end = min(begin, max(middle - least[0], 0)), max(end, min(middle + least[1], len(steps)))
    if middle - begin < least[0] or end - middle < least[1] or steps[begin] == steps[middle - 1]:
        return None
    scale = float(np.abs(values[begin:end]).max()) or 1.0  # so that no square is too large
    x, y = (_blocks(of[begin:middle] / by, HISTORY) for of, by in ((steps, 1.0), (values, scale)))
    x_after, y_after = (_blocks(of[middle:end] / by, 1) for of, by in ((steps, 1.0), (values, scale)))
    n, m = len(y), len(y_after)
    off_line = _off_line(x)
    like = _autocorrelation(off_line @ y) ** np.abs(np.subtract.outer(np.arange(n + m), np.arange(n + m)))
    variance, freedom = _variance(off_line, like[:n, :n], y)
    # The noise may have changed with the move; of its own line, as a trend is no noise.
    after = _variance(_off_line(x_after), like[:m, :m], y_after) if m == _BLOCKS else (variance, freedom)
    x_mean = x.mean()
    ahead = (x_after.mean() - x_mean) / float((x - x_mean) @ (x - x_mean))
    of_line = (1 / n + ahead * (x - x_mean)) * np.sqrt(variance)
    of_mean = np.full(m, np.sqrt(after[0]) / m)
    parts = float(of_line @ like[:n, :n] @ of_line), float(of_mean @ like[:m, :m] @ of_mean)
    both = sum(parts) - 2 * float(of_line @ like[:n, n:] @ of_mean)
    predicted = float(y.mean() + ahead * ((x - x_mean) @ y))
    actual = float(np.mean(values[middle:end] / scale))
    # Losses without noise: differences of rounding are none.
    error = max(float(np.sqrt(max(both, 0.0))), 1e-9 * max(abs(predicted), abs(actual)), 1e-300)
    freedom = sum(parts) ** 2 / max(parts[0] ** 2 / freedom + parts[1] ** 2 / after[1], 1e-300)
    p_value = 2 * float(stats.t.sf(abs(actual - predicted) / error, max(freedom, 1.0)))
    found = _Comparison(scale * predicted, scale * actual, scale * error, p_value)
    return found if np.isfinite(found).all() else None


def _blocks(values: Floats, windows: int) -> Floats:
    """Means of consecutive rows, four blocks for a window."""
    number = min(_BLOCKS * windows, len(values))
    edges = np.linspace(0, len(values), number + 1).astype(int)
    means: Floats = np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    return means


def _off_line(x: Floats) -> Floats:
    """The matrix that takes values at these places to their distances from the least-squares line."""
    slope = x - x.mean()
    length = float(slope @ slope) or 1.0
    matrix: Floats = np.eye(len(x)) - 1 / len(x) - np.outer(slope, slope) / length
    return matrix


def _autocorrelation(residuals: Floats) -> float:
    """Correlation of neighbours, on the safe side: without the line's bias (Kendall), plus a standard error."""
    n, total = len(residuals), float(residuals @ residuals)
    if total == 0:
        return 0.0
    unbiased = (n * float(residuals[1:] @ residuals[:-1]) / total + 2) / max(n - 4, 1)
    unbiased = min(max(unbiased, -1.0), 1.0)
    return min(max(unbiased + float(np.sqrt((1 - unbiased**2) / n)), 0.0), _MOST_ALIKE)


def _variance(off_line: Floats, like: Floats, values: Floats) -> tuple[float, float]:
    """Variance of values around their line, given how alike neighbours are, and its degrees of freedom."""
    expected, residuals = off_line @ like, off_line @ values
    trace = float(np.trace(expected))
    return float(residuals @ residuals) / trace, trace**2 / float(np.sum(expected * expected.T))


def _halfway(steps: Ints, values: Floats, one: Decision, window: int, sign: float) -> _Comparison | None:
    """The mean after a climb against halfway up the rise that ended it; None if there are too few losses."""
    begin, middle, end = np.searchsorted(
        steps, [one.step - HISTORY * window, one.step, one.step + window], side="right"
    )
    after = values[middle:end]
    if len(after) < _LEAST_AFTER or not {"mean", "lowest", "standard_error"} <= one.evidence.keys():
        return None
    halfway = sign * (one.evidence["mean"] + one.evidence["lowest"]) / 2
    scale = float(np.abs(after).max()) or 1.0
    # Both ends have the standard error of the smoothed loss.
    error = one.evidence["standard_error"] / scale
    variance = float((after / scale).var(ddof=1)) / len(after) + error * error / 2
    before = values[begin:middle]
    if len(before) >= _LEAST_BEFORE:
        size = float(np.abs(before).max()) or 1.0
        alike = _autocorrelation(_off_line(steps[begin:middle].astype(float)) @ (before / size))
        if alike > 3 / np.sqrt(len(before)):  # two standard errors above none
            variance *= (1 + alike) / (1 - alike)
    actual = scale * float((after / scale).mean())
    error = max(scale * float(np.sqrt(variance)), 1e-9 * max(abs(halfway), abs(actual)), 1e-300)
    p_value = 2 * float(stats.norm.sf(abs(actual - halfway) / error))
    found = _Comparison(halfway, actual, error, p_value)
    return found if np.isfinite(found).all() else None


def _judged(record: Record, one: Decision, judge: str, comparison: _Comparison | None, broken: Ints) -> Audited:
    phase = PHASES[third(one.step, record.last)]
    again = one.action in _REFLEXES and bool(np.any((broken > one.step + 1) & (broken <= one.step + record.window)))
    # Of a run that goes on, the losses of half a window are no verdict.
    pending = not record.over and record.last < one.step + record.window
    if comparison is None or pending:
        nothing = float("nan")
        verdict = Verdict.NOT_YET if pending else Verdict.NOT_RECOVERED if again else Verdict.TOO_FEW
        return Audited(one, verdict, nothing, nothing, nothing, nothing, judge, phase)
    predicted, actual, error, p_value = comparison
    above = actual > predicted
    if one.action in _REFLEXES:
        verdict = Verdict.NOT_RECOVERED if again or (above and p_value < LEVEL) else Verdict.RECOVERED
    elif p_value >= LEVEL:
        verdict = Verdict.UNDECIDABLE
    elif one.action is Action.BACKED_OFF and judge != PROBE:
        verdict = Verdict.STAYED_UP if above else Verdict.CAME_BACK
    else:
        verdict = Verdict.REFUTED if above else Verdict.CONFIRMED
    return Audited(one, verdict, record.sign * predicted, record.sign * actual, error, p_value, judge, phase)


def _shares(moves: tuple[Audited, ...] | list[Audited]) -> Shares:
    counts = Counter(one.verdict.short for one in moves)
    return Shares(counts["confirmed"], counts["refuted"], counts["undecidable"] + counts["not yet"])
