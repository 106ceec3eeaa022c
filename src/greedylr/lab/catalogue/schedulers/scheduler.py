"""Entry for a scheduler in the catalogue, and helpers that the families share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler

from greedylr.lab.catalogue.grammar import read, write


class Horizon(NamedTuple):
    """Information about the run ahead that a schedule may use.

    Attributes:
        steps: Optimizer steps.
        mode: Whether the observed value is to go down, a loss, or up, a reward.
    """

    steps: int
    mode: Literal["min", "max"] = "min"

    @property
    def warmup(self) -> int:
        """The first tenth of the steps."""
        return max(1, self.steps // 10)

    @property
    def rest(self) -> int:
        """The steps after the warmup."""
        return max(1, self.steps - self.warmup)


Maker = Callable[..., LRScheduler]
"""Makes a scheduler, given the optimizer and the horizon; and settings by name, where it takes some."""

WholeOptimizer = Callable[[Iterable[Tensor], float, Horizon], Optimizer]
"""Makes an optimizer that sets its own steps, given the parameters and the learning rate."""


@dataclass(frozen=True)
class Scheduler:
    """A way to set the learning rate.

    Attributes:
        name: Identifier, on the command line and in stored results.
        title: Name to show to a person.
        note: How it is set up here, to be stated beside results.
        make: Makes it, given the optimizer.
        kind: ``"fixed"``: a schedule that is known before the run, in proportion to the initial learning rate.
            ``"feedback"``: one that is told the observed value
            after every step. ``"optimizer"``: a whole optimizer.
        schedule_beneath: Whether one that is told the observed value moves the learning rate by the step as well, so
            that a change of it need not be for the loss.
        package: Name of the package that it comes from.
        takes_settings: Whether settings may follow its name: ``paper:factor=0.5``.
        stands_in: Of a whole optimizer: what takes the place of which optimizer; empty for all others.
        searches: Whether a step of it evaluates the loss of its batch again, at other weights: more passes than others.
        version: Counts changes of what it does that its code does not show; part of the key of every run.
    """

    name: str
    title: str
    note: str
    make: Maker
    kind: Literal["fixed", "feedback", "optimizer"] = "fixed"
    schedule_beneath: bool = False
    package: str = "torch"
    takes_settings: bool = False
    stands_in: Mapping[str, WholeOptimizer] = field(default_factory=dict)
    searches: bool = False
    version: int = 1

    @property
    def moves_for_the_loss(self) -> bool:
        """True if every change of its learning rate is a move that the loss made, or it says itself which is."""
        return self.kind == "feedback" and not self.schedule_beneath

    def build(self, optimizer: Optimizer, steps: int, mode: Literal["min", "max"] = "min") -> LRScheduler:
        """Make it for an optimizer and a run.

        Args:
            optimizer: Its learning rates are the initial ones.
            steps: Optimizer steps of the run.
            mode: Whether the observed value is to go down, a loss, or up, a reward.
        """
        return self.make(optimizer, Horizon(steps, mode))

    def with_settings(self, settings: Mapping[str, Any]) -> Scheduler:
        """The same with settings of its own.

        Args:
            settings: By name, as the scheduler itself takes them.

        Raises:
            ValueError: If it takes none.
        """
        if not self.takes_settings:
            raise ValueError(f"{self.name} takes no settings, got {', '.join(settings)}")
        written = ", ".join(f"{name}={value}" for name, value in sorted(settings.items()))
        return replace(
            self,
            name=write(self.name, settings),
            title=f"{self.title}, {written}",
            note=f"{self.note}; {written}",
            make=partial(self.make, **settings),
        )

    def suits(self, optimizer: str) -> bool:
        """True if it can be used with an optimizer, or in its place."""
        return not self.stands_in or optimizer in self.stands_in


class Schedulers(dict[str, Scheduler]):
    """Entries by name; where an entry takes settings, by a name with settings as well."""

    def __missing__(self, name: str) -> Scheduler:
        """Make the entry that a name with settings stands for."""
        try:
            entry, settings = read(name)
            if not settings or name != write(entry, settings):  # Another spelling would be another run in the store.
                raise KeyError(name)
            return dict.__getitem__(self, entry).with_settings(settings)
        except ValueError:
            raise KeyError(name) from None

    def __contains__(self, name: object) -> bool:
        """True if there is an entry, with settings or without."""
        try:
            self[str(name)]
        except KeyError:
            return False
        return True


WARMUP = "linear warmup over the first tenth of the steps, then "
BOUNDS = "bounded by 1/1000 and 1000 times the initial learning rate"


def constant(optimizer: Optimizer, horizon: Horizon) -> LRScheduler:
    """The initial learning rate throughout."""
    return ConstantLR(optimizer, factor=1.0)


def bounds(optimizer: Optimizer) -> tuple[float, float]:
    """Bounds as wide as never to bind.

    The published ones, 1e-3 and 1, are absolute and forbid most learning rates here, so these are multiples of the
    initial one.
    """
    lr = optimizer.param_groups[0]["lr"]
    return lr / 1000, lr * 1000
