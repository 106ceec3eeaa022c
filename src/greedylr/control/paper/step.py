"""The published algorithm, step by step in the order of its implementation, group by group.

Its learning rates equal those of ``transformers.optimization.GreedyLR`` bit for bit wherever that
implementation is sound; ``docs/paper.md`` lists where it is not, and what is done here instead.
``arrays.py`` holds the same arithmetic over arrays; an operation moved here must be moved there.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import gt

from greedylr.control.decision import Action, Decision
from greedylr.control.paper.config import PaperConfig
from greedylr.control.paper.state import PaperState
from greedylr.control.settings import bounds_of

# Looked up at every step.
_INFINITY = float("inf")
_LARGEST = sys.float_info.max
_GATHERING = Action.GATHERING
_PATIENCE = Action.PATIENCE
_new = tuple.__new__


def start(config: PaperConfig, initial_lrs: tuple[float, ...]) -> PaperState:
    """The state before the first loss."""
    return PaperState(initial_lrs, initial_lrs, reset_left=config.reset_start)


def resume(config: PaperConfig, then: PaperState, step: int, factor: float) -> PaperState:
    """The memory of an earlier step at a later one, with smaller learning rates."""
    bounds = bounds_of(config.min_lr, len(then.lrs))
    lrs = tuple([min(lr, max(lr * factor, bound)) for lr, bound in zip(then.lrs, bounds)])
    return replace(then, losses=list(then.losses), step=step, lrs=lrs)


def advance(config: PaperConfig, state: PaperState, loss: float, _slope: float = math.nan) -> Action:
    """Take in one loss; the state, with the learning rates in it, is the answer."""
    if config.mode == "max":
        loss = -loss
    state.step += 1
    if not -_INFINITY < loss < _INFINITY:
        _cut(config, state, bounds_of(config.min_lr, len(state.lrs)))
        return Action.NON_FINITE
    if config.smooth:
        loss = state.value = _average(config, state, loss)
    if state.cooldown_left > 0:
        state.cooldown_left -= 1
        state.better = state.worse = 0
        return Action.COOLDOWN
    if state.warmup_left > 0:
        state.warmup_left -= 1
        state.better = state.worse = 0
        return Action.WARMUP
    # What a loss must be below to be better. A relative threshold is a share of |reference|: multiplied onto a
    # negative reference it would call a flat metric better for ever.
    reference = state.reference
    if config.threshold_mode == "abs":
        line = reference - config.threshold
    elif reference < 0:
        line = reference * (1.0 + config.threshold)
    else:
        line = reference * (1.0 - config.threshold)
    if config.compare == "previous":
        state.reference = loss
        if reference == _INFINITY:
            return _GATHERING
    if loss < line:
        state.reference = loss
        state.worse = 0
        state.better += 1
        return _raise(config, state) if state.better > config.patience else _PATIENCE
    state.better = 0
    state.worse += 1
    return _cut_or_reset(config, state) if state.worse > config.patience else _PATIENCE


def observe(config: PaperConfig, state: PaperState, loss: float, _slope: float = math.nan) -> Decision:
    """Take in one loss and say what was decided, and why."""
    before, reference = state.lrs, state.reference
    action = advance(config, state, loss)
    numbers = evidence(config, state, loss, reference, action)
    # As Decision(...) does, in half the time.
    return _new(Decision, (state.step, loss, action, before, state.lrs, numbers))


def may_move(config: PaperConfig, state: PaperState, loss: float) -> bool:
    """True if :func:`advance` could move a learning rate at this loss; if not, it need not know them."""
    return state.better >= config.patience or state.worse >= config.patience or not -_INFINITY < loss < _INFINITY


def evidence(config: PaperConfig, state: PaperState, loss: float, reference: float, action: Action) -> dict[str, float]:
    """The numbers behind ``action``, just returned by :func:`advance` for ``loss``, in the unit of the loss."""
    if action in (Action.NON_FINITE, Action.COOLDOWN, Action.WARMUP) or reference == _INFINITY:
        return {}
    sign = -1.0 if config.mode == "max" else 1.0
    return {
        "value": sign * state.value if config.smooth else loss,
        "reference": sign * reference,
        "better": float(state.better),
        "worse": float(state.worse),
    }


def cautions(config: PaperConfig, lrs: tuple[float, ...]) -> list[str]:
    """Sentences about effects of the settings on these initial learning rates that a user would hardly want."""
    found = []
    bounds = zip(bounds_of(config.min_lr, len(lrs)), bounds_of(config.max_lr, len(lrs)))
    for group, (lr, (low, high)) in enumerate(zip(lrs, bounds)):
        if lr < low:
            found.append(
                f"the initial LR {lr:g} of parameter group {group} is below min_lr={low:g}: it can be raised but never "
                f"cut until it has passed min_lr; pass a min_lr below the initial LR"
            )
        elif lr > high:
            found.append(
                f"the initial LR {lr:g} of parameter group {group} is above max_lr={high:g}: it will never be raised; "
                f"pass a max_lr above the initial LR"
            )
        elif low < lr and lr - max(lr * config.factor, low) <= config.eps:
            found.append(
                f"the initial LR {lr:g} of parameter group {group} is too small for eps={config.eps:g}: a cut by "
                f"factor={config.factor:g} changes it by less, and will never be applied; pass eps=0"
            )
    return found


def add_group(config: PaperConfig, state: PaperState, initial_lr: float) -> None:
    """A parameter group that joins late, with its learning rate as it is."""
    state.initial_lrs = (*state.initial_lrs, initial_lr)
    state.lrs = (*state.lrs, initial_lr)


def take_over(state: PaperState, lrs: tuple[float, ...], written: Iterable[float]) -> None:
    """Let learning rates count that somebody else has set: bounds are absolute here, so nothing else is another."""
    state.lrs = lrs


def rebase(config: PaperConfig, state: PaperState, lrs: tuple[float, ...], written: Iterable[float]) -> None:
    """The same where the rule has moved since: its move is what counts."""


def check_lrs(config: PaperConfig, initial_lrs: Sequence[float]) -> None:
    """Any learning rates can be initial ones."""


def _average(config: PaperConfig, state: PaperState, loss: float) -> float:
    # A running sum, not a fresh one: its rounding is part of the published decisions.
    state.losses.append(loss)
    state.total += loss
    if len(state.losses) > config.window_size:
        state.total -= state.losses.pop(0)
    if not -_INFINITY < state.total < _INFINITY:  # Sums of losses near the largest float: the average begins anew.
        state.losses[:] = [loss]
        state.total = loss
    return state.total / len(state.losses)


def _raise(config: PaperConfig, state: PaperState) -> Action:
    state.better = 0
    state.warmup_left = config.warmup
    state.reset_left = config.reset_start
    bounds = bounds_of(config.max_lr, len(state.lrs))
    # Without a bound, the largest number is one: an infinite learning rate could never come down again.
    targets = [min(lr / config.factor, bound, _LARGEST) for lr, bound in zip(state.lrs, bounds)]
    return _apply(config, state, targets, +1)


def _cut_or_reset(config: PaperConfig, state: PaperState) -> Action:
    state.worse = 0
    bounds = bounds_of(config.min_lr, len(state.lrs))
    action = _cut(config, state, bounds)
    if not any(map(gt, state.lrs, bounds)):
        state.reset_left -= 1
        if state.reset_left <= 0:
            _reset(config, state)
            action = Action.RESET
    state.cooldown_left = config.cooldown
    return action


def _cut(config: PaperConfig, state: PaperState, bounds: Sequence[float]) -> Action:
    targets = []
    for lr, bound in zip(state.lrs, bounds):
        cut = lr * config.factor
        targets.append(bound if bound > cut else cut)
    return _apply(config, state, targets, -1)


def _apply(config: PaperConfig, state: PaperState, targets: list[float], direction: int) -> Action:
    """Move the groups whose change is larger than ``eps``, and say what became of it."""
    lrs, largest = [], -_INFINITY
    for target, lr in zip(targets, state.lrs):
        change = direction * (target - lr)
        lrs.append(target if change > config.eps else lr)
        if change > largest:
            largest = change
    if largest > config.eps:
        state.lrs = tuple(lrs)
        return Action.RAISED if direction > 0 else Action.CUT
    if largest > 0:
        return Action.BELOW_EPS
    return Action.AT_MAX if direction > 0 else Action.AT_MIN


def _reset(config: PaperConfig, state: PaperState) -> None:
    state.lrs = state.initial_lrs
    state.reference = _INFINITY
    state.better = state.worse = state.warmup_left = 0
    state.reset_left = config.reset_start
    state.losses.clear()
    state.total = 0.0
