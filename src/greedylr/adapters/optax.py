"""GreedyLR as an optax transformation: the rule on JAX arrays, compiled with the training step.

The rule is :mod:`greedylr.control.batched` with ``jax.numpy``. Run as written in float64, every decision equals that of
the scalar rule. Under ``jit`` the compiler may rearrange arithmetic, and float32 rounds: a last bit may differ, and so,
where a comparison is that close, may a decision.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from greedylr.control import batched
from greedylr.control.decision import Action, Decision
from greedylr.control.default.config import DefaultConfig, cautions
from greedylr.control.families import Config, chosen
from greedylr.control.observers import Observer, introduce, tell
from greedylr.extras import missing

try:
    import jax
    import jax.numpy as jnp
    import optax  # type: ignore[import-untyped]
    from jax.experimental import io_callback
except ModuleNotFoundError as error:
    raise missing(error, "optax") from error


class GreedyLRState(NamedTuple):
    """State of :func:`greedy_lr`: arrays only, so that it can be saved, scanned and mapped like any other.

    Attributes:
        memory: What the rule remembers, field by field as in :mod:`greedylr.control.batched`.
        action: What the last loss led to, as an index into :data:`greedylr.control.batched.ACTIONS`;
            -1 before the first.
    """

    memory: batched.Arrays
    action: jax.Array

    @property
    def learning_rate(self) -> jax.Array:
        """Factor of the next update."""
        learning_rate: jax.Array = self.memory.lrs
        return learning_rate


def greedy_lr(
    learning_rate: float = 1.0,
    config: Config | None = None,
    *,
    observers: Iterable[Observer] = (),
    **settings: Any,
) -> optax.GradientTransformationExtraArgs:
    """Multiply the updates by a learning rate that follows the loss.

    The ``update`` takes the loss as ``value=``. As in PyTorch, an update is made with the learning rate that the losses
    before it have led to, and then its own loss is observed. Where several devices or accumulation steps make one
    update, pass the mean of their losses: it has to be the same on all devices.

    Args:
        learning_rate: The initial one. Chained behind an optimizer that has one of its own, 1: the result is then a
            multiple of the optimizer's.
        config: A :class:`greedylr.DefaultConfig`, or a :class:`greedylr.PaperConfig` for the published algorithm. None:
            the defaults of the former.
        observers: Each is called on the host with every decision, in order, from within the compiled step: a recorder,
            say. Decisions come without evidence, and after the step that they belong to: ``jax.effects_barrier()``
            waits for them. Not under ``vmap``.
        **settings: Settings by name, in place of those in ``config``.

    Returns:
        The transformation; its state is a :class:`GreedyLRState`.

    Raises:
        ValueError: If a setting is outside its range, or the learning rate is negative.
        TypeError: If a setting is unknown, or ``update`` is called without ``value``; ``ValueError`` if that is not
            one number.

    Example:
        >>> optimizer = optax.chain(optax.adam(1e-3), greedy_lr())
        >>> params = jnp.array([1.0, -2.0])
        >>> state = optimizer.init(params)
        >>> @jax.jit
        ... def step(params, state):
        ...     loss, gradient = jax.value_and_grad(lambda params: (params**2).sum())(params)
        ...     updates, state = optimizer.update(gradient, state, params, value=loss)
        ...     return optax.apply_updates(params, updates), state
        >>> for _ in range(10):
        ...     params, state = step(params, state)
        >>> int(state[1].memory.step), state[1].learning_rate.shape, isinstance(action_of(state[1]), Action)
        (10, (), True)
    """
    if not learning_rate >= 0:
        raise ValueError(f"learning_rate must be at least 0, got {learning_rate!r}")
    config = chosen(DefaultConfig() if config is None else config, settings)
    for caution in cautions(config) if isinstance(config, DefaultConfig) else ():
        warnings.warn(caution, UserWarning, stacklevel=2)
    told = tuple(observers)
    for observer in told:
        introduce(observer, _Observed(config))

    def on_host(step: Any, loss: Any, action: Any, before: Any, after: Any) -> None:
        lrs = (float(before),), (float(after),)
        decision = Decision(int(step), float(loss), batched.ACTIONS[int(action)], *lrs, {})
        tell(told, decision)

    def init(params: optax.Params) -> GreedyLRState:
        del params
        state = GreedyLRState(
            memory=batched.start(config, jnp.asarray(learning_rate, jnp.result_type(float)), jnp),
            action=jnp.asarray(-1, jnp.int32),
        )
        # Each field a buffer of its own: what is donated is written over.
        owned: GreedyLRState = jax.tree.map(lambda field: jnp.array(field, copy=True), state)
        return owned

    def update(
        updates: optax.Updates,
        state: GreedyLRState,
        params: optax.Params | None = None,
        *,
        value: jax.typing.ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GreedyLRState]:
        del params, extra_args
        if value is None:
            raise TypeError("greedy_lr needs the loss: call optimizer.update(gradients, state, params, value=loss)")
        loss = jnp.asarray(value)
        if loss.size != 1 or jnp.issubdtype(loss.dtype, jnp.complexfloating):
            raise ValueError(f"value must be one real number, got an array of shape {loss.shape}, {loss.dtype}")
        used = state.learning_rate
        memory, action = batched.advance(config, state.memory, loss.reshape(()).astype(used.dtype), jnp)
        if told:
            io_callback(on_host, None, memory.step, loss.reshape(()), action, used, memory.lrs, ordered=True)
        updates = jax.tree.map(lambda update: (update * used).astype(update.dtype), updates)
        return updates, GreedyLRState(memory, jnp.asarray(action, jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)


class _Observed(NamedTuple):
    """Stand-in for a scheduler in calls to observers; the learning rate is in the state, which they do not see."""

    config: Config


def action_of(state: GreedyLRState) -> Action:
    """Name of the action that followed the last loss; waits for the device.

    Raises:
        ValueError: Before the first loss.
    """
    code = int(state.action)
    if code < 0:
        raise ValueError("no loss has been observed yet")
    return batched.ACTIONS[code]


__all__ = ["GreedyLRState", "action_of", "greedy_lr"]
