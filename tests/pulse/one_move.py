"""The audit's comparison of one move with the trend before it, a move at a time: what judges many together."""

import numpy as np
from scipy import stats

from greedylr.pulse.diagnosis.audit import HISTORY

BLOCKS = 4
PROBES = (4, 2)
LOSSES = (8, 5)


def compared(steps, values, at, window, least):
    """The mean after a step against the line through the values before; None if there are too few."""
    middle = int(np.searchsorted(steps, at, side="right"))
    begin = int(np.searchsorted(steps, at - HISTORY * window, side="right"))
    end = int(np.searchsorted(steps, at + window, side="right"))
    if least == PROBES:  # They may be far apart.
        begin, end = min(begin, max(middle - least[0], 0)), max(end, min(middle + least[1], len(steps)))
    if middle - begin < least[0] or end - middle < least[1] or steps[begin] == steps[middle - 1]:
        return None
    scale = float(np.abs(values[begin:end]).max()) or 1.0  # so that no square is too large
    x, y = (blocks(of[begin:middle] / by, HISTORY) for of, by in ((steps, 1.0), (values, scale)))
    x_after, y_after = (blocks(of[middle:end] / by, 1) for of, by in ((steps, 1.0), (values, scale)))
    n, m = len(y), len(y_after)
    matrix = off_line(x)
    like = autocorrelation(matrix @ y) ** np.abs(np.subtract.outer(np.arange(n + m), np.arange(n + m)))
    spread, freedom = variance(matrix, like[:n, :n], y)
    # The noise may have changed with the move; of its own line, as a trend is no noise.
    after = variance(off_line(x_after), like[:m, :m], y_after) if m == BLOCKS else (spread, freedom)
    x_mean = x.mean()
    ahead = (x_after.mean() - x_mean) / float((x - x_mean) @ (x - x_mean))
    of_line = (1 / n + ahead * (x - x_mean)) * np.sqrt(spread)
    of_mean = np.full(m, np.sqrt(after[0]) / m)
    parts = float(of_line @ like[:n, :n] @ of_line), float(of_mean @ like[:m, :m] @ of_mean)
    both = sum(parts) - 2 * float(of_line @ like[:n, n:] @ of_mean)
    predicted = float(y.mean() + ahead * ((x - x_mean) @ y))
    actual = float(np.mean(values[middle:end] / scale))
    # Losses without noise: differences of rounding are none.
    error = max(float(np.sqrt(max(both, 0.0))), 1e-9 * max(abs(predicted), abs(actual)), 1e-300)
    freedom = sum(parts) ** 2 / max(parts[0] ** 2 / freedom + parts[1] ** 2 / after[1], 1e-300)
    p_value = 2 * float(stats.t.sf(abs(actual - predicted) / error, max(freedom, 1.0)))
    found = (scale * predicted, scale * actual, scale * error, p_value)
    return found if np.isfinite(found).all() else None


def blocks(values, windows):
    """Means of consecutive rows, four blocks for a window."""
    number = min(BLOCKS * windows, len(values))
    edges = np.linspace(0, len(values), number + 1).astype(int)
    means = np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    return means


def off_line(x):
    """The matrix that takes values at these places to their distances from the least-squares line."""
    slope = x - x.mean()
    length = float(slope @ slope) or 1.0
    matrix = np.eye(len(x)) - 1 / len(x) - np.outer(slope, slope) / length
    return matrix


def autocorrelation(residuals):
    """Correlation of neighbours, on the safe side: without the line's bias (Kendall), plus a standard error."""
    n, total = len(residuals), float(residuals @ residuals)
    if total == 0:
        return 0.0
    unbiased = (n * float(residuals[1:] @ residuals[:-1]) / total + 2) / max(n - 4, 1)
    unbiased = min(max(unbiased, -1.0), 1.0)
    return min(max(unbiased + float(np.sqrt((1 - unbiased**2) / n)), 0.0), 0.99)


def variance(off_line, like, values):
    """Variance of values around their line, given how alike neighbours are, and its degrees of freedom."""
    expected, residuals = off_line @ like, off_line @ values
    trace = float(np.trace(expected))
    return float(residuals @ residuals) / trace, trace**2 / float(np.sum(expected * expected.T))
