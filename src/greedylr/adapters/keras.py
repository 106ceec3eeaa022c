"""GreedyLR as a Keras 3 callback, on any of its backends; PyTorch need not be there.

The loss that Keras hands to callbacks is the mean over the epoch so far, which one NaN makes NaN until the epoch ends.
So while a training step runs, the callback looks on as the model's own loss tracker is told the loss of the batch, and
lets that value leave the step, compiled or not, among its logs, from which it is taken out again. The model and its
metrics stay as they are.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from greedylr.control import checkpoint, rule
from greedylr.control.decision import Action
from greedylr.control.default.config import DefaultConfig, cautions
from greedylr.control.default.state import DefaultState
from greedylr.control.families import Config, State, chosen, family_of, hears_validation
from greedylr.control.observers import Observer, hand_on, introduce, tell
from greedylr.extras import missing

try:
    import keras  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise missing(error, "keras") from error


class GreedyLR(keras.callbacks.Callback):  # type: ignore[misc]
    """Let the training loss of every batch, or a metric at the end of every epoch, set the learning rate.

    With the optimizer's ``gradient_accumulation_steps`` the mean over the accumulated batches is one observation. The
    loss is read on the host after every batch, which waits for the device. Training goes on where it was when ``fit``
    is called again on the same model and optimizer, and with others it starts afresh; for another process save
    :meth:`state_dict` beside the model. A ``train_step`` of one's own must tell the model's loss tracker its loss, as
    Keras' guide has it, call ``compute_loss`` (not on JAX), or return the loss as ``batch_loss`` among its logs.

    Args:
        config: A :class:`greedylr.DefaultConfig`, or a :class:`greedylr.PaperConfig` for the published algorithm. None:
            the defaults of the former.
        monitor: The name of a metric, ``"val_loss"`` say, to be observed at the end of every epoch in place of the
            training loss.
        observers: Each is called with every decision: a recorder, say. One that has a method ``watch`` is told by it of
            this callback at the beginning of every ``fit``, when the settings are known. One that has a method ``log``
            is handed the metrics of validations, ``val_loss`` and so on, at the end of their epoch.
        **settings: Settings by name, in place of those in ``config``. For the default family on the loss,
            ``total_steps`` is the length of the run unless given, if Keras knows it: a ``fit`` that goes on moves it;
            ``total_steps=None`` is open-ended. With ``await_validation=True`` the ``val_loss`` at the end of every
            epoch is heard, too.

    Raises:
        ValueError: If a setting is outside its range; in ``fit``, if ``steps_per_execution`` is not 1, or the loss
            cannot be seen.
        TypeError: If a setting is unknown; in ``fit``, from Keras, if the optimizer has a schedule of its own.

    Example:
        See ``docs/adapters.md``.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        monitor: str | None = None,
        observers: Iterable[Observer] = (),
        **settings: Any,
    ) -> None:
        super().__init__()
        self._config = self._given = chosen(DefaultConfig() if config is None else config, settings)
        self._monitor, self._open_ended = monitor, "total_steps" in settings
        self._state: State | None = None
        self._observers = tuple(observers)
        self._losses: list[float] = []
        self._loss = math.nan
        self._optimizer: Any = None  # of the fit before
        self._first_epoch = True
        self._over = False

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._config

    def state_dict(self) -> dict[str, Any]:
        """Settings and state as plain data, valid in JSON; there is none before ``fit``.

        Raises:
            ValueError: Before the first ``fit``.
        """
        if self._state is None:
            raise ValueError("there is no state before the first fit")
        return checkpoint.save(self._config, self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned; the next ``fit`` goes on from there.

        Raises:
            ValueError: If it is something else, or of another family.
        """
        self._config, self._state = checkpoint.load(state_dict, family_of(self._config).name)
        self._optimizer = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start, or go on."""
        optimizer = self.model.optimizer
        if self._monitor is None and self.model.steps_per_execution != 1:
            raise ValueError(f"steps_per_execution must be 1, got {self.model.steps_per_execution}")
        if self._optimizer is not None and self._optimizer is not optimizer:
            self._state = None  # another model, or another fold: none of this is its past
        self._optimizer = optimizer
        if self._state is None:
            self._config = self._given
            if self._length_is_keras():
                assert isinstance(self._given, DefaultConfig)
                self._config = known = replace(self._given, total_steps=self._steps(0))
                for caution in cautions(known):
                    warnings.warn(caution, UserWarning, stacklevel=2)
            self._state = rule.start(self._config, [float(keras.ops.convert_to_numpy(optimizer.learning_rate))])
        self._first_epoch, self._over = True, False
        self._write()
        self._losses.clear()
        for observer in self._observers:
            introduce(observer, self)
        if self._monitor is None:
            self._look_on()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the number of the first epoch, the one that a fit which goes on begins with."""
        if not self._first_epoch:
            return
        self._first_epoch = False
        assert self._state is not None
        remaining = self._steps(epoch) if self._length_is_keras() else None
        if remaining is None or not isinstance(self._config, DefaultConfig):
            return
        total = self._state.step + remaining
        if total != self._config.total_steps:
            before = self._config.total_steps
            assert isinstance(self._state, DefaultState)
            self._config = rule.set_horizon(self._config, self._state, total)
            warnings.warn(
                f"total_steps={total}, the length of this fit, counts in place of {before}: the run is at step "
                f"{self._state.step}",
                UserWarning,
                stacklevel=2,
            )
            self._write()
            for observer in self._observers:
                introduce(observer, self)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the model as it was."""
        if self._monitor is None:
            self.model.train_function = None  # The next fit makes its own.

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """One micro-batch."""
        if self._monitor is not None:
            return
        self._losses.append(self._loss)
        if len(self._losses) == (self.model.optimizer.gradient_accumulation_steps or 1):
            loss = sum(self._losses) / len(self._losses)
            self._losses.clear()
            self._observe(loss)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """One value of the metric."""
        assert logs is not None
        assert self._state is not None
        logs["learning_rate"] = self._state.lrs[0]
        if self._monitor is not None:
            if self._monitor not in logs:
                raise ValueError(f"there is no {self._monitor!r} to observe; there are {sorted(logs)}")
            self._observe(float(logs[self._monitor]))
        if "val_loss" in logs and self._monitor is None and hears_validation(self._config):
            rule.validate(self._config, self._state, float(logs["val_loss"]))
        hand_on(self._observers, {name: value for name, value in logs.items() if name.startswith("val_")})

    def _observe(self, loss: float) -> None:
        assert self._state is not None
        decision = rule.observe(self._config, self._state, loss)
        if decision.lr_after != decision.lr_before:
            self._write()
        if decision.action is Action.OVER and not self._over:
            self._over = True
            warnings.warn(
                f"total_steps={self._config.total_steps} are over, and this is step {decision.step}: the learning rate "  # type: ignore[union-attr]
                "stays at its lower bound. total_steps counts optimizer steps, not epochs",
                UserWarning,
                stacklevel=2,
            )
        tell(self._observers, decision)

    def _write(self) -> None:
        assert self._state is not None
        # On JAX the step holds its own copy of every variable until it is told to look again.
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.model.optimizer.learning_rate = self._state.lrs[0]

    def _length_is_keras(self) -> bool:
        if self._monitor is not None or not isinstance(self._given, DefaultConfig):
            return False
        return self._given.total_steps is None and not self._open_ended

    def _steps(self, first_epoch: int) -> int | None:
        """Optimizer steps from that epoch on."""
        steps: int | None = self.params.get("steps")
        epochs: int | None = self.params.get("epochs")
        if steps is None or epochs is None:
            return None
        accumulated: int = self.model.optimizer.gradient_accumulation_steps or 1
        return max(1, steps * (epochs - first_epoch) // accumulated)

    def _look_on(self) -> None:
        """Have every training step bring out the loss of its batch."""
        model = self.model
        with _looked_on(model):
            model.make_train_function(force=True)  # On JAX the step is taken from the model here,
        function = model.train_function

        def train_function(*args: Any) -> Any:
            try:
                with _looked_on(model):  # on others at every call.
                    result = function(*args)
            except BaseException:
                model.train_function = None  # No one tells when training breaks off.
                raise
            logs, state = (dict(result[0]), result[1:]) if isinstance(result, tuple) else (dict(result), None)
            loss = keras.ops.convert_to_numpy(logs.pop(_LOSS))
            if loss.size != 1:
                raise ValueError(f"the loss of a batch must be one number, got an array of shape {loss.shape}")
            self._loss = float(loss.reshape(()))
            return logs if state is None else (logs, *state)

        model.train_function = train_function


_LOSS = "batch_loss"


@contextmanager
def _looked_on(model: Any) -> Iterator[None]:
    """Replace the model's ``train_step`` by one that brings out the loss among the logs, for a moment."""
    original = model.train_step

    def train_step(*args: Any, **kwargs: Any) -> Any:
        tracked: list[Any] = []
        computed: list[Any] = []
        with ExitStack() as stack:
            tracker = getattr(model, "_loss_tracker", None)
            if tracker is not None:
                stack.enter_context(_noting(tracker, "update_state", lambda result, args: tracked.append(args[0])))
            # On JAX what compute_loss returns may not leave the differentiation that it is part of.
            if keras.backend.backend() != "jax":
                stack.enter_context(_noting(model, "compute_loss", lambda result, args: computed.append(result)))
            result = original(*args, **kwargs)
        logs, state = (dict(result[0]), result[1:]) if isinstance(result, tuple) else (dict(result), None)
        if _LOSS not in logs:
            seen = tracked or computed
            if not seen:
                raise ValueError(
                    "the loss of a batch cannot be seen: this model's train_step tells neither its loss tracker nor "
                    "compute_loss. Return it as 'batch_loss' among the logs, or let GreedyLR(monitor=...) observe a "
                    "metric"
                )
            logs[_LOSS] = keras.ops.stop_gradient(seen[-1])
        return logs if state is None else (logs, *state)

    with _replaced(model, "train_step", train_step):
        yield


@contextmanager
def _noting(owner: Any, name: str, note: Callable[[Any, tuple[Any, ...]], object]) -> Iterator[None]:
    original = getattr(owner, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        note(result, args or tuple(kwargs.values()))
        return result

    with _replaced(owner, name, noted):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of the instance, past what Keras makes of attributes that are set."""
    own = vars(owner)
    had, before = name in own, own.get(name)
    own[name] = value
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            own.pop(name, None)
