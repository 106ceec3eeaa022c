"""The curves of many runs in little memory: few points each, and bands over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from greedylr.lab.analysis.recovery import learning_rates
from greedylr.lab.analysis.statistics import Case
from greedylr.lab.results import Result
from greedylr.lab.runs import Run
from greedylr.presentation import packed

POINTS = 50
"""Points of a curve of training losses or learning rates: what a chart a few hundred pixels wide can show."""

_Floats: TypeAlias = NDArray[np.float32]


class Thin(NamedTuple):
    """The curves of one run; NaN where it had broken down.

    Attributes:
        losses: Training loss: means over :func:`ends`' stretches of steps.
        lrs: Learning rate at the ends of these stretches.
        validations: Validation loss by steps done.
    """

    losses: _Floats
    lrs: _Floats
    validations: dict[int, float]


class Bands(NamedTuple):
    """The curves of several runs that differ only in the seed; each array has rows for the middle, low and high.

    Attributes:
        losses: Of the training loss.
        lrs: Of the learning rate.
        validations: Of the validation loss.
    """

    losses: _Floats
    lrs: _Floats
    validations: _Floats


class Curves:
    """Thinned curves of all runs that went by.

    Example:
        >>> from greedylr.lab.results import record
        >>> curves = Curves()
        >>> run = Run("digits", 1.0, "cosine", seed=0, steps=4)
        >>> for result in curves.watch([Result(run, record([4.0, 3.0, 2.0, 1.0], [0.1] * 5, {0: 5.0, 4: 1.5}))]):
        ...     print(result.final_loss)
        1.5
        >>> curves.runs[run].losses.tolist()
        [4.0, 3.0, 2.0, 1.0]
    """

    def __init__(self) -> None:
        self.runs: dict[Run, Thin] = {}

    def watch(self, results: Iterable[Result]) -> Iterator[Result]:
        """Hand results on one by one, and keep of each what a chart can show."""
        for result in results:
            self.runs[result.run] = thin(result)
            yield result

    def by_case(self) -> dict[Case, dict[str, dict[int, Run]]]:
        """The runs of each case, by scheduler and seed, in order."""
        cases: dict[Case, dict[str, dict[int, Run]]] = {}
        for run in sorted(self.runs):
            case = Case(run.problem, run.optimizer, run.multiplier, run.perturbation)
            cases.setdefault(case, {}).setdefault(run.scheduler, {})[run.seed] = run
        return dict(sorted(cases.items()))

    def bands(self, runs: Sequence[Run], validation_steps: Sequence[int]) -> Bands:
        """Median, lowest and highest over runs that differ only in the seed.

        Args:
            runs: At least one.
            validation_steps: At which numbers of steps done to give the validation loss.
        """
        curves = [self.runs[run] for run in runs]
        validations = [[one.validations.get(step, np.nan) for step in validation_steps] for one in curves]
        return Bands(
            band([one.losses for one in curves]),
            band([one.lrs for one in curves]),
            band([np.array(one, np.float32) for one in validations]),
        )


def ends(steps: int) -> list[int]:
    """The last steps of the stretches that a run is cut into, from 1.

    Example:
        >>> ends(200)[:3], ends(3)
        ([4, 8, 12], [1, 2, 3])
    """
    count = min(POINTS, steps)
    return [steps * (number + 1) // count for number in range(count)]


def thin(result: Result) -> Thin:
    """The curves of a run, in few points."""
    stretches = _stretches(result.run.steps)
    losses, lrs = (np.full(result.run.steps, np.nan) for _ in range(2))
    for curve, known in ((losses, result.record.losses), (lrs, learning_rates(result))):
        curve[: len(known)] = known
    means = np.empty(len(stretches.last))
    # Losses of a run that diverges overflow the shorter floats, or their own sum: infinite they are as good as.
    with np.errstate(over="ignore", invalid="ignore"):
        for which, steps in stretches.alike:
            means[which] = losses[steps].mean(axis=1)
        return Thin(
            means.astype(np.float32),
            lrs[stretches.last].astype(np.float32),
            dict(zip(result.validation_steps, result.validation_losses, strict=True)),
        )


class _Stretches(NamedTuple):
    """Stretches of steps, from 0.

    Attributes:
        last: The last step of each.
        alike: Which of them have as many steps, and these steps, a row a stretch.
    """

    last: NDArray[np.int64]
    alike: list[tuple[NDArray[np.int64], NDArray[np.int64]]]


@cache
def _stretches(steps: int) -> _Stretches:
    after = np.array(ends(steps))
    lengths = np.diff(after, prepend=0)
    chosen = [(np.flatnonzero(lengths == length), np.arange(-length, 0)) for length in np.unique(lengths)]
    return _Stretches(after - 1, [(which, after[which, None] + back) for which, back in chosen])


def encoded(band: _Floats) -> str:
    """A band as text: 32-bit floats, little end first; the middle alone where low and high are the same."""
    lines = band[:1] if np.array_equal(band[0], band[1], True) and np.array_equal(band[0], band[2], True) else band
    return packed(lines)


def case_data(curves: Curves, schedulers: Mapping[str, Mapping[int, Run]]) -> dict[str, Any]:
    """The bands of one case, for the page.

    Args:
        curves: Where they are.
        schedulers: The runs of the case by scheduler and seed.
    """
    runs = [run for seeds in schedulers.values() for run in seeds.values()]
    validation_steps = sorted({step for run in runs for step in curves.runs[run].validations})
    bands = {}
    for name, seeds in schedulers.items():
        made = curves.bands(list(seeds.values()), validation_steps)
        bands[name] = [encoded(made.losses), encoded(made.validations), encoded(made.lrs)]
    return {"steps": ends(runs[0].steps), "validation_steps": validation_steps, "bands": bands}


def band(curves: Sequence[_Floats]) -> _Floats:
    """Median, lowest and highest of curves alike in shape, in this order; NaN where none of them is finite."""
    stacked = np.stack(curves)
    # An infinite loss cannot be drawn; where all seeds have none there is a gap.
    stacked[~np.isfinite(stacked)] = np.nan
    ordered = np.sort(stacked, axis=0)  # NaN come last.
    count = np.maximum(np.isfinite(stacked).sum(axis=0), 1)
    low, high, last = np.take_along_axis(ordered, np.stack([(count - 1) // 2, count // 2, count - 1]), axis=0)
    with np.errstate(over="ignore"):
        return np.stack([(low + high) / 2, ordered[0], last])
