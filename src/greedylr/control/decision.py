"""Answers of the rule: every action as a sentence, and a decision with its evidence."""

from enum import Enum
from typing import NamedTuple


class Action(Enum):
    """Every outcome of observing one loss; the value is the sentence to show to a person.

    Whether the learning rate moved is not in the action but in the decision's ``lr_before`` and
    ``lr_after``: a non-finite loss at the lower bound, say, is still ``NON_FINITE``.
    """

    # Moves
    RAISED = "raised: the loss improved"
    CUT = "cut: the loss worsened"
    NON_FINITE = "non-finite loss, left out of every average"
    EXPLOSION = "explosion: cut at once, losses far above the usual in a row"
    RESET = "reset: back to the initial learning rate after too long at the lower bound"
    BACKED_OFF = "backed off: the climb is over, the loss rose above its lowest"
    VALIDATION_ROSE = "cut: the validation loss is clearly above its lowest"
    CLIMBING = "climbing: the loss does not object"
    WARMING_UP = "warming up: the first steps are smaller"
    CATCHING_UP = "catching up: a step promises far less than there is to gain"
    LIMITED = "limited: a step must not promise more than the whole loss"
    ANNEALING = "annealing: the horizon sets the learning rate"
    HORIZON = "horizon: total_steps has changed, and the learning rates follow"
    # Holds
    GATHERING = "held: not enough losses yet to compare"
    NOT_SIGNIFICANT = "held: the difference between the windows is not significant"
    SPIKE = "spike: held, one loss far above the usual, left out of every average"
    AT_MAX = "at bound: improving, but already at the upper bound"
    AT_MIN = "at bound: worsening, but already at the lower bound"
    PATIENCE = "held: patience, not enough better or worse losses in a row"
    COOLDOWN = "held: cooldown after a cut, losses ignored"
    WARMUP = "held: warmup after a raise, losses ignored"
    OVER = "held: total_steps are over, the learning rate stays at its lower bound"
    SILENT = "held: the loss has not changed for long, which says nothing"
    BELOW_EPS = "held: the change would be smaller than eps"

    # Members are singletons; Enum's own hash is a Python function, at the cost of a step of the rule.
    __hash__ = object.__hash__


class Decision(NamedTuple):
    """The rule's answer to one observed loss.

    Attributes:
        step: Number of losses observed so far, this one included (the first decision has 1).
        loss: The loss as it was given, in its own unit; may be NaN or infinite.
        action: What happened, and why.
        lr_before: Learning rate of each parameter group when the loss was observed.
        lr_after: Learning rate of each parameter group for the next optimizer step.
        evidence: The numbers behind the action, by name, in the unit of the loss. Default family:
            ``mean``, ``previous_mean`` and ``standard_error`` of their difference where two windows
            were compared, ``ceiling`` where a loss went over it, and ``mean``, ``lowest`` and ``standard_error`` of the
            smoothed loss where the climb ended, ``polyak`` where the gradient moved it (Polyak's step, as a multiple of
            the initial learning rate), ``validation`` and ``lowest_validation`` where the validation loss cut,
            ``total_steps`` and ``previous_total_steps`` where the horizon moved
            (infinite if there is none). Paper family: ``value`` (the loss,
            smoothed where asked for), ``reference`` (what it was compared with), and the runs of
            ``better`` and ``worse`` observations so far.
    """

    step: int
    loss: float
    action: Action
    lr_before: tuple[float, ...]
    lr_after: tuple[float, ...]
    evidence: dict[str, float]

    @property
    def raised(self) -> bool:
        """True if a learning rate went up for a reason in the loss (not by the climb or a reset)."""
        return self.action is Action.RAISED

    @property
    def cut(self) -> bool:
        """True if the loss made a learning rate go down (not the horizon's annealing)."""
        return self.action in CUTS and self.lr_after != self.lr_before


CUTS = frozenset({Action.CUT, Action.BACKED_OFF, Action.NON_FINITE, Action.EXPLOSION, Action.VALIDATION_ROSE})
"""The actions by which the loss makes a learning rate go down."""
