"""A contextual bandit made of handwritten digits: name one, and be told only whether it was right."""

from __future__ import annotations

import torch
from torch import Tensor

from greedylr.lab.catalogue.problems.digits import load_images, perceptron
from greedylr.lab.catalogue.problems.problem import Data, Problem
from greedylr.lab.catalogue.problems.task import Examples, Model, Task

_ACTIONS = 10
_DRAWS = 32


def _load() -> Data:
    """Each image with rewards and noise, one of either for each action.

    With Gumbel's noise, the action with the largest sum of logit and noise is a draw from the policy. It comes with the
    example, so that runs that see the same batches are equally lucky. Each image to train on is there 32 times, each
    with noise of its own: more than a run gets to see.
    """
    train, validation = load_images()
    generator = torch.Generator().manual_seed(0)
    repeated = Examples(*(part.repeat_interleave(_DRAWS, 0) for part in train))
    uniform = torch.rand(len(repeated.targets), _ACTIONS, generator=generator, dtype=torch.float64)
    noise = -(-uniform.clamp(min=1e-12).log()).log().float()
    return Data(_with_noise(repeated, noise), _with_noise(validation, torch.zeros(len(validation.targets), _ACTIONS)))


def _with_noise(examples: Examples, noise: Tensor) -> Examples:
    rewards = torch.nn.functional.one_hot(examples.targets, _ACTIONS).float()
    return examples._replace(targets=torch.stack([rewards, noise], 1))


def _act(logits: Tensor, examples: Examples) -> tuple[Tensor, Tensor]:
    """The action of each example, as one 1 among zeros, and its reward."""
    rewards, noise = examples.targets.unbind(1)
    preference = (logits + noise).detach()
    action = (preference == preference.amax(-1, keepdim=True)).to(logits.dtype)
    return action, (action * rewards).sum(-1)


def _policy_gradient(model: Model, examples: Examples) -> Tensor:
    """REINFORCE: its gradient is that of the expected reward, downwards; its value means nothing."""
    logits = model(examples.inputs)
    action, reward = _act(logits, examples)
    # The mean reward of the others, which this action did not influence.
    baseline = (reward.sum() - reward) / (len(reward) - 1)
    log_probability = (action * logits.log_softmax(-1)).sum(-1)
    return -((reward - baseline) * log_probability).mean()


def _reward(model: Model, examples: Examples) -> Tensor:
    return _act(model(examples.inputs), examples)[1].mean()


def _missed(model: Model, examples: Examples) -> Tensor:
    """Expected shortfall of the policy from the highest reward."""
    probabilities = model(examples.inputs).softmax(-1)
    return 1 - (probabilities * examples.targets[:, 0]).sum(-1).mean()


# Without noise the action is the one the policy prefers.
POLICY = Task(
    "REINFORCE; validated by 1 − expected reward",
    _policy_gradient,
    "reward of the preferred action",
    _reward,
    judge=_missed,
    observe=_reward,
    mode="max",
)
"""The outputs are logits of actions, the targets rewards and noise; the scheduler is given a batch's mean reward."""

BANDIT = Problem(
    name="bandit",
    title="Policy gradient on handwritten digits",
    lr=0.003,
    lrs={"sgd": 0.1, "adam": 0.003, "adagrad": 0.03, "adafactor": 0.1},
    steps=500,
    batch_size=64,
    load=_load,
    model=perceptron,
    kind="boundary",
    description="name the digit in an image, for a reward of 1 if right: a perceptron with two hidden layers of 64",
    task=POLICY,
)
"""43,104 pairs of image and noise to train on."""

ENTRIES = (BANDIT,)
