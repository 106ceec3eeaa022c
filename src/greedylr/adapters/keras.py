"""GreedyLR as a Keras 3 callback, on any of its backends; PyTorch need not be there.

The loss that Keras hands to callbacks is the mean over the epoch so far, which one NaN makes NaN until the epoch ends.
So the callback adds a metric to the model, ``batch_loss``, that keeps the last value of ``compute_loss``: it is part of
the compiled training step, and comes out of it with the other metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras  # type: ignore[import-untyped]

from greedylr.control import checkpoint, rule
from greedylr.control.config import Config, DefaultConfig, PaperConfig
from greedylr.control.observers import Observer, hand_on, introduce
from greedylr.control.state import State


class GreedyLR(keras.callbacks.Callback):  # type: ignore[misc]
    """Let the training loss of every batch, or a metric at the end of every epoch, set the learning rate.

    With the optimizer's ``gradient_accumulation_steps`` the mean over the accumulated batches is one observation. The
    loss is read on the host after every batch, which waits for the device. Training goes on where it was when ``fit``
    is called again; for another process save :meth:`state_dict` beside the model.

    Args:
        family: :class:`~greedylr.control.config.DefaultConfig`, or
            :class:`~greedylr.control.config.PaperConfig` for the published algorithm.
        monitor: The name of a metric, ``"val_loss"`` say, to be observed at the end of every epoch in place of the
            training loss.
        observers: Each is called with every decision: a recorder, say. One that has a method ``watch`` is told by it of
            this callback at the beginning of every ``fit``, when the settings are known. One that has a method ``log``
            is handed the metrics of validations, ``val_loss`` and so on, at the end of their epoch.
        **settings: Those of the family. For the default family on the loss, ``total_steps`` is the length of the first
            ``fit`` unless given, if Keras knows it; ``total_steps=None`` is open-ended.

    Raises:
        ValueError: If a setting is outside its range; in ``fit``, if ``steps_per_execution`` is not 1.
        TypeError: If a setting is unknown; in ``fit``, from Keras, if the optimizer has a schedule of its own.

    Example:
        See ``docs/adapters.md``.
    """

    def __init__(
        self,
        family: Callable[..., Config] = DefaultConfig,
        *,
        monitor: str | None = None,
        observers: Iterable[Observer] = (),
        **settings: Any,
    ) -> None:
        super().__init__()
        self._family, self._monitor, self._settings = family, monitor, settings
        self._config = family(**settings)
        self._state: State | None = None
        self._observers = tuple(observers)
        self._losses: list[float] = []
        self._watched: Any = None

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
        self._config, self._state = checkpoint.load(state_dict, checkpoint.family_of(self._config))

    def set_model(self, model: Any) -> None:
        """Keras' own event, as all that follow: before it takes stock of the model's variables."""
        super().set_model(model)
        if self._monitor is None and self._watched is not model:
            _watch(model)
            # What was compiled in an earlier fit does not know the metric.
            model.make_train_function(force=True)
            self._watched = model

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start, or go on."""
        optimizer = self.model.optimizer
        if self._state is None:
            if self._family is DefaultConfig and self._monitor is None and "total_steps" not in self._settings:
                self._config = DefaultConfig(**self._settings, total_steps=self._steps())
            self._state = rule.start(self._config, [float(keras.ops.convert_to_numpy(optimizer.learning_rate))])
        self._write()
        self._losses.clear()
        for observer in self._observers:
            introduce(observer, self)
        if self._monitor is None and self.model.steps_per_execution != 1:
            raise ValueError(f"steps_per_execution must be 1, got {self.model.steps_per_execution}")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """One micro-batch."""
        if self._monitor is not None:
            return
        assert logs is not None
        self._losses.append(float(logs["batch_loss"]))
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
        # Without our own metric, which there is of the last batch alone.
        validated = {name: value for name, value in logs.items() if name.startswith("val_")}
        hand_on(self._observers, {name: value for name, value in validated.items() if name != "val_batch_loss"})

    def _observe(self, loss: float) -> None:
        assert self._state is not None
        decision = rule.observe(self._config, self._state, loss)
        if decision.lr_after != decision.lr_before:
            self._write()
        for observer in self._observers:
            observer(decision)

    def _write(self) -> None:
        assert self._state is not None
        # On JAX the step holds its own copy of every variable until it is told to look again.
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.model.optimizer.learning_rate = self._state.lrs[0]

    def _steps(self) -> int | None:
        steps: int | None = self.params.get("steps")
        epochs: int | None = self.params.get("epochs")
        if steps is None or epochs is None:
            return None
        accumulated: int = self.model.optimizer.gradient_accumulation_steps or 1
        return max(1, steps * epochs // accumulated)


class _LastLoss(keras.metrics.Metric):  # type: ignore[misc]
    """The loss of the last batch."""

    def __init__(self) -> None:
        super().__init__(name="batch_loss")
        self.last = self.add_variable((), "zeros", name="last")

    def update_state(self, loss: Any) -> None:
        self.last.assign(keras.ops.cast(loss, self.last.dtype))

    def result(self) -> Any:
        return keras.ops.add(self.last, 0.0)  # not the variable itself, which is reset before the value is read


def _watch(model: Any) -> None:
    """Add the metric to the model, and fill it where the loss is computed."""
    if not any(isinstance(metric, _LastLoss) for metric in model.metrics):
        model._greedylr_last_loss = _LastLoss()  # Keras finds metrics among the attributes of a model.
    last, original = model._greedylr_last_loss, model.compute_loss

    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        loss = original(*args, **kwargs)
        last.update_state(loss)
        return loss

    model.compute_loss = compute_loss


__all__ = ["DefaultConfig", "GreedyLR", "PaperConfig"]
