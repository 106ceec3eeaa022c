"""The learning rate at which training leaves stability, predicted and found by bisection over runs.

``python benchmarks/stability_limit.py``: three small networks on scikit-learn's digits, three optimizers, full batch.
Each network is trained for some hundred steps at a low learning rate; ``greedylr.theory.stability`` predicts the limit
there, and runs of fifty more steps from the same point find it. A run has left stability when its loss has risen above
the start's by a tenth of it and is higher than at the step before. The last result: ``benchmarks/stability_limit.md``.
"""

import copy
from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from greedylr.theory import stability

STEPS, MORE, HALVINGS = 300, 50, 8


def networks():
    return {
        "perceptron": nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)),
        "convolutional": nn.Sequential(
            nn.Unflatten(1, (1, 8)),
            nn.Conv2d(1, 16, 3),
            nn.GELU(),
            nn.Conv2d(16, 16, 3),
            nn.Flatten(),
            nn.Linear(256, 10),
        ),
        "Transformer": nn.Sequential(
            nn.Linear(8, 32),
            nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True),
            Mean(),
            nn.Linear(32, 10),
        ),
    }


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


OPTIMIZERS = {
    "SGD": (lambda p: torch.optim.SGD(p, 0.05)),
    "SGD, momentum 0.9": (lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)),
    "AdamW": (lambda p: torch.optim.AdamW(p, 1e-3)),
}


def loss_of(model, batch):
    return functional.cross_entropy(model(batch[0]), batch[1])


def train(model, optimizer, batch, steps):
    losses = []
    for _ in range(steps):
        loss = loss_of(model, batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def leaves(model, optimizer, batch, lr):
    model, states = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict())
    again = type(optimizer)(model.parameters(), lr=lr)
    again.load_state_dict(states)
    for group in again.param_groups:
        group["lr"] = lr
    if "momentum_buffer" in next(iter(again.state.values()), {}):
        # In units of the learning rate: what the buffer does must not depend on the one that is tried.
        for state in again.state.values():
            state["momentum_buffer"].mul_(optimizer.param_groups[0]["lr"] / lr)
    losses = train(model, again, batch, MORE)
    return any(not now < 1.1 * losses[0] and now > before for before, now in pairwise(losses))


def main():
    torch.set_num_threads(1)
    digits = load_digits()
    batch = torch.tensor(digits.images[:512] / 16, dtype=torch.float32), torch.tensor(digits.target[:512])
    print("| network | optimizer | predicted | found | found / predicted |")
    print("|---|---|---|---|---|")
    torch.manual_seed(0)
    for name, network in networks().items():
        for how, build in OPTIMIZERS.items():
            model = copy.deepcopy(network)
            optimizer = build(model.parameters())
            train(model, optimizer, batch, STEPS)
            predicted = stability(model, loss_of, batch, optimizer).limits[0]
            low, high = predicted / 4, predicted * 4
            for _ in range(HALVINGS):
                middle = (low * high) ** 0.5
                low, high = (low, middle) if leaves(model, optimizer, batch, middle) else (middle, high)
            found = (low * high) ** 0.5
            print(f"| {name} | {how} | {predicted:.3g} | {found:.3g} | {found / predicted:.2f} |", flush=True)


if __name__ == "__main__":
    main()
