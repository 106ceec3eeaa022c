"""AdaLRS, a search for the learning rate by the loss's rate of descent, written from accounts of its paper.

Dong et al., "AdaLRS: Loss-Guided Adaptive Learning Rate Search for Efficient Foundation Model Pretraining",
arXiv:2506.13274, NeurIPS 2025. There is no published code, and its full text was not at hand: what is said to be the
paper's is taken from its abstract, a review, notes on it, and notes on the report of SAIL-VL2, which has its Eq. 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import linear_regression
from typing import Literal, NamedTuple, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from greedylr.lab.catalogue.schedulers.scheduler import WARMUP, Horizon, Scheduler

# α, β and λ. Of the values that the paper tries, 3 and 2 fit what SAIL-VL2 arrived at: 2e-4 · 3³ / 2³ = 6.75e-4.
_UP, _DOWN, _DECAY = 3.0, 2.0, 0.99
_SEARCH = 0.1, 0.4  # Where the search begins and ends, as shares of the run.
_WINDOW, _LEAST_WINDOW = 0.02, 5  # As a share of the run, and in steps.


class Descent(NamedTuple):
    """Decrease of the loss over a window.

    Attributes:
        velocity: Loss that is lost per step, by least squares; negative: the loss rises.
        error: Standard error of the velocity.
    """

    velocity: float
    error: float

    @classmethod
    def over(cls, losses: Sequence[float]) -> Descent:
        """The descent over losses of consecutive steps, three or more.

        Example:
            >>> Descent.over([5.0, 4.0, 3.0])
            Descent(velocity=1.0, error=0.0)
        """
        steps = range(len(losses))
        slope, start = linear_regression(steps, losses)
        squares = sum((loss - start - slope * step) ** 2 for step, loss in zip(steps, losses))
        spread = len(losses) * (len(losses) ** 2 - 1) / 12  # of the steps: sum of squared differences from their mean
        return cls(-slope, math.sqrt(squares / (len(losses) - 2) / spread))


class _Trial(NamedTuple):
    """A window at a higher learning rate: the scale and the descent before it."""

    origin: float
    before: Descent


class AdaLRS:
    r"""Search for the learning rate early in the run, on top of linear warmup and cosine annealing to zero.

    After each window of :math:`k` steps the velocity :math:`v` of the loss's descent is estimated. When it falls off,
    the learning rate :math:`\eta` is raised by :math:`\alpha' = \max(\lambda^t \alpha, 1)` for a window on trial,
    and then, with :math:`\beta' = 1 / \max(\lambda^t \beta, 1)` and an error :math:`e` of :math:`v`,

    .. math::
        \eta \leftarrow \begin{cases}
            \alpha' \eta & v(\alpha' \eta) > v(\eta) + 2e \\
            \beta' \eta & v(\alpha' \eta) < v(\eta) - 2e \\
            \eta & \text{otherwise.}
        \end{cases}

    From the paper: the above, λ = 0.99, and α = 3 with β = 2 as one of the pairs that it tries; the search from a tenth
    to four tenths of the run, on top of a usual schedule; a trial is broken off when the loss exceeds the highest there
    has been; the learning rate is cut when the loss has risen for two windows in a row.

    Decided here, because the sources leave it open or the paper's runs are of another kind:

    - The paper puts the weights and the optimizer's state back to where a failed trial began, and found that to matter
      where the learning rate is far too large. **That is not done**: a scheduler has the learning rate alone, and
      what is compared with it in the lab gets no steps for free either. The weights stay as the trial left them.
    - A window is 2 % of the run, and 5 steps at least. The paper has a number of steps, for runs far longer; here
      the search has to fit into some tens of steps, too.
    - 2e is the sum of the standard errors of the two velocities compared; one that counts alone has its own error.
    - The descent has fallen off unless it is faster than in the window before by more than 2e, and the loss has risen
      if its velocity is below zero by more than its error: with windows this short, signs alone are noise.
    - :math:`t` counts windows. By steps, :math:`\lambda^t \alpha` would be below 1 before most first trials.
    - A cut is by β', whatever its reason.
    - A trial is not begun while the loss rises, nor in the first window after a cut, and one that the end of the
      search comes upon is given up.
    - A loss that is not finite is a failed trial at once, and cuts the learning rate also without one.

    Args:
        optimizer: Its learning rates are the initial ones, a multiple of which the search finds.
        total_steps: Optimizer steps of the run.
        warmup_steps: Steps of linear warmup.
        mode: ``"max"`` if the observed value is to go up: its negative is the loss then.

    Attributes:
        scale: The multiple of the schedule's learning rate that is used now, on trial or not.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        >>> scheduler = AdaLRS(optimizer, total_steps=200, warmup_steps=20)
        >>> for step in range(30):
        ...     scheduler.step(2.0 - 0.01 * step)
        >>> round(scheduler.scale, 4)  # on trial, at λ² · 3, after two windows of five steps
        2.9403
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_steps: int, mode: Literal["min", "max"] = "min"
    ) -> None:
        self.optimizer, self.total_steps, self.warmup_steps, self.mode = optimizer, total_steps, warmup_steps, mode
        self.window = max(_LEAST_WINDOW, round(_WINDOW * total_steps))
        self.search = range(*(round(share * total_steps) for share in _SEARCH))
        self.scale = 1.0
        self._initial = [float(group["lr"]) for group in optimizer.param_groups]
        self._step = 0
        self._highest = -math.inf
        self._losses: list[float] = []  # of the window so far
        self._windows = 0
        self._before: Descent | None = None  # over the window before
        self._trial: _Trial | None = None
        self._risen = False  # Whether the loss rose over the last window.
        self._set_lrs()

    def step(self, loss: float) -> None:
        """Observe the loss of a step, and set the learning rate of the next one."""
        if self.mode == "max":
            loss = -loss
        if self._step in self.search:
            self._observe(loss)
        elif self._trial is not None:
            self._end_trial(self._trial.origin)
        if math.isfinite(loss):
            self._highest = max(self._highest, loss)
        self._step += 1
        self._set_lrs()

    def _observe(self, loss: float) -> None:
        exploded = self._trial is not None and loss > self._highest
        if exploded or not math.isfinite(loss):
            self._windows += 1
            self._cut()
            return
        self._losses.append(loss)
        if len(self._losses) == self.window:
            self._windows += 1
            now = Descent.over(self._losses)
            self._losses = []
            if self._trial is None:
                self._watch(now)
            else:
                self._judge(self._trial, now)

    def _watch(self, now: Descent) -> None:
        """Decide what to do after a window without a trial."""
        before, self._before = self._before, now
        if now.velocity < -now.error:
            if self._risen:
                self._cut()
            else:
                self._risen = True
            return
        self._risen = False
        if before is not None and now.velocity <= before.velocity + before.error + now.error:
            self._trial = _Trial(self.scale, now)
            self.scale *= max(_DECAY**self._windows * _UP, 1.0)

    def _judge(self, trial: _Trial, now: Descent) -> None:
        """Decide on the trial that the window was."""
        margin = trial.before.error + now.error
        if now.velocity > trial.before.velocity + margin:
            self._before = now
            self._end_trial(self.scale)
        elif now.velocity < trial.before.velocity - margin:
            self._cut()
        else:
            self._end_trial(trial.origin)

    def _end_trial(self, scale: float) -> None:
        self.scale, self._trial = scale, None

    def _cut(self) -> None:
        """Go below where the trial began, if there is one; what came before says nothing of the new learning rate."""
        origin = self.scale if self._trial is None else self._trial.origin
        self._end_trial(origin / max(_DECAY**self._windows * _DOWN, 1.0))
        self._before, self._risen, self._losses = None, False, []

    def _set_lrs(self) -> None:
        for group, initial in zip(self.optimizer.param_groups, self._initial):
            group["lr"] = initial * self._schedule() * self.scale

    def _schedule(self) -> float:
        if self._step < self.warmup_steps:
            return (self._step + 1) / self.warmup_steps
        done = (self._step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _adalrs(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    made = AdaLRS(optimizer, horizon.steps, horizon.warmup, horizon.mode)
    return cast(LRScheduler, made)  # It is none, but is stepped as one.


ENTRIES = (
    Scheduler(
        "adalrs",
        title="AdaLRS",
        note=WARMUP + "cosine annealing to zero; up to four tenths of the steps, a multiple of it is searched for, "
        "by factors 3 and 1/2, in windows of 2 % of the steps; a failed trial's weights are not put back",
        make=_adalrs,
        kind="feedback",
        schedule_beneath=True,
    ),
)
