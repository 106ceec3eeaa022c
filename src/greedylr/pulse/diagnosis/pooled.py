r"""Did the moves do good, all of a kind together? One move of a tenth is lost in the noise of a window; many are not.

Of each move the audit's line through three windows predicts the mean of the next. The excess is what came out less what
was predicted. Its mean over many moves is not zero where moves do nothing: a loss that flattens lies above any line
drawn on, and a raise follows a window that was low by chance, after which the loss comes up again. So the same rule is
played again on losses that no move can have changed: the run's own trend, a line through eight windows around each
step, with its own noise, the distances from it in blocks of four windows whose signs are drawn at random. What the
moves of those replays come to is what chance and curvature make of this rule on this run. With :math:`\bar e` the mean
excess of the run's moves and :math:`\bar e_0` that of the replays', the effect of the moves is
:math:`\bar e - \bar e_0`; its standard error is how much replays with so many moves differ among themselves.

It is said as a share of what the trend falls by in the window after a move: by how much faster the loss fell than it
would have. Seen is what sets in with a move, within a window. What many moves do together over a long time is in the
trend as well, and cannot be told from what would have come anyway.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from greedylr.control import plain, rule
from greedylr.control.decision import Action
from greedylr.control.default.config import DefaultConfig
from greedylr.control.families import Config
from greedylr.control.paper.config import PaperConfig
from greedylr.pulse.diagnosis.audit import HISTORY, LEVEL, PHASES, third
from greedylr.pulse.record import Floats, Ints, Record
from greedylr.pulse.recording.storage import TROUBLE

REPLAYS = 100
"""Times that the rule is played on losses that no move has changed."""

LONGEST = 50_000
"""Steps from which on a run is not played again: it would take longer than one wants to wait."""

_LEAST = 10  # moves of a kind; of fewer nothing is said
_POWER = 2.8  # standard errors that an effect must have to be seen four times in five
_AROUND = 8  # windows that the trend is drawn through
_BLOCK = 4  # windows whose noise has one sign
_CONFIGS: dict[str, type[DefaultConfig] | type[PaperConfig]] = {
    one.__name__: one for one in (DefaultConfig, PaperConfig)
}
_KINDS = {Action.RAISED: "raises", Action.CUT: "cuts"}


class Pooled(NamedTuple):
    """Moves of one kind, judged together.

    Attributes:
        kind: ``raises`` or ``cuts``.
        phase: The third of the run that they are of; None: all.
        moves: How many.
        effect: What the loss of the next window was above what it would have been without, in the mean; below zero is
            good.
        standard_error: Of it.
        p_value: Probability of so large an effect by chance alone.
        fall: What the trend falls by in that window, in the mean.
        steps: Steps after it that a single move would need to be judged by, if the loss falls in proportion to the
            learning rate; None if it does not fall.
    """

    kind: str
    phase: str | None
    moves: int
    effect: float
    standard_error: float
    p_value: float
    fall: float
    steps: int | None

    @property
    def decided(self) -> bool:
        """True if it is hardly chance."""
        return self.p_value < LEVEL

    @property
    def faster(self) -> tuple[float, float, float] | None:
        """Share by which the loss fell faster than without, and the ends of its 95 % interval; None if it did not fall.

        Example:
            >>> [round(one, 3) for one in Pooled("raises", None, 40, -0.02, 0.005, 0.001, 0.1, 900).faster]
            [0.2, 0.102, 0.298]
        """
        if not self.fall > self.standard_error:
            return None
        low, high = self.interval
        return -self.effect / self.fall, -high / self.fall, -low / self.fall

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval of the effect."""
        margin = 1.96 * self.standard_error
        return self.effect - margin, self.effect + margin


def pool(record: Record, seed: int = 0) -> list[Pooled]:
    """Judge the raises and the cuts of a run together: all, and those of each third of it.

    Args:
        record: The run.
        seed: Of the signs.

    Returns:
        Those kinds that have ten moves or more. Nothing of a run that cannot be played again: of a scheduler that is
        not of this package, with steps missing, or longer than :data:`LONGEST`.
    """
    config, window, number = _config(record), record.window, len(record.steps)
    compared = [one for one in record.moves if one.action in _KINDS]
    made = _moves([(one.step, one.action) for one in compared])
    whole = 0 < number <= LONGEST and int(record.steps[0]) == 1 and int(record.steps[-1]) == number
    if config is None or not whole or not len(made.steps):
        return []
    values = record.sign * record.losses
    troubled = [one.step for one in record.decisions if one.action in TROUBLE]
    usable = np.isfinite(values) & ~np.isin(record.steps, troubled)
    if usable.sum() < _AROUND * window:
        return []
    scale = float(np.abs(values[usable]).max()) or 1.0
    scaled = np.where(usable, values / scale, 0.0)
    trend = _trend(scaled, usable, window)
    noise = np.where(usable, scaled - trend, 0.0)
    generator = np.random.default_rng(seed)
    replays = []
    for _ in range(REPLAYS):
        losses = trend + noise * _signs(generator, number, window)
        played = _moves(_replay(config, float(record.first_lrs[0]), (record.sign * scale * losses).tolist()))
        replays.append((played, _excess(losses, np.ones(number, bool), played.steps, window)))
    own = _excess(scaled, usable, made.steps, window)
    sizes = np.array([abs(math.log(one.lr_after[0] / one.lr_before[0])) for one in compared])
    found = []
    for kind, name in _KINDS.items():
        for phase in (None, *range(len(PHASES))):
            inside = _chosen(made, kind, phase, number) & np.isfinite(own)
            chance = [excess[_chosen(its, kind, phase, number) & np.isfinite(excess)] for its, excess in replays]
            chance = [one for one in chance if len(one)]
            if inside.sum() >= _LEAST and len(chance) >= REPLAYS // 2:
                falls = _falls(trend, made.steps[inside], window)
                effect, error, p_value, fall, steps = _judged(own[inside], chance, falls, sizes[inside], window)
                part = None if phase is None else PHASES[phase]
                in_units = scale * effect, scale * error, p_value, scale * fall
                found.append(Pooled(name, part, int(inside.sum()), *in_units, steps))
    return found


class _Moves(NamedTuple):
    steps: Ints
    raised: np.ndarray


def _moves(decided: list[tuple[int, Action]]) -> _Moves:
    steps, raised = ([step for step, _ in decided], [action is Action.RAISED for _, action in decided])
    return _Moves(np.array(steps, np.int64), np.array(raised, bool))


def _config(record: Record) -> Config | None:
    """The settings to play the rule with; None if it is another's."""
    kind = _CONFIGS.get(str(record.config.get("family")))
    if kind is None or not np.isfinite(record.first_lrs[0]):
        return None
    settings = {name: value for name, value in record.config.items() if name not in ("family", "span")}
    try:
        return plain.from_dict(kind, settings)
    except ValueError:  # of another version
        return None


def _trend(values: Floats, usable: np.ndarray, window: int) -> Floats:
    """The least-squares line through the usable rows within four windows of each row, at that row."""
    rows = np.arange(len(values))
    begin, end = np.maximum(rows - _AROUND * window // 2, 0), np.minimum(rows + _AROUND * window // 2 + 1, len(values))
    level, slope, middle = _lines(values, usable, begin, end)
    trend: Floats = level + slope * (rows - middle)
    return trend


def _lines(values: Floats, usable: np.ndarray, begin: Ints, end: Ints) -> tuple[Floats, Floats, Floats]:
    """Mean, slope and middle of the lines through the usable rows of spans; NaN where there are fewer than two.

    What is not usable must be finite.
    """
    x = np.arange(len(values)) / max(len(values), 1)  # so that no difference of sums loses its digits
    weight = usable.astype(float)

    def between(terms: Floats) -> Floats:
        sums = np.concatenate([[0.0], np.cumsum(weight * terms)])
        span: Floats = sums[end] - sums[begin]
        return span

    with np.errstate(divide="ignore", invalid="ignore"):
        count = between(np.ones(len(values)))
        mean_x, mean_y = between(x) / count, between(values) / count
        slope = (between(x * values) / count - mean_x * mean_y) / (between(x * x) / count - mean_x**2)
        enough = count >= 2
        return (
            np.where(enough, mean_y, np.nan),
            np.where(enough, slope / len(values), np.nan),
            np.where(enough, mean_x * len(values), np.nan),
        )


def _excess(values: Floats, usable: np.ndarray, steps: Ints, window: int) -> Floats:
    """Mean of the window after each move less what the line through three windows before predicts; NaN for too few.

    A move at step t follows the loss of row t - 1.
    """
    number = len(values)
    begin, last = np.maximum(steps - HISTORY * window, 0), np.minimum(steps + window, number)
    full = (steps - begin >= HISTORY * window // 2) & (last - steps >= window // 2)
    level, slope, middle = _lines(values, usable, begin, steps)
    actual, _, place = _lines(values, usable, steps, last)
    excess: Floats = np.where(full, actual - level - slope * (place - middle), np.nan)
    return excess


def _falls(trend: Floats, steps: Ints, window: int) -> Floats:
    """Fall of the trend from each move to the mean of the window after it."""
    sums = np.concatenate([[0.0], np.cumsum(trend)])
    last = np.minimum(steps + window, len(trend))
    falls: Floats = trend[steps - 1] - (sums[last] - sums[steps]) / np.maximum(last - steps, 1)
    return falls


def _signs(generator: np.random.Generator, number: int, window: int) -> Floats:
    """Signs in blocks of four windows, which begin anywhere: noise that is alike for longer is seldom."""
    length = _BLOCK * window
    blocks = (np.arange(number) + int(generator.integers(length))) // length
    signs: Floats = generator.choice([-1.0, 1.0], int(blocks[-1]) + 1)[blocks]
    return signs


def _replay(config: Config, lr: float, losses: list[float]) -> list[tuple[int, Action]]:
    """The moves of the rule on these losses."""
    state, advance = rule.start(config, [lr]), rule.advancer(config)
    moved, lrs = [], state.lrs
    for step, loss in enumerate(losses, start=1):
        action = advance(config, state, loss)
        if action in _KINDS and state.lrs != lrs:
            moved.append((step, action))
        lrs = state.lrs
    return moved


def _chosen(moves: _Moves, kind: Action, phase: int | None, number: int) -> np.ndarray:
    of_kind = moves.raised if kind is Action.RAISED else ~moves.raised
    return of_kind if phase is None else of_kind & (third(moves.steps, number) == phase)


def _judged(
    own: Floats, chance: list[Floats], falls: Floats, sizes: Floats, window: int
) -> tuple[float, float, float, float, int | None]:
    """Effect, its standard error, probability, fall, and steps that a single move needs."""
    counts = np.array([len(one) for one in chance], float)
    means = np.array([one.mean() for one in chance])
    usual = float(counts @ means / counts.sum())
    # Replays have other numbers of moves than the run.
    variance = float(counts @ (means - usual) ** 2 / counts.sum()) * float(counts.mean()) / len(own)
    effect = float(own.mean()) - usual
    error = max(math.sqrt(variance * (1 + len(own) / counts.sum())), 1e-12)
    p_value = 2 * float(stats.t.sf(abs(effect) / error, len(chance) - 1))
    fall, size = float(falls.mean()), float(np.expm1(sizes).mean())
    steps = None
    if fall > 0 and size > 0:
        # The effect grows with the steps, and the noise of their mean shrinks with the root.
        single = error * math.sqrt(len(own))
        steps = math.ceil(window * max(_POWER * single / (fall * size), 1e-9) ** (2 / 3))
    return effect, error, p_value, fall, steps
