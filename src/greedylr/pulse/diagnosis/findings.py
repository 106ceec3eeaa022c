"""Names of findings, and the advice that goes with each."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


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
