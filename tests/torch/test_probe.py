"""A probe finds a learning rate and leaves no trace."""

import copy
import math
import random
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from greedylr import GreedyLR, probe
from greedylr.control import sweep

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
    "capturable": lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(1e-3), capturable=False),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(8, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(32, 1)
    )


def pairs(count=512):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 8, generator=generator)
    return TensorDataset(inputs, inputs.norm(dim=1, keepdim=True))


def loss_fn(model, batch):
    inputs, targets = batch
    return (model(inputs) - targets).square().mean()


def train(model, optimizer, loader, steps=20):
    """Everything that a training depends on, in what it comes to."""
    losses = []
    for batch in islice(loader, steps):
        loss = loss_fn(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, random.random(), float(np.random.rand()), torch.rand(1).item()


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_after_a_probe_is_training_without_one(name, begun):
    def run(probed):
        model = network()
        optimizer = OPTIMIZERS[name](model.parameters())
        generator = torch.Generator().manual_seed(2)
        loader = DataLoader(pairs(), batch_size=16, shuffle=True, generator=generator)
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)
        if begun:
            train(model, optimizer, loader, 1)
        state, gradients = copy.deepcopy(model.state_dict()), [weight.grad for weight in model.parameters()]
        if probed:
            found = probe(model, optimizer, loss_fn, loader, sweeps=2)
            assert found.scale != 1
            assert all(now is before for now, before in zip([weight.grad for weight in model.parameters()], gradients))
            assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
            assert len(optimizer.state) == (len(gradients) if begun or name == "adagrad" else 0)
        return train(model, optimizer, loader), float(optimizer.param_groups[0]["lr"])

    assert run(probed=True) == run(probed=False)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_everything_is_put_back_when_it_breaks_off(error):
    model = network()
    model[1].eval()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    before = copy.deepcopy(model.state_dict())
    seen = 0

    def breaks(model, batch):
        nonlocal seen
        seen += 1
        model.train()
        if seen == 70:
            raise error("now")
        return loss_fn(model, batch)

    torch.manual_seed(5)
    state = torch.get_rng_state()
    with pytest.raises(error, match="now"):
        probe(model, optimizer, breaks, DataLoader(pairs(), batch_size=16))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert (not optimizer.state, optimizer.param_groups[0]["lr"]) == (True, 1e-3)
    assert (model.training, model[1].training) == (True, False)
    assert torch.equal(torch.get_rng_state(), state)


def quadratic(curvature=1.0, noise=0.0):
    """SGD on it is stable up to a learning rate of 2 / curvature."""
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    model = torch.nn.Module()
    model.weight = weight

    def loss(model, batch):
        return 0.5 * curvature * model.weight.square().sum() + noise * batch * model.weight.sum()

    return model, loss, [float(x) for x in np.random.default_rng(0).standard_normal(1000)]


@settings(max_examples=10, deadline=None)
@given(st.floats(-4, 4), st.floats(-1.5, 1.5))
def test_it_follows_the_curvature_and_not_the_first_guess(log_curvature, log_guess):
    curvature = 10**log_curvature
    model, loss, batches = quadratic(curvature, noise=0.3 * curvature)
    optimizer = torch.optim.SGD(model.parameters(), lr=10**log_guess / curvature)
    found = probe(model, optimizer, loss, batches, sweeps=2)
    assert 0.02 / curvature < found.lr < 1 / curvature
    assert found.low <= found.high
    assert found.scale == pytest.approx(found.lr / optimizer.param_groups[0]["lr"])


def test_groups_keep_their_ratio_and_one_scale_is_for_all():
    model = network()
    groups = [{"params": model[0].parameters()}, {"params": model[4].parameters(), "lr": 1e-4}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    ratios = []

    def watches(model, batch):
        first, second = optimizer.param_groups
        ratios.append(second["lr"] / first["lr"])
        return loss_fn(model, batch)

    found = probe(model, optimizer, watches, DataLoader(pairs(), batch_size=16), sweeps=1)
    assert ratios == pytest.approx([0.1] * len(ratios))
    assert found.lr == pytest.approx(1e-3 * found.scale)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-4]


def test_the_curves_are_those_of_the_sweeps():
    model = network()
    found = probe(model, OPTIMIZERS["adamw"](model.parameters()), loss_fn, DataLoader(pairs(), batch_size=16))
    assert len(found.losses) == 3
    assert len({losses[20] for losses in found.losses}) == 3, "each with other batches"
    assert found.lrs[0] == pytest.approx(1e-6)
    assert found.lrs[25] == pytest.approx(1e-5)
    assert found.low <= found.high
    smoothed = [loss for loss in found.smoothed if math.isfinite(loss)][8:]
    enough = smoothed[0] - 0.98 * (smoothed[0] - min(smoothed))
    assert found.lr == pytest.approx(found.lrs[8 + next(n for n, loss in enumerate(smoothed) if loss <= enough)] / 3)
    assert str(found) == f"learning rate {found.lr:.2g}, sweeps alone from {found.low:.2g} to {found.high:.2g}"
    figure = found.plot()
    assert [trace.name for trace in figure.data] == ["sweep 1", "sweep 2", "sweep 3", "smoothed"]
    assert list(figure.data[0].y) == list(found.losses[0])
    assert figure.layout.annotations[0].x == pytest.approx(math.log10(found.lr))
    low, high = figure.layout.yaxis.range
    assert low < min(smoothed) < smoothed[0] < high


def test_a_scaler_is_used_and_put_back():
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=5)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    before = scaler.state_dict()
    scales = []

    def watches(model, batch):
        scales.append(scaler.get_scale())
        return loss_fn(model, batch)

    probe(model, optimizer, watches, DataLoader(pairs(), batch_size=16), sweeps=1, scaler=scaler)
    assert max(scales) > 2.0**16
    assert scaler.state_dict() == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lowest": 0}, "lowest must be a number with 0 < lowest < inf, got 0"),
        ({"highest": 0.005}, "highest must be a finite number of at least 10 \\* lowest, got 0.005 and 0.001"),
        ({"decade_steps": 7}, "decade_steps must be an integer of at least 8, got 7"),
        ({"sweeps": 0}, "sweeps must be an integer of at least 1, got 0"),
        ({"sweeps": True}, "sweeps must be an integer of at least 1, got True"),
    ],
)
def test_bad_arguments_are_named(settings, said):
    model, loss, batches = quadratic()
    with pytest.raises(ValueError, match=said):
        probe(model, torch.optim.SGD(model.parameters(), lr=0.1), loss, batches, **settings)


def test_where_nothing_can_be_told_it_says_so():
    model, loss, batches = quadratic()

    def sgd(lr=0.1):
        return torch.optim.SGD(model.parameters(), lr=lr)

    with pytest.raises(ValueError, match=r"still fell at 1 times the initial learning rate: .* highest=1e\+03"):
        probe(model, sgd(1e-3), loss, batches, highest=1.0)
    with pytest.raises(ValueError, match=r"exploded or was not finite after .* steps, .* lowest=1e-06"):
        probe(model, sgd(1e6), loss, batches)
    with pytest.raises(ValueError, match=r"did not fall by more than its noise at any learning rate from 0\.001 to"):
        probe(model, sgd(), lambda model, batch: 0 * model.weight.sum() + 1 + batch, batches)
    with pytest.raises(ValueError, match=r"was not finite after 0 steps, at 0\.001 times"):
        probe(model, sgd(), lambda model, batch: math.nan * model.weight.sum(), batches)
    with pytest.raises(ValueError, match="batches are empty, or ran out"):
        probe(model, sgd(), loss, [])
    with pytest.raises(ValueError, match="batches are empty, or ran out"):
        probe(model, sgd(), loss, iter(batches[:50]))
    with pytest.raises(ValueError, match="above 0 as a first guess: 0"):
        probe(model, sgd(0.0), loss, batches)
    lazy = torch.nn.LazyLinear(1)
    with pytest.raises(ValueError, match="lazy parameters: run it once"):
        probe(lazy, torch.optim.SGD(lazy.parameters(), lr=0.1), loss_fn, DataLoader(pairs(), batch_size=16))
    optimizer = sgd()
    GreedyLR(optimizer)
    with pytest.raises(ValueError, match="probe first, then build the scheduler"):
        probe(model, optimizer, loss, batches)


@pytest.mark.parametrize("smallest", [0.3, 1e-5, 40.0])
def test_reading_finds_the_lowest_of_the_smoothed_losses(smallest):
    scales = sweep.scales(smallest, smallest * 1e4, 20)
    valley = [1 + 0.3 * (math.log10(scale / smallest) - 2) ** 2 for scale in scales]
    found = sweep.read(scales, [valley, valley], 20)
    # 98 % of the fall are reached a seventh of the way before the lowest; smoothing lags three steps of twenty behind.
    assert 1.75 <= math.log10(found.scale * 3 / smallest) <= 2.05
    assert found.low == found.high == found.scale


def test_a_problem_that_is_solved_on_the_way_is_not_answered_with_the_highest():
    scales = sweep.scales(1e-3, 1e3, 25)
    solved = [max(1e-9, 2 - 0.02 * max(0, step - 40)) for step in range(len(scales))]
    found = sweep.read(scales, [solved], 25)
    assert found.scale * 3 == pytest.approx(scales[144], rel=0.5)
    assert found.scale * 3 < scales[149]


def test_a_sweep_ends_at_the_first_loss_that_is_not_finite_or_far_above_the_start():
    flat = [1.0] * 12
    assert not sweep.is_over(flat, 25)
    assert sweep.is_over([*flat, math.nan], 25)
    assert sweep.is_over([math.inf], 25)
    over = [*flat]
    while not sweep.is_over(over, 25):
        over.append(8.0)
    assert len(over) == 12 + 2, "8 - 7 (3/4)² > 4"
    assert not sweep.is_over([*[-1.0] * 12, 3.0, 3.0], 25)


def test_noise_alone_is_seldom_taken_for_a_fall():
    scales = sweep.scales(1e-3, 1e3, 25)
    told = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        losses = [list(2 + 0.3 * generator.standard_normal(len(scales))) for _ in range(3)]
        try:
            sweep.read(scales, losses, 25)
        except ValueError:
            continue
        told += 1
    assert told <= 25


RANK = """
import os, sys
import torch
import torch.distributed as dist
from greedylr import probe

rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
generator = torch.Generator().manual_seed(rank)
batches = [torch.randn(16, 4, generator=generator) for _ in range(100)]
if rank:
    batches = [batch * 1.5 for batch in batches]
found = probe(
    model,
    torch.optim.SGD(model.parameters(), lr=0.01),
    lambda model, batch: (model(batch) - batch.sum(1, keepdim=True)).square().mean(),
    batches,
)
print(found.lr.hex(), [len(losses) for losses in found.losses], flush=True)
dist.barrier()
os._exit(0)
"""


def test_ranks_end_their_sweeps_together_and_find_the_same(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path / "store"), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert said[0][0] == said[1][0]
