"""GreedyLR in TRL: fine-tuning on the loss, reinforcement learning on the reward.

TRL's trainers are subclasses of the Transformers ``Trainer``, and on the loss :func:`greedylr.adapters.trainer.attach`
does for all of them. Where a reward is earned, the loss says little: its mean is near zero by construction. What has to
go up is the mean reward of a generation, over all ranks, which these trainers keep until they log it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch.optim import Optimizer

from greedylr.adapters import trainer as loss
from greedylr.adapters.loop import Composition, with_length
from greedylr.control.observers import Observer
from greedylr.extras import missing
from greedylr.torch.scheduler import GreedyLR

try:
    from transformers import Trainer
    from trl import GRPOTrainer, RLOOTrainer  # type: ignore[attr-defined]
except ModuleNotFoundError as error:
    raise missing(error, "trl") from error


def attach(
    trainer: Trainer,
    build: Callable[..., GreedyLR] = GreedyLR,
    *,
    observers: Iterable[Observer] = (),
    composition: Composition | None = None,
    **settings: Any,
) -> None:
    """Let GreedyLR set the learning rates of a TRL trainer: on the reward if it earns one, else on the loss.

    ``GRPOTrainer`` and ``RLOOTrainer`` are observed where they generate: at every optimizer step, or, if a generation
    is used for several steps, at the first of them. A generation without a single reward is no observation.

    Args:
        trainer: The trainer; it must have been given no scheduler.
        build: As for :func:`greedylr.adapters.trainer.attach`.
        observers: Likewise.
        composition: Likewise, on the loss only.
        **settings: Likewise. On a reward ``mode`` is ``"max"``, and ``total_steps`` counts generations.

    Raises:
        ValueError: As there.

    Example:
        See ``docs/adapters.md``.
    """
    if not earns_rewards(trainer):
        loss.attach(trainer, build, observers=observers, composition=composition, **settings)
        return
    every = steps_per_generation(trainer)

    def with_horizon(optimizer: Optimizer, **settings: Any) -> GreedyLR:
        if build is GreedyLR:
            settings = with_length(settings, math.ceil(trainer.state.max_steps / every))
        return build(optimizer, **settings)

    settings = {"mode": "max"} | loss.safe_for(trainer, build, settings, on_the_loss=False) | settings
    loss.attach(trainer, with_horizon, observe=_NewRewards(), observers=observers, composition=composition, **settings)


class _NewRewards:
    """The mean over the generations since the last optimizer step, or None if there were none."""

    def __init__(self) -> None:
        self._known: list[float] = []
        self._taken = 0

    def __call__(self, trainer: Any) -> float | None:
        rewards = trainer._metrics["train"]["reward"]
        if rewards is not self._known:  # logging has cleared them: a new list
            self._known, self._taken = rewards, 0
        new = [reward for reward in rewards[self._taken :] if not math.isnan(reward)]
        self._taken = len(rewards)
        return sum(new) / len(new) if new else None


def earns_rewards(trainer: Trainer) -> bool:
    """True if what has to go up is a reward."""
    return isinstance(trainer, (GRPOTrainer, RLOOTrainer))


def steps_per_generation(trainer: Any) -> float:
    """Optimizer steps that one generation is used for, at least 1."""
    micro_batches: int = trainer.args.steps_per_generation * trainer.num_iterations
    accumulated: int = trainer.args.gradient_accumulation_steps
    return max(1.0, micro_batches / accumulated)
