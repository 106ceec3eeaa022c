"""A real run, small and convex, with things planted in it: softmax regression on handwritten digits."""

import math

import torch
from sklearn.datasets import load_digits

from greedylr import DefaultConfig, GreedyLR
from greedylr.pulse import Recorder
from greedylr.torch.rescue import Rescue

STEPS = 3000
DISRUPTION, SHARD, NAN = 900, 1400, 2000
"""The steps from which inputs are negative for ten batches, come from another scanner, and one loss is NaN."""

_trained = {}


def digits():
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.data, dtype=torch.float32)[order] / 16, torch.tensor(data.target)[order]


def train(path, plant=(), rescue=False, seed=0, steps=STEPS, meta=None):
    """Train, record, and return the final validation loss; the same run is trained once, and recorded again."""
    run = (tuple(plant), rescue, seed, steps, str(meta))
    if run in _trained:
        val_loss, files = _trained[run]
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
    else:
        val_loss = _train(path, plant, rescue, seed, steps, meta)
        _trained[run] = val_loss, {file.name: file.read_bytes() for file in path.iterdir()}
    return val_loss


def _train(path, plant, rescue, seed, steps, meta):
    torch.manual_seed(seed)
    inputs, labels = digits()
    train_x, train_y, val_x, val_y = inputs[:1400], labels[:1400], inputs[1400:], labels[1400:]
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    scheduler = GreedyLR(
        optimizer,
        total_steps=steps,
        max_scale=5.0,
        decade_steps=steps // 5,
        anneal=0.4,
        config=DefaultConfig(polyak=math.inf),
    )
    batches = torch.Generator().manual_seed(seed)
    loss_of = torch.nn.functional.cross_entropy
    with Recorder(path, scheduler, meta={"task": "digits", "seed": seed, **(meta or {})}) as recorder:
        saver = Rescue(model, optimizer, scheduler, every=100, recorder=recorder) if rescue else None
        for step in range(1, steps + 1):
            rows = torch.randint(0, 1400, (64,), generator=batches)
            x, y = train_x[rows], train_y[rows]
            if "disruption" in plant and DISRUPTION <= step < DISRUPTION + 10:
                x = -4 * x
            if "shard" in plant and step >= SHARD:
                x = x + 0.35 * torch.randn(x.shape, generator=batches)
            loss = loss_of(model(x), y)
            if "nan" in plant and step == NAN:
                loss = loss * float("nan")
            optimizer.zero_grad()
            loss.backward()
            norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
            optimizer.step()
            scheduler.step(loss, composition={"ones": int((y == 1).sum())})
            recorder.log(grad_norm=norm)
            if saver is not None:
                saver.step()
            if step % 100 == 0:
                with torch.no_grad():
                    val_loss = float(loss_of(model(val_x), val_y))
                recorder.log(val_loss=val_loss)
    return val_loss
