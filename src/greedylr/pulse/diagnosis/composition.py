"""Share of the loss's movement, and of the decisions, that the composition of the batches explains.

The loss and the logged columns (labels as one column each) are taken relative to their running means, so that only
what moves within a hundred steps counts. The loss is divided by its running standard deviation, so that every stretch
counts alike, be its losses noisy or quiet. What a column does to it may be the same all along, or grow and shrink with
that deviation: each column is there divided and as it is. A least-squares fit on four fifths of the run is tried on
the fifth left out, in turn: the share of the variance that it explains there is the answer, negative where it explains
nothing. The permutation test turns the columns against the loss by random amounts, which keeps the order within each,
and asks how often chance does as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from greedylr.control.decision import Action
from greedylr.extras import missing
from greedylr.pulse.record import Floats, Record
from greedylr.pulse.recording.storage import TROUBLE

try:
    from scipy import ndimage, stats  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise missing(error, "pulse") from error

MUCH = 0.1
"""Share of the movement from which composition matters."""

_NOTHING = 0.01
_SPAN = 101  # steps of the running mean and standard deviation
_QUIETEST = 1e-3  # of the largest standard deviation: what is quieter counts less
_ROWS = 20_000  # rows at most, in stretches
_TURNS = 199
_LABELS = 30
_FOLDS = 5
_LEAST_ROWS = 200


class Source(NamedTuple):
    """A domain, or a band of numbers, that spikes come from more often than their share of the steps.

    Attributes:
        column: The column.
        value: The label, or the band.
        spikes: Spikes among its steps.
        of: Spikes in all.
        share: Its share of all steps.
        p_value: Probability of that many by chance, corrected for the number of values looked at (Bonferroni).
    """

    column: str
    value: str
    spikes: int
    of: int
    share: float
    p_value: float


@dataclass(frozen=True)
class Composition:
    """Share that the composition of the batches explains.

    Attributes:
        explained: Share of the loss's movement, out of sample.
        p_value: Of the permutation test.
        by_column: The same share for each column alone.
        labels: The columns that hold labels.
        moves: Raises and cuts by comparison that could be looked at.
        moves_explained: Of those, how many rest on a difference that composition explains by more than half.
        sources: Where spikes come from, the surest first.
    """

    explained: float
    p_value: float
    by_column: dict[str, float]
    labels: frozenset[str]
    moves: int
    moves_explained: int
    sources: tuple[Source, ...]

    @property
    def much(self) -> bool:
        """True if it is so much that something should be done."""
        return self.explained >= MUCH and self.p_value < 0.05

    @property
    def sentence(self) -> str:
        """Sentence about the finding, and advice."""
        share = f"Composition explains {self.explained:.0%} of the loss's movement (p = {self.p_value:.2g})"
        if self.explained < _NOTHING:  # be it significant or not
            share = "Composition explains less than 1% of the loss's movement"
        if self.moves:
            share += f", and {self.moves_explained} of {self.moves} raises and cuts"
        if not self.much:
            return f"{share}: the loss means what it says."
        best = max(self.by_column, key=lambda name: self.by_column[name])
        if best not in self.labels:
            return f"{share}, {best!r} most: stratify the batches by it, so that each has its share of every band."
        return (
            f"{share}, {best!r} most: stratify the batches by it, or compare each loss with its own domain's level: "
            f"GreedyLR(..., level_by={best!r})."
        )


def explain(record: Record, seed: int = 0) -> Composition | None:
    """Relate losses and moves to the logged composition.

    Args:
        record: The run.
        seed: Of the permutations.

    Returns:
        None if no composition was logged, or for fewer than 200 steps.
    """
    finite = np.isfinite(record.losses)
    columns = {name: _encoded(values[finite]) for name, values in record.composition.items()}
    columns = {name: values for name, values in columns.items() if values.shape[1]}
    if not columns or int(finite.sum()) < _LEAST_ROWS:
        return None
    steps, losses = record.steps[finite], record.losses[finite]
    # One spike must not outweigh everything else; no square must be too large.
    scale = float(np.abs(losses).max()) or 1.0
    losses = losses / scale
    losses = np.clip(losses, *np.quantile(losses, [0.001, 0.999]))
    every = np.hstack(list(columns.values()))
    rows = _sample(len(losses))
    moving = _moving(losses[:, None])
    spread = np.sqrt(np.maximum(ndimage.uniform_filter1d(moving**2, _SPAN, axis=0, mode="nearest"), 0.0))
    spread = np.maximum(spread, max(_QUIETEST * float(spread.max()), 1e-300))
    loss = (moving / spread)[rows, 0]
    composition = {name: _both(_moving(values), spread)[rows] for name, values in columns.items()}
    together = _both(_moving(every), spread)[rows]
    explained = _out_of_sample(together, loss)
    random = np.random.default_rng(seed)
    turned = [
        _out_of_sample(
            np.roll(together, int(random.integers(len(loss) // 20, len(loss) - len(loss) // 20)), axis=0), loss
        )
        for _ in range(_TURNS)
    ]
    p_value = (1 + sum(one >= explained for one in turned)) / (1 + _TURNS)
    by_column = {name: _out_of_sample(values, loss) for name, values in composition.items()}
    steady, growing = np.split(_fit(together, loss), 2)
    fitted = every @ steady + every @ growing * spread[:, 0]
    moves, moves_explained = _moves(record, steps, losses, fitted, scale) if explained > 0 else (0, 0)
    labels = frozenset(name for name in columns if record.composition[name].dtype.kind != "f")
    return Composition(explained, p_value, by_column, labels, moves, moves_explained, _sources(record))


def _encoded(values: NDArray[Any]) -> Floats:
    """A column as numbers: standardised, or one column for each of its labels but the last."""
    if values.dtype.kind == "f":
        known = np.isfinite(values)
        # So that no sum or square is too large.
        values = values / (float(np.abs(values[known]).max(initial=0.0)) or 1.0)
        if not known.any() or np.ptp(values[known]) == 0:
            return np.empty((len(values), 0))
        filled = np.where(known, values, values[known].mean())
        scaled: Floats = ((filled - filled.mean()) / filled.std())[:, None]
        return scaled
    # As an array of strings, all would be as long as the longest.
    numbers: dict[Any, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in values.tolist()], np.int64)
    common = np.argsort(-np.bincount(codes), kind="stable")[:_LABELS] if numbers else codes
    common = common if len(numbers) > len(common) else common[:-1]
    encoded: Floats = (codes[:, None] == common[None, :]).astype(float)
    return encoded


def _moving(values: Floats) -> Floats:
    """Values minus their running mean."""
    moved: Floats = values - ndimage.uniform_filter1d(values, _SPAN, axis=0, mode="nearest")
    return moved


def _both(moving: Floats, spread: Floats) -> Floats:
    """Regressors for both cases: the effect of a column is constant, or larger where the loss moves more."""
    return np.hstack([moving / spread, moving])


def _sample(rows: int) -> NDArray[np.int64]:
    """All rows, or of very many, ten stretches evenly spread: order within them is kept."""
    if rows <= _ROWS:
        return np.arange(rows)
    length = _ROWS // 10
    starts = np.linspace(0, rows - length, 10).astype(np.int64)
    return np.concatenate([start + np.arange(length) for start in starts])


def _fit(x: Floats, y: Floats) -> Floats:
    gram = x.T @ x
    weights = np.linalg.solve(gram + _ridge(gram), x.T @ y)
    return np.asarray(weights, np.float64)


def _ridge(gram: Floats) -> Floats:
    """A trace of each column's own size, for columns that are sums of others; and something for those without any."""
    sizes = np.diag(gram)
    ridge: Floats = np.diag(1e-6 * sizes + 1e-12 * max(float(sizes.sum()), 1e-12)).astype(np.float64)
    return ridge


def _out_of_sample(x: Floats, y: Floats) -> float:
    """Share of the variance explained where the fit has not looked, in contiguous fifths."""
    total = float(y @ y)
    if total == 0:
        return 0.0
    edges = np.linspace(0, len(y), _FOLDS + 1).astype(int)
    gram, moment, left = x.T @ x, x.T @ y, 0.0
    ridge = _ridge(gram)
    for first, last in pairwise(edges):
        part, there = x[first:last], y[first:last]
        weights = np.linalg.solve(gram - part.T @ part + ridge, moment - part.T @ there)
        left += float(np.sum((there - part @ weights) ** 2))
    return 1 - left / total


def _moves(record: Record, steps: NDArray[np.int64], losses: Floats, fitted: Floats, scale: float) -> tuple[int, int]:
    """Moves by comparison: all, and those of whose difference composition is the larger half."""
    sums, fits = np.cumsum(np.r_[0.0, losses]), np.cumsum(np.r_[0.0, fitted])
    looked_at = explained = 0
    for one in record.moves:
        if one.action in (Action.NON_FINITE, Action.EXPLOSION):
            continue
        begin, middle, end = np.searchsorted(
            steps, [one.step - 2 * record.window, one.step - record.window, one.step], side="right"
        )
        if middle == begin or end == middle:
            continue
        seen, made = (
            (total[end] - total[middle]) / (end - middle) - (total[middle] - total[begin]) / (middle - begin)
            for total in (sums, fits)
        )
        if {"mean", "previous_mean"} <= set(one.evidence):  # what the rule compared, corrected by level_by or not
            seen = one.evidence["mean"] / scale - one.evidence["previous_mean"] / scale
        looked_at += 1
        explained += bool(abs(seen - made) < 0.5 * abs(seen))
    return looked_at, explained


def _sources(record: Record) -> tuple[Source, ...]:
    """Origin of the spikes."""
    spikes = sorted({one.step for one in record.decisions if one.action in TROUBLE})
    rows = np.flatnonzero(np.isin(record.steps, spikes))
    if not len(rows):
        return ()
    found = []
    for name, values in record.composition.items():
        labels = _bands(values) if values.dtype.kind == "f" else values.astype(object)
        names, counts = np.unique(labels[labels != ""], return_counts=True)
        at = labels[rows]
        for label, count in zip(names.tolist(), counts.tolist()):
            hits = int(np.sum(at == label))
            share = count / len(values)
            chance = float(stats.binom.sf(hits - 1, len(at), share)) * len(names)
            if hits and share < 1 and chance < 0.05:
                found.append(Source(name, label, hits, len(at), share, min(chance, 1.0)))
    return tuple(sorted(found, key=lambda one: one.p_value))


def _bands(values: Floats) -> NDArray[Any]:
    """Quarters of the values, named by their ends."""
    known = np.isfinite(values)
    labels = np.full(len(values), "", dtype=object)
    if not known.any():
        return labels
    edges = np.unique(np.quantile(values[known], [0, 0.25, 0.5, 0.75, 1]))
    if len(edges) < 2:
        return labels
    band = np.clip(np.searchsorted(edges, values[known], side="right") - 1, 0, len(edges) - 2)
    names = np.array([f"{low:g} to {high:g}" for low, high in pairwise(edges)], dtype=object)
    labels[known] = names[band]
    return labels
