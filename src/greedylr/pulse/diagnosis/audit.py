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

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
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
_AT_ONCE = 500  # moves
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
    return audits([record])[0]


def audits(records: Iterable[Record]) -> list[Audit]:
    """Judge the moves of several runs, as :func:`audit` does: together, for a move alone costs twenty times as much.

    Args:
        records: The runs.
    """
    told = [_Told.of(record) for record in records]
    trends = iter(_against_trends(told))
    return [Audit(tuple(_judged(one, list(islice(trends, len(one.record.moves)))))) for one in told]


class _Told(NamedTuple):
    """Losses that judge the moves of a run.

    Attributes:
        record: The run.
        judge: ``loss``, or ``probe_loss``.
        steps: Steps of the losses that count.
        values: These losses, lower is better.
        broken: Steps of those that are not finite.
    """

    record: Record
    judge: str
    steps: Ints
    values: Floats
    broken: Ints

    @classmethod
    def of(cls, record: Record) -> _Told:
        if PROBE in record.metrics:
            judge, (steps, losses) = PROBE, record.metrics[PROBE]
            trouble = []
        else:
            judge, steps, losses = "loss", record.steps, record.losses
            trouble = [one.step for one in record.decisions if one.action in TROUBLE]
        values, finite = record.sign * losses, np.isfinite(losses)
        usable = finite & ~np.isin(steps, trouble) if trouble else finite
        return cls(record, judge, steps[usable], values[usable], steps[~finite])


class _Comparison(NamedTuple):
    predicted: float
    actual: float
    standard_error: float
    p_value: float


_NOTHING = _Comparison(math.nan, math.nan, math.nan, math.nan)


class _Spans(NamedTuple):
    """Losses around some moves: rows from ``begin`` to ``middle`` came before, those to ``end`` after."""

    begin: Ints
    middle: Ints
    end: Ints


def _against_trends(told: Sequence[_Told]) -> list[_Comparison | None]:
    """The mean after each move against the line through the losses before; None where there are too few."""
    if not any(one.record.moves for one in told):
        return []
    steps, values = (np.concatenate([getattr(one, name) for one in told]) for name in ("steps", "values"))
    first_rows = np.cumsum([0, *(len(one.steps) for one in told)])
    spans = _Spans(*np.concatenate([_spans(one) + row for one, row in zip(told, first_rows)], axis=1))
    least = np.repeat([_least(one) for one in told], [len(one.record.moves) for one in told], axis=0)
    enough = np.flatnonzero((spans.middle - spans.begin >= least[:, 0]) & (spans.end - spans.middle >= least[:, 1]))
    enough = enough[steps[spans.begin[enough]] != steps[spans.middle[enough] - 1]]
    # Arrays hold moves with as many blocks, and not too many of them for the processor's cache.
    blocks = np.minimum(spans.middle - spans.begin, HISTORY * _BLOCKS), np.minimum(spans.end - spans.middle, _BLOCKS)
    found: list[_Comparison | None] = [None] * len(least)
    for n, m in {*zip(blocks[0][enough].tolist(), blocks[1][enough].tolist())}:
        alike = enough[(blocks[0][enough] == n) & (blocks[1][enough] == m)]
        for rows in np.array_split(alike, -(-len(alike) // _AT_ONCE)):
            compared = _compare(steps, values, _Spans(*(of[rows] for of in spans)), n, m)
            finite = np.isfinite(compared).all(axis=1)
            for row, numbers in zip(rows[finite].tolist(), compared[finite].tolist()):
                found[row] = _Comparison(*numbers)
    return found


def _least(told: _Told) -> tuple[int, int]:
    """The number of losses that are needed before and after a move."""
    return _LEAST_PROBES if told.judge == PROBE else (_LEAST_BEFORE, _LEAST_AFTER)


def _spans(told: _Told) -> Ints:
    """Begin, middle and end of the losses around each move."""
    at, window = np.array([one.step for one in told.record.moves], np.int64), told.record.window
    begin, middle, end = np.searchsorted(told.steps, [at - HISTORY * window, at, at + window], side="right")
    if told.judge == PROBE:  # They may be far apart.
        before, after = _LEAST_PROBES
        begin = np.minimum(begin, np.maximum(middle - before, 0))
        end = np.maximum(end, np.minimum(middle + after, len(told.steps)))
    return np.stack([begin, middle, end])


def _compare(steps: Ints, values: Floats, spans: _Spans, n: int, m: int) -> Floats:
    """Numbers of :class:`_Comparison`, a row a move, of moves with ``n`` blocks before and ``m`` after."""
    begin, middle, end = spans
    rows, first = _rows(begin, end)
    scale = np.maximum.reduceat(np.abs(values[rows]), first)
    scale = np.where(scale > 0, scale, 1.0)  # so that no square is too large
    one = np.ones(len(scale))
    x, x_after = _blocks(steps, begin, middle, n, one), _blocks(steps, middle, end, m, one)
    y, y_after = _blocks(values, begin, middle, n, scale), _blocks(values, middle, end, m, scale)
    off_line = _off_line(x)
    apart = np.abs(np.subtract.outer(np.arange(n + m), np.arange(n + m)))
    like = (_autocorrelation(_times(off_line, y))[:, None] ** np.arange(n + m))[:, apart]
    variance, freedom = _variance(off_line, like[:, :n, :n], y)
    # The noise may have changed with the move; of its own line, as a trend is no noise.
    after = _variance(_off_line(x_after), like[:, :m, :m], y_after) if m == _BLOCKS else (variance, freedom)
    from_middle = x - x.mean(axis=1, keepdims=True)
    ahead = (x_after.mean(axis=1) - x.mean(axis=1)) / _dot(from_middle, from_middle)
    of_line = (1 / n + ahead[:, None] * from_middle) * np.sqrt(variance)[:, None]
    of_mean = np.repeat(np.sqrt(after[0])[:, None] / m, m, axis=1)
    parts = _dot(_times(like[:, :n, :n], of_line), of_line), _dot(_times(like[:, :m, :m], of_mean), of_mean)
    both = parts[0] + parts[1] - 2 * _dot(of_line, _times(like[:, :n, n:], of_mean))
    predicted = y.mean(axis=1) + ahead * _dot(from_middle, y)
    actual = _blocks(values, middle, end, 1, scale)[:, 0]
    # Losses without noise: differences of rounding are none.
    rounding = np.maximum(1e-9 * np.maximum(np.abs(predicted), np.abs(actual)), 1e-300)
    error = np.maximum(np.sqrt(np.maximum(both, 0.0)), rounding)
    freedom = (parts[0] + parts[1]) ** 2 / np.maximum(parts[0] ** 2 / freedom + parts[1] ** 2 / after[1], 1e-300)
    p_value = 2 * stats.t.sf(np.abs(actual - predicted) / error, np.maximum(freedom, 1.0))
    return np.stack([scale * predicted, scale * actual, scale * error, p_value], axis=1)


def _rows(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Rows of all spans, one span after the other, and the place of the first of each among them."""
    lengths = end - begin
    first = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(begin - first, lengths), first


def _blocks(values: Floats | Ints, begin: Ints, end: Ints, number: int, scale: Floats) -> Floats:
    """Means of so many blocks of consecutive rows in each span, over its scale."""
    rows, first = _rows(begin, end)
    edges = np.linspace(0, end - begin, number + 1, axis=1).astype(int)
    sums = np.add.reduceat(values[rows] / np.repeat(scale, end - begin), (first[:, None] + edges[:, :-1]).ravel())
    means: Floats = sums.reshape(-1, number) / np.diff(edges, axis=1)
    return means


def _times(matrices: Floats, vectors: Floats) -> Floats:
    """Each matrix times its vector."""
    products: Floats = (matrices @ vectors[:, :, None])[:, :, 0]
    return products


def _dot(some: Floats, others: Floats) -> Floats:
    """The inner product of each vector with its other."""
    products: Floats = (some[:, None, :] @ others[:, :, None])[:, 0, 0]
    return products


def _off_line(x: Floats) -> Floats:
    """The matrices that take values at these places, a row each, to their distances from the least-squares line."""
    slope = x - x.mean(axis=1, keepdims=True)
    length = _dot(slope, slope)
    length = np.where(length > 0, length, 1.0)
    outer = slope[:, :, None] * slope[:, None, :]
    matrices: Floats = np.eye(x.shape[1]) - 1 / x.shape[1] - outer / length[:, None, None]
    return matrices


def _autocorrelation(residuals: Floats) -> Floats:
    """Correlation of neighbours, on the safe side: without the line's bias (Kendall), plus a standard error."""
    n, total = residuals.shape[1], _dot(residuals, residuals)
    ratio = _dot(residuals[:, 1:], residuals[:, :-1]) / np.where(total == 0, 1.0, total)
    unbiased = np.clip((n * ratio + 2) / max(n - 4, 1), -1.0, 1.0)
    safe = np.clip(unbiased + np.sqrt((1 - unbiased**2) / n), 0.0, _MOST_ALIKE)
    return np.where(total == 0, 0.0, safe)


def _variance(off_line: Floats, like: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Variances of values around their lines, given how alike neighbours are, and their degrees of freedom."""
    expected, residuals = off_line @ like, _times(off_line, values)
    trace = np.trace(expected, axis1=1, axis2=2)
    square = (expected * expected.swapaxes(1, 2)).reshape(len(expected), -1).sum(axis=1)
    return _dot(residuals, residuals) / trace, trace**2 / square


def _halfway(told: _Told, one: Decision) -> _Comparison | None:
    """The mean after a climb against halfway up the rise that ended it; None if there are too few losses."""
    steps, values, window, sign = told.steps, told.values, told.record.window, told.record.sign
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
        residuals = _times(_off_line(steps[None, begin:middle].astype(float)), before[None] / size)
        alike = float(_autocorrelation(residuals)[0])
        if alike > 3 / np.sqrt(len(before)):  # two standard errors above none
            variance *= (1 + alike) / (1 - alike)
    actual = scale * float((after / scale).mean())
    error = max(scale * float(np.sqrt(variance)), 1e-9 * max(abs(halfway), abs(actual)), 1e-300)
    p_value = 2 * float(stats.norm.sf(abs(actual - halfway) / error))
    found = _Comparison(halfway, actual, error, p_value)
    return found if np.isfinite(found).all() else None


def _judged(told: _Told, trends: Sequence[_Comparison | None]) -> Iterator[Audited]:
    """The moves of a run, given how they compare with the trend before them."""
    record, judge, last = told.record, told.judge, told.record.last
    thirds = third(np.array([one.step for one in record.moves], np.int64), last).tolist()
    for one, trend, number in zip(record.moves, trends, thirds, strict=True):
        of_climb = one.action is Action.BACKED_OFF and judge != PROBE
        compared = _halfway(told, one) if of_climb else trend
        # Of a run that goes on, the losses of half a window are no verdict.
        pending = not record.over and last < one.step + record.window
        verdict = Verdict.NOT_YET if pending else _verdict(told, one, compared, of_climb)
        if compared is None or pending:
            compared = _NOTHING
        predicted, actual, error, p_value = compared
        yield Audited(
            one, verdict, record.sign * predicted, record.sign * actual, error, p_value, judge, PHASES[number]
        )


def _verdict(told: _Told, one: Decision, compared: _Comparison | None, of_climb: bool) -> Verdict:
    """The verdict on a move whose next window is over."""
    reflex, broken = one.action in _REFLEXES, told.broken
    if reflex and bool(np.any((broken > one.step + 1) & (broken <= one.step + told.record.window))):
        return Verdict.NOT_RECOVERED
    if compared is None:
        return Verdict.TOO_FEW
    above, sure = compared.actual > compared.predicted, compared.p_value < LEVEL
    if reflex:
        return Verdict.NOT_RECOVERED if above and sure else Verdict.RECOVERED
    if not sure:
        return Verdict.UNDECIDABLE
    if of_climb:
        return Verdict.STAYED_UP if above else Verdict.CAME_BACK
    return Verdict.REFUTED if above else Verdict.CONFIRMED


def _shares(moves: tuple[Audited, ...] | list[Audited]) -> Shares:
    counts = Counter(one.verdict.short for one in moves)
    return Shares(counts["confirmed"], counts["refuted"], counts["undecidable"] + counts["not yet"])
