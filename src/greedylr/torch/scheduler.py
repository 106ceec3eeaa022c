"""``GreedyLR``: the rule as a ``torch.optim.lr_scheduler.LRScheduler``, a thin adapter."""

from __future__ import annotations

import contextlib
import math
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NoReturn, SupportsFloat

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from greedylr.control import checkpoint, rule
from greedylr.control.decision import Action
from greedylr.control.default.config import DefaultConfig, cautions
from greedylr.control.families import Config, family_of
from greedylr.control.levels import Levels
from greedylr.control.observers import Observer, introduce, tell
from greedylr.control.paper import step as paper
from greedylr.control.paper.config import PaperConfig
from greedylr.control.settings import Bound
from greedylr.torch import distributed as ranks
from greedylr.torch import parameter_groups, saved
from greedylr.torch.arguments import (
    PAPER_SETTINGS,
    UNSET,
    Unset,
    check_composition,
    checked,
    refuse_unknown,
    settings_given,
)
from greedylr.torch.device_reader import Decode, DeferredReader, Observed, observed
from greedylr.torch.gradient import Slope

# Looked up at every step.
_GATHERING = Action.GATHERING
_PATIENCE = Action.PATIENCE
_OVER = Action.OVER
_NAN = math.nan


class GreedyLR(LRScheduler):
    r"""Raise the learning rate while the minibatch loss improves, cut it when the loss worsens.

    It starts at the learning rates of the optimizer, after a short warmup, and with ``total_steps`` decays to zero
    over the last part of the run. On the way it listens. The gradient says what a step promises: the learning rates
    never promise more than ``polyak`` times the whole loss, and while they promise far less than it, they grow. The
    losses say what came of it, in windows: between warmup and annealing, where the means of two neighbours differ by
    more than ``significance`` standard errors, the learning rates are divided by ``factor`` (the loss improved) or
    multiplied by it (it worsened). A loss that is not finite, and two losses in a row far above the usual, cut at
    once. The rule in maths: :class:`greedylr.control.default.config.DefaultConfig`.

    The gradient is heard after each step of SGD and of Adam, AdamW, NAdam, RAdam, Adamax and Lion (one norm of it, no
    pass, nothing stored), unless it was clipped, which hides its norm. Of other optimizers, of rewards, with
    ``level_by``, and where gradients are sparse or complex, the losses alone are heard.

    Args:
        optimizer: Any optimizer; its learning rates are the initial ones, but where an earlier GreedyLR has set them:
            then it starts where that one did. They stay yours to set: one that is set before the first step is the
            initial one, and the rule goes on from one that is set later. Learning rates that are tensors stay tensors
            and are written in place; those on a device are not compared with what was written, and overwritten.
        total_steps: Number of :meth:`step` calls in the whole run, if known: the learning rate is then annealed to
            its lower bound over the last part. None, the default: open-ended.
        mode: ``"min"``, the default, for a loss, ``"max"`` for a reward.
        warmup_steps: Number of :meth:`step` calls over which the learning rates rise to the initial ones, like a square
            root: fast at first. None, the default: a tenth of ``total_steps``, or 20 if those are not known.
        decade_steps: For an initial learning rate that is a guess, where the gradient is not heard: number of
            :meth:`step` calls in which the learning rates grow tenfold, from a twentieth on, until the smoothed
            loss rises significantly above its lowest; they are then divided by four, or by up to twice that
            where it brings them to the initial ones. This climb takes the place of the warmup. 0, the default: none.
        min_scale: Lower bound as a multiple of each group's initial learning rate, in [0, 1]; a number, or
            one per group.
        max_scale: Upper bound likewise, at least 1; with 1, never above the initial learning rate.
        await_validation: Whether the validation loss is heard, see :meth:`validate`, and the learning rates rise above
            the initial ones only while it falls. For what was pre-trained.
        anneal: The last part of ``total_steps`` that is annealed, in [0, 1].
        config: All settings of the rule, those above included, which replace what they are in it if they are given.
            None: the defaults.
        read: How the loss of a device is read. ``"later"``: copied asynchronously and acted on at the next call, always
            exactly one later, so that no step waits for the device. ``"now"``: waited for. Losses
            on the CPU are always read at once.
        average_ranks: Whether to average the loss over all ranks when ``torch.distributed`` runs several processes, so
            that all ranks have the same learning rate. Its process group must be initialised before the first
            :meth:`step`, and every rank must step, equally often: what differs is an error on all ranks. False: the
            loss already is the same on all ranks. Uneven inputs: ``Join([model, scheduler])``.
        level_by: Name of a column of ``composition`` (see :meth:`step`) that holds each batch's domain: every loss is
            then compared with the running level of its own domain, so that a change of composition is no change of the
            loss; in one process only. None: losses are compared as they are.
        **unknown: Refused, with what to write instead.

    Raises:
        ValueError: If an argument is outside what is stated above.
        TypeError: If an argument is of another kind.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        >>> scheduler = GreedyLR(optimizer)
        >>> for step in range(60):
        ...     loss = (model(torch.ones(2)) - 3.0).square().mean()
        ...     loss.backward(); optimizer.step(); optimizer.zero_grad()
        ...     scheduler.step(loss)
        >>> scheduler
        GreedyLR(step=60, lr=0.0...)

    References:
        The feedback rule: arXiv:2512.14527. What is different here, and why: ``docs/rule.md``.
    """

    _config: Any  # of one family, as the state is
    _state: Any
    _reader: DeferredReader
    _slope: Slope
    _indirect: bool
    _written: tuple[float, ...]
    _group_count: int
    _in_optimizer: tuple[float, ...]
    _remembered: parameter_groups.Remembered
    _comparable: bool
    _follows_hand: bool
    _observers: Mapping[object, Observer]
    _direct: bool
    _levels: Levels | None
    _batches: list[Mapping[str, Any] | None]
    _over: bool
    composition: Mapping[str, Any] | None
    """Composition of the batch whose decision observers are being told, as given to :meth:`step`."""

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total_steps: int | Unset | None = UNSET,
        mode: Literal["min", "max"] | Unset = UNSET,
        warmup_steps: int | Unset | None = UNSET,
        decade_steps: int | Unset = UNSET,
        min_scale: Bound | Unset = UNSET,
        max_scale: Bound | Unset = UNSET,
        await_validation: bool | Unset = UNSET,
        anneal: float | Unset = UNSET,
        config: DefaultConfig | None = None,
        read: Literal["later", "now"] = "later",
        average_ranks: bool = True,
        level_by: str | None = None,
        **unknown: NoReturn,
    ) -> None:
        refuse_unknown("GreedyLR", GreedyLR.__init__, unknown)
        if config is not None and not isinstance(config, DefaultConfig):
            raise TypeError(f"config must be a greedylr.DefaultConfig, got {config!r}")
        config = replace(
            config or DefaultConfig(),
            **settings_given(
                total_steps=total_steps,
                mode=mode,
                warmup_steps=warmup_steps,
                decade_steps=decade_steps,
                min_scale=min_scale,
                max_scale=max_scale,
                await_validation=await_validation,
                anneal=anneal,
            ),
        )
        self._attach(optimizer, config, read, average_ranks)
        if level_by is not None:
            self._levels = Levels(level_by)
            self._choose_path()
        for caution in cautions(config):
            warnings.warn(caution, UserWarning, stacklevel=2)

    @classmethod
    def paper(
        cls,
        optimizer: Optimizer,
        *,
        read: Literal["later", "now"] = "later",
        average_ranks: bool = True,
        **settings: Any,
    ) -> GreedyLR:
        """The published algorithm, with the arguments, defaults and decisions of its implementation.

        The learning rates equal those of ``transformers.optimization.GreedyLR`` bit for bit; the differences on input
        that breaks that implementation are listed in ``docs/paper.md``. A learning rate set by hand is taken over,
        as there. Mind the bounds: its defaults, 1e-3 and 1, are absolute and suit few optimizers.

        Args:
            optimizer: Any optimizer.
            read: As for :class:`GreedyLR`.
            average_ranks: As for :class:`GreedyLR`.
            **settings: Those of :class:`greedylr.PaperConfig`, whose names and defaults are those of the published
                implementation: ``factor=0.95``, ``patience=10``, ``min_lr=1e-3`` and so on.

        Raises:
            ValueError: If an argument is outside its range.
            TypeError: If an argument is of another kind.

        Warns:
            UserWarning: If an initial learning rate is outside the bounds, or too small for ``eps``.

        Example:
            >>> import torch
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
            >>> scheduler = GreedyLR.paper(optimizer, factor=0.5, patience=1)
            >>> for loss in (3.0, 2.0, 1.0):
            ...     scheduler.step(loss)
            >>> scheduler.get_last_lr()
            [0.2]
        """
        unknown = {name: value for name, value in settings.items() if name not in PAPER_SETTINGS}
        refuse_unknown("GreedyLR.paper", GreedyLR.paper, unknown)
        config = PaperConfig(**settings)
        scheduler = cls._from_config(optimizer, config, read, average_ranks)
        for caution in paper.cautions(config, scheduler._state.initial_lrs):
            warnings.warn(caution, UserWarning, stacklevel=2)
        return scheduler

    @classmethod
    def core(
        cls,
        optimizer: Optimizer,
        *,
        factor: float = 0.95,
        mode: Literal["min", "max"] = "min",
        **unknown: NoReturn,
    ) -> GreedyLR:
        """The core rule: compare with the previous loss at every step, without safeguards or bounds.

        To be studied, not to be trained with: without bounds it diverges even on quadratics.

        Args:
            optimizer: Any optimizer.
            factor: F in (0, 1).
            mode: ``"min"`` for a loss, ``"max"`` for a reward.
            **unknown: Refused, with what to write instead.

        Raises:
            ValueError: If an argument is outside its range.
        """
        refuse_unknown("GreedyLR.core", GreedyLR.core, unknown)
        return cls._from_config(optimizer, PaperConfig.core(factor, mode), "later", True)

    def step(
        self,
        loss: SupportsFloat | None = None,
        *,
        composition: Mapping[str, Any] | None = None,
        grad_norm: SupportsFloat | None = None,
    ) -> None:
        """Observe one loss and set the learning rates for the next optimizer step.

        Args:
            loss: The loss that was just optimised: a float, or a tensor with one element on any device. NaN
                and infinities are observations: they cut the learning rate and enter no average.
            composition: What the batch was made of, by name: numbers and labels, for observers.
            grad_norm: The norm of the gradient before it was clipped, as ``torch.nn.utils.clip_grad_norm_`` returns
                it. Without it a clipped gradient is not heard.

        Raises:
            TypeError: If there is no loss, or it is no number; if ``composition`` is no mapping, or ``grad_norm`` no
                number.
            ValueError: If the loss is a tensor with more than one element.
        """
        if len(self.optimizer.param_groups) != self._group_count:
            self._take_in_groups()
        if loss.__class__ is not float or self._indirect:
            self._take_in(loss, composition, grad_norm)
            return
        if composition is not None:
            check_composition(composition)
        slope = _NAN if self._slope.latest is None and grad_norm is None else self._slope.number(grad_norm)
        if not self._direct:
            self.composition = composition
            self._observe(loss, slope)
            return
        if self._follows_hand and paper.may_move(self._config, self._state, loss):
            self._take_over_lrs()
        advance = self._advance  # Called as a method of this object, it would be looked for in its class first.
        action = advance(self._config, self._state, loss, slope)
        if action is not _GATHERING and action is not _PATIENCE:
            self._settle(action)

    def _take_in(
        self,
        loss: SupportsFloat | None,
        composition: Mapping[str, Any] | None,
        grad_norm: SupportsFloat | None = None,
        joined: bool = False,
    ) -> None:
        values = self._read(loss, composition, grad_norm, joined)
        # Beside the loss, which may be acted on one call later, when the caller may have put something else in it.
        self._batches.append(None if composition is None else dict(composition))
        for value, slope in values:
            self.composition = self._batches.pop(0)
            self._observe(value, slope)

    def validate(self, loss: SupportsFloat) -> None:
        """Tell of a validation loss, whenever there is one; with ``await_validation`` only.

        One that is above the lowest, by a hundredth of what it has fallen so far, cuts the learning rates to a half in
        the next :meth:`step`. One that is the lowest lets them rise, to twice what they are at most, where steps are
        too small.

        Args:
            loss: The validation loss: a float, or a tensor with one element, which is waited for. On several ranks the
                same on all. In mode ``"max"``, the validation reward.

        Raises:
            TypeError: If it is no number; of :meth:`paper` and :meth:`core`, which have no ear for it.
            ValueError: If it is a tensor with more than one element, or this is without ``await_validation``.

        Example:
            >>> import torch
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
            >>> scheduler = GreedyLR(optimizer, warmup_steps=0, await_validation=True)
            >>> for training, validation in ((3.0, 3.2), (2.0, 2.9), (1.0, 3.1)):
            ...     scheduler.step(training)
            ...     scheduler.validate(validation)
            >>> scheduler.step(0.8)
            >>> scheduler
            GreedyLR(step=4, lr=0.05)
        """
        value = checked(loss)
        self._synchronize()
        rule.validate(self._config, self._state, float(value))

    def subscribe(self, observer: Observer) -> Callable[[], None]:
        """Call ``observer`` with every decision from now on, after the learning rates have been written.

        Observers belong to this process: they are not saved, pickled or copied with the scheduler.

        Args:
            observer: Takes a :class:`greedylr.Decision`. What it raises comes out of :meth:`step`. If it has a method
                ``watch``, that is called with this scheduler first, and whenever a state was loaded.

        Returns:
            A function that ends the subscription.

        Example:
            >>> import torch
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
            >>> scheduler = GreedyLR(optimizer)
            >>> unsubscribe = scheduler.subscribe(lambda decision: print(decision.action.value))
            >>> scheduler.step(float("nan"))
            non-finite loss, left out of every average
            >>> unsubscribe()
        """
        introduce(observer, self)
        # A new mapping each time, so that an observer may unsubscribe while it is being called.
        subscription = object()  # its own, should the same observer subscribe twice
        self._observers = {**self._observers, subscription: observer}
        self._choose_path()

        def unsubscribe() -> None:
            self._observers = {one: other for one, other in self._observers.items() if one is not subscription}
            self._choose_path()

        return unsubscribe

    @property
    def config(self) -> Config:
        """The settings in force."""
        config: Config = self._config
        return config

    def set_total_steps(self, total_steps: int | None) -> None:
        """Change the length of a run that is under way: go on longer, or end earlier.

        The learning rates are those of the new length at once. The next decision that would be a hold tells of it.

        Args:
            total_steps: Number of :meth:`step` calls in the whole run, those so far included. None: open-ended.

        Raises:
            TypeError: If this is :meth:`paper` or :meth:`core`, which know no length, or ``total_steps`` is no integer.
            ValueError: If ``total_steps`` is less than 1.

        Example:
            >>> import torch
            >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
            >>> scheduler = GreedyLR(optimizer, total_steps=100, warmup_steps=0)
            >>> for _ in range(100):
            ...     scheduler.step(1.0)
            >>> scheduler
            GreedyLR(step=100, lr=1e-06)
            >>> scheduler.set_total_steps(200)
            >>> scheduler
            GreedyLR(step=100, lr=0.0555556)
        """
        if not isinstance(self._config, DefaultConfig):
            raise TypeError("the published algorithm does not know the length of a run: it has no total_steps")
        self._synchronize()
        self._config = rule.set_horizon(self._config, self._state, total_steps)
        self._over = False
        self._write()
        for observer in self._observers.values():  # The settings are others now.
            introduce(observer, self)

    @property
    def last_epoch(self) -> int:
        """Number of losses acted on so far (torch's name for it). It cannot be set."""
        return int(self._state.step)

    @last_epoch.setter
    def last_epoch(self, value: int) -> NoReturn:
        raise AttributeError(
            "GreedyLR counts the losses that it was given, and its last_epoch cannot be set. SequentialLR and "
            "ChainedScheduler step without a loss: use GreedyLR by itself (it warms up and anneals), or step another "
            "scheduler first and build GreedyLR when that is done. To go on with an earlier run, load its state_dict"
        )

    @property
    def base_lrs(self) -> list[float | Tensor]:  # type: ignore[override]
        """The initial learning rate of each parameter group."""
        return list(self._state.initial_lrs)

    def get_lr(self) -> list[float | Tensor]:
        """The same as :meth:`get_last_lr`."""
        return self.get_last_lr()

    def get_last_lr(self) -> list[float | Tensor]:
        """The learning rate of each parameter group, as it is in the optimizer; of tensors a copy."""
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        return [lr.clone() if isinstance(lr, Tensor) else lr for lr in lrs]

    @property
    def _last_lr(self) -> list[float | Tensor]:  # type: ignore[override]
        # Some trainers read this attribute of torch's schedulers.
        return self.get_last_lr()

    def join_hook(self, **kwargs: Any) -> ranks.JoinHook:
        """Hook for ``torch.distributed.algorithms.Join([model, scheduler])``: a rank without inputs goes along.

        It makes the steps of the other ranks without a loss, so that all have the same learning rate to the end.
        """

        def go_along() -> None:
            if self._average_ranks and ranks.is_active():
                self._take_in(None, None, joined=True)

        return ranks.JoinHook(go_along)

    @property
    def join_device(self) -> torch.device:
        """Answer to what ``Join`` asks for."""
        return ranks.join_device()

    @property
    def join_process_group(self) -> Any:
        """Answer to what ``Join`` asks for."""
        return ranks.join_process_group()

    def state_dict(self) -> dict[str, Any]:
        """Settings and state as plain Python data: for ``torch.save``, or for JSON.

        It holds everything, a device loss on its way to the host included (which is waited for): a run that is
        resumed from it equals one that never stopped.
        """
        self._synchronize()
        pending, measured = self._reader.peek(), self._slope.peek()
        waiting = self._batches[0] if self._batches and pending is not None else None
        domain = None if self._levels is None or waiting is None else str(waiting.get(self._levels.by, ""))
        # The same entries whatever has happened: some checkpoints restore only those that they find.
        return {
            **checkpoint.save(self._config, self._state),
            "levels": None if self._levels is None else self._levels.state_dict(),
            "pending_loss": saved.strict(None if pending is None else pending.loss),
            "pending_slope": None if pending is None or math.isnan(pending.slope) else saved.strict(pending.slope),
            "pending_domain": domain,
            "measured": None if measured is None else [saved.strict(one) for one in measured],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, and write the learning rates to the optimizer.

        As in torch, the saved settings replace those given at construction, but for ``total_steps``: if it was given
        here, it is the length of the run that goes on. A :meth:`paper` scheduler also takes a state dict of
        ``transformers.optimization.GreedyLR``.

        Args:
            state_dict: From :meth:`state_dict` of a scheduler of the same family.

        Raises:
            ValueError: If it is something else, or for another number of parameter groups. Nothing has changed then.

        Warns:
            UserWarning: If ``total_steps`` is another than the saved one, or other settings are replaced.
        """
        given, given_levels = self._config, None if self._levels is None else self._levels.by
        self._restore(self._parsed(state_dict))
        said = saved.differences(given, self._config)
        levels = None if self._levels is None else self._levels.by
        if given_levels != levels:
            said.append(f"level_by={levels!r} in place of {given_levels!r}")
        if said and ranks.is_main():
            warnings.warn(
                f"the loaded state has other settings than this scheduler was given, and replaces them: "
                f"{', '.join(said)}",
                UserWarning,
                stacklevel=2,
            )
        own = given.total_steps if isinstance(given, DefaultConfig) else None
        if own is not None and own != self._config.total_steps:
            if ranks.is_main():
                warnings.warn(
                    f"total_steps={own}, as given to this scheduler, counts in place of the saved "
                    f"{self._config.total_steps}: the run ends at step {own}, and is at step {self._state.step}",
                    UserWarning,
                    stacklevel=2,
                )
            self.set_total_steps(own)

    def _restore(self, then: saved.Saved) -> None:
        """Go on from there; nothing of this raises."""
        self._config, self._state = then.config, then.state
        self._reader.restore(then.pending)
        self._slope.restore(then.measured)
        self._levels, self._batches = then.levels, then.batches
        self._indirect = self._average_ranks or then.pending is not None
        self._group_count, self._over = len(self.optimizer.param_groups), False
        parameter_groups.remember(self.optimizer, self._remembered)
        self._choose_path()
        parameter_groups.unshare_lrs(self.optimizer)
        self._write()
        for observer in self._observers.values():  # Settings and learning rates may be others now.
            introduce(observer, self)

    def _parsed(self, state_dict: dict[str, Any]) -> saved.Saved:
        return saved.parse(state_dict, family_of(self._config).name, len(self.optimizer.param_groups))

    def go_back(self, state_dict: dict[str, Any], factor: float = 1.0) -> None:
        """Forget what happened since a state was saved, but not how many steps were made.

        Args:
            state_dict: From :meth:`state_dict` of this scheduler.
            factor: What the learning rates of then are multiplied by, within their bounds, in (0, 1].

        Raises:
            ValueError: If it is not a state of this scheduler, or ``factor`` is outside its range. Nothing has changed
                then.
        """
        if not 0 < factor <= 1:
            raise ValueError(f"factor must be a number with 0 < factor <= 1, got {factor!r}")
        then, config = self._parsed(state_dict), self._config
        state = rule.resume(config, then.state, self._state.step, factor)
        self._restore(then._replace(config=config, state=state, pending=None, measured=None, batches=[]))

    def __repr__(self) -> str:
        family = "" if isinstance(self._config, DefaultConfig) else ".paper"
        lrs = ", ".join(f"{lr:g}" for lr in self._state.lrs)
        return f"GreedyLR{family}(step={self._state.step}, lr={lrs})"

    def __getstate__(self) -> dict[str, Any]:
        # For pickle and copy: plain data in place of device buffers, and no observers (open files, loggers).
        return {
            "optimizer": self.optimizer,
            "config": self._config,
            "read": self._read_mode,
            "average_ranks": self._average_ranks,
            "state_dict": self.state_dict(),
        }

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        self._set_up(pickled["optimizer"], pickled["config"], pickled["read"], pickled["average_ranks"])
        self._restore(self._parsed(pickled["state_dict"]))

    @classmethod
    def _from_config(cls, optimizer: Optimizer, config: Config, read: str, average_ranks: bool) -> GreedyLR:
        self = cls.__new__(cls)
        self._attach(optimizer, config, read, average_ranks)
        return self

    def _attach(self, optimizer: Optimizer, config: Config, read: str, average_ranks: bool) -> None:
        # Not LRScheduler.__init__: it takes a first step without a loss, and wraps optimizer.step at a cost per step to
        # warn of an order of calls that does no harm here. ReduceLROnPlateau leaves it out as well.
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if read not in ("later", "now"):
            raise ValueError(f"read must be 'later' or 'now', got {read!r}")
        if not isinstance(average_ranks, bool):
            raise TypeError(f"average_ranks must be True or False, got {average_ranks!r}")
        self._set_up(optimizer, config, read, average_ranks)
        parameter_groups.unshare_lrs(optimizer)
        lrs = self._initial_lrs(0)
        self._state = rule.start(config, lrs)
        parameter_groups.note_initial_lrs(optimizer, lrs)
        self._group_count = len(lrs)
        parameter_groups.remember(optimizer, self._remembered)
        self._write()

    def _initial_lrs_now(self) -> Callable[[], tuple[float, ...]]:
        this = weakref.ref(self)  # The optimizer, which holds on to whoever asks, must not hold on to this.

        def initial_lrs() -> tuple[float, ...]:
            scheduler = this()
            return () if scheduler is None else scheduler._state.initial_lrs

        return initial_lrs

    def _initial_lrs(self, first: int) -> list[float]:
        if isinstance(self._config, DefaultConfig):
            return parameter_groups.initial_lrs(self.optimizer, first)
        # The published implementation starts from the learning rate in force.
        return [parameter_groups.lr_of(group) for group in self.optimizer.param_groups[first:]]

    def _set_up(self, optimizer: Optimizer, config: Config, read: str, average_ranks: bool) -> None:
        self.optimizer = optimizer
        self._remembered = parameter_groups.Remembered()
        self._config = config
        self._advance = rule.advancer(config)
        self._read_mode = read
        self._reader = DeferredReader()
        self._slope = Slope(optimizer, self._initial_lrs_now())
        self._levels, self._batches, self.composition = None, [], None
        self._average_ranks = average_ranks
        self._averages = ranks.LossAverage(optimizer)
        # Whether a float may not be acted on straight away: it is to be averaged, or a device loss may be before it.
        # Whether there are other ranks is asked at the first step: a process group may be initialised until then.
        self._indirect = average_ranks
        self._observers = {}
        self._over = False  # whether it has been said that total_steps are over
        self._choose_path()

    def _choose_path(self) -> None:
        # A float that nobody watches goes straight to the rule. One flag, because step() is all overhead.
        self._direct = not self._indirect and not self._observers and self._levels is None
        # Losses that are corrected for their domain are no longer those that the gradient is of.
        self._slope.listens = self._levels is None and self._config.hears_slope

    def _read(
        self,
        loss: SupportsFloat | None,
        composition: Mapping[str, Any] | None,
        grad_norm: SupportsFloat | None,
        joined: bool,
    ) -> list[Observed]:
        """The losses that can be acted on now, with their slopes, in order: mostly this one or the one before."""
        averaged = self._average_ranks and ranks.is_active()
        decode: Decode = observed
        if averaged:
            self._reader.peek()  # Where ranks differed, all of them raise, and none waits here for the others.
            if not joined:
                ranks.notify_join_context(self)
        try:
            check_composition(composition)
            value = math.nan if joined else checked(loss)
            if averaged and self._levels is not None:
                raise ValueError(
                    f"level_by={self._levels.by!r} is for one process: the mean over ranks belongs to no one domain"
                )
            if not averaged and not isinstance(value, Tensor):
                value = float(value)
            slope = self._slope.take(grad_norm)
        except Exception:
            if averaged:  # The others wait for this rank, and are told that it has nothing for them.
                with contextlib.suppress(Exception):  # What is wrong here is the cause.
                    self._gather(math.nan, None, refused=True)
            raise
        if averaged:
            value, decode = self._gather(value, slope, joined=joined)
        elif isinstance(value, Tensor) and slope is not None:
            both = [torch.as_tensor(one, dtype=torch.float64, device=value.device) for one in (value, slope)]
            value = torch.stack([one.reshape(()) for one in both])
        later = isinstance(value, Tensor) and value.device.type != "cpu" and self._read_mode == "later"
        now = Observed(math.nan, math.nan)
        if not later:  # What may raise comes before anything has changed.
            if isinstance(value, Tensor):
                now = decode([float(one) for one in value.reshape(-1)])
            else:
                now = Observed(value, math.nan if slope is None else float(slope))
        before = self._reader.take()
        known = [] if before is None else [before]
        if later:
            assert isinstance(value, Tensor)
            self._reader.put(value, decode)
            self._indirect = True
            self._choose_path()
            return known
        if self._indirect and not averaged:
            self._indirect = False
            self._choose_path()
        return [*known, now]

    def _gather(
        self, loss: float | Tensor, slope: float | Tensor | None, refused: bool = False, joined: bool = False
    ) -> tuple[Tensor, Decode]:
        step = self._state.step + self._reader.holds
        return self._averages.gather(loss, slope, step, self._config, self._state, refused, joined)

    def _observe(self, loss: float, slope: float) -> None:
        self._take_over_lrs()
        seen = loss if self._levels is None else self._levels.correct(loss, self.composition)
        if not self._observers:
            self._settle_after(self._advance(self._config, self._state, seen, slope))
            return
        decision = rule.observe(self._config, self._state, seen, slope)
        if self._levels is not None:
            decision = decision._replace(loss=loss)
        self._settle_after(decision.action)
        tell(self._observers.values(), decision)

    def _settle_after(self, action: Action) -> None:
        # As in step(): a watched scheduler does exactly what an unwatched one does.
        if action is not _GATHERING and action is not _PATIENCE:
            self._settle(action)

    def _settle(self, action: Action) -> None:
        """Write what has changed, on top of what somebody else has set."""
        if self._average_ranks and not self._indirect and ranks.is_active():
            raise RuntimeError(
                "torch.distributed was initialised after the first step, so that the ranks have decided apart: step "
                "the scheduler for the first time after init_process_group, or pass average_ranks=False"
            )
        if self._state.lrs is not self._written:
            if self._comparable and not self._follows_hand:
                self._move()
            else:
                self._write()
        if action is _OVER and not self._over:
            self._over = True
            if ranks.is_main():
                warnings.warn(
                    f"total_steps={self._config.total_steps} are over, and this is step {self._state.step}: the "
                    "learning rates stay at their lower bound. total_steps counts optimizer steps, not epochs; "
                    "set_total_steps(...) goes on",
                    UserWarning,
                    stacklevel=3,
                )

    def _synchronize(self) -> None:
        """Take in what has happened to the optimizer since the last step."""
        if len(self.optimizer.param_groups) != self._group_count:
            self._take_in_groups()
        self._take_over_lrs()

    def _take_in_groups(self) -> None:
        groups, known = self.optimizer.param_groups, self._group_count
        if len(groups) < known:
            raise ValueError(f"the optimizer has lost parameter groups: {known} before, {len(groups)} now")
        self._take_over_lrs()
        parameter_groups.unshare_lrs(self.optimizer)
        before = self._config
        for lr in self._initial_lrs(known):
            self._config = rule.add_group(self._config, self._state, lr)
        parameter_groups.note_initial_lrs(self.optimizer, self._state.initial_lrs)
        self._group_count = len(groups)
        self._write()
        if self._config is not before:
            warnings.warn(
                f"{len(groups) - known} of {len(groups)} parameter groups joined later, and bounds were given per "
                "group: those that joined get the widest of them",
                UserWarning,
                stacklevel=3,
            )

    def _take_over_lrs(self) -> None:
        """Let learning rates that were set by hand count."""
        if not self._comparable:
            return
        for group, was in zip(self.optimizer.param_groups, self._in_optimizer):
            if group["lr"] is not was:  # What was written is the same object still, unless it is in a tensor.
                break
        else:
            return
        lrs = tuple([group["lr"] for group in self.optimizer.param_groups[: self._group_count]])
        if lrs == self._in_optimizer:
            return
        found = parameter_groups.found_lrs(lrs, self._in_optimizer, self._written)
        rule.take_over(self._config, self._state, found, self._written)
        self._written, self._in_optimizer = self._state.lrs, found

    def _move(self) -> None:
        """Set the learning rates, as a move on top of what somebody has set since the last time."""
        groups, known = self.optimizer.param_groups, 0
        for group, lr, was in zip(groups, self._state.lrs, self._in_optimizer):
            if group["lr"] is not was:  # What was written is the same object still, unless it is in a tensor.
                break
            group["lr"] = lr
            known += 1
        else:
            self._note_what_is_set(self._state.lrs)
            return
        lrs = (*self._in_optimizer[:known], *(group["lr"] for group in groups[known:]))
        if lrs != self._in_optimizer:
            found = parameter_groups.found_lrs(lrs, self._in_optimizer, self._written)
            rule.rebase(self._config, self._state, found, self._written)
        self._write()

    def _write(self) -> None:
        """Set the learning rates."""
        groups = self.optimizer.param_groups
        on_device = tensors = False
        for group, lr in zip(groups, self._state.lrs):
            if group["lr"].__class__ is float or not isinstance(group["lr"], Tensor):
                group["lr"] = lr
            else:
                # The largest float has no place in a tensor of another type.
                group["lr"].fill_(min(lr, torch.finfo(group["lr"].dtype).max))
                tensors = True
                on_device = on_device or group["lr"].device.type != "cpu"
        # A tensor on a device is not compared with what was written, for that would wait for it.
        self._comparable = not on_device
        self._follows_hand = not tensors and isinstance(self._config, PaperConfig)
        read_back = tensors and not on_device
        self._note_what_is_set(tuple([float(group["lr"]) for group in groups]) if read_back else self._state.lrs)

    def _note_what_is_set(self, in_optimizer: tuple[float, ...]) -> None:
        self._written, self._in_optimizer = self._state.lrs, in_optimizer
        self._remembered.initial, self._remembered.in_optimizer = self._state.initial_lrs, in_optimizer
