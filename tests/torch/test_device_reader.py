"""Losses on a device: acted on exactly one step later, without a wait; or now, if asked for.

Without CUDA, a tensor stands in that says it is on a device and counts how often its value is asked for.
"""

import contextlib
import copy
import json
import math
import random

import pytest
import torch

from greedylr import DefaultConfig, GreedyLR
from greedylr.torch.device_reader import DeferredReader, Observed, observed


class OnDevice(torch.Tensor):
    """A tensor of an accelerator that is not there: every read of its value is one wait for the device."""

    waits = 0

    @property
    def device(self):
        return torch.device("xpu")

    def __float__(self):
        OnDevice.waits += 1
        return float(self.as_subclass(torch.Tensor))


DEVICES = ["stand-in", pytest.param("cuda", marks=pytest.mark.cuda)]
devices = pytest.mark.parametrize("device", DEVICES)


def put(loss, device):
    if device == "cuda":
        return torch.tensor(loss, device="cuda")
    return torch.tensor(loss).as_subclass(OnDevice)


def sgd(lr=0.1):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def lr_of(scheduler):
    return scheduler.optimizer.param_groups[0]["lr"]


def losses_of(scheduler):
    seen = []
    scheduler.subscribe(lambda decision: seen.append(decision.loss))
    return seen


def random_losses(n, seed=0):
    r = random.Random(seed)
    # Multiples of 1/8: the same numbers in float32.
    return [
        math.nan if r.random() < 0.03 else round(8 * (3 + math.sin(k / 20) + r.gauss(0, 0.3))) / 8 for k in range(n)
    ]


@devices
def test_acts_exactly_one_step_later(device):
    scheduler = GreedyLR(sgd())
    seen = losses_of(scheduler)
    for step in range(1, 6):
        scheduler.step(put(float(step), device))
        assert seen == [float(k) for k in range(1, step)]
        assert scheduler.last_epoch == step - 1


@devices
@pytest.mark.parametrize(
    "make",
    [
        GreedyLR,
        lambda optimizer: GreedyLR(optimizer, warmup_steps=0, config=DefaultConfig(window=20)),
        lambda optimizer: GreedyLR.paper(optimizer, patience=2),
    ],
    ids=["climb", "windows", "paper"],
)
def test_the_decisions_are_those_of_the_host_one_step_later(device, make):
    ahead, behind = make(sgd()), make(sgd())
    before = lr_of(ahead)
    for loss in random_losses(300):
        behind.step(put(loss, device))
        assert lr_of(behind) == before
        ahead.step(loss)
        before = lr_of(ahead)
    assert before != 0.1


@devices
def test_now_acts_at_once(device):
    scheduler = GreedyLR(sgd(), read="now")
    seen = losses_of(scheduler)
    scheduler.step(put(1.0, device))
    scheduler.step(put(2.0, device))
    assert seen == [1.0, 2.0]


@devices
def test_the_loss_may_be_overwritten_after_the_step(device):
    """As a captured graph does with its outputs."""
    scheduler = GreedyLR(sgd())
    seen = losses_of(scheduler)
    loss = put(1.0, device)
    scheduler.step(loss)
    loss.fill_(5.0)
    scheduler.step(loss)
    loss.fill_(7.0)
    scheduler.step(2.0)
    assert seen == [1.0, 5.0, 2.0]


@devices
def test_losses_on_the_host_in_between_come_in_order(device):
    scheduler = GreedyLR(sgd())
    seen = losses_of(scheduler)
    scheduler.step(1.0)
    scheduler.step(put(2.0, device))
    assert seen == [1.0]
    scheduler.step(3.0)
    assert seen == [1.0, 2.0, 3.0]
    scheduler.step(torch.tensor(4.0))
    scheduler.step(put(5.0, device))
    scheduler.step(put(6.0, device))
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0]


@devices
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_shapes_and_graphs(device, shape):
    scheduler = GreedyLR(sgd())
    seen = losses_of(scheduler)
    weight = torch.ones(shape, requires_grad=True)
    loss = weight.to("cuda") * 3 if device == "cuda" else (weight * 3).as_subclass(OnDevice)
    scheduler.step(loss)
    scheduler.step(loss)
    assert seen == [3.0]
    loss.sum().backward()
    assert weight.grad.item() == 1 * 3


@devices
@pytest.mark.parametrize("loss", [1.5, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("copied", ["state dict", "deepcopy"])
def test_a_loss_on_its_way_is_in_the_checkpoint(device, loss, copied):
    scheduler = GreedyLR(sgd())
    seen = losses_of(scheduler)
    scheduler.step(put(loss, device))
    if copied == "deepcopy":
        resumed = copy.deepcopy(scheduler)
    else:
        resumed = GreedyLR(sgd())
        resumed.load_state_dict(json.loads(json.dumps(scheduler.state_dict(), allow_nan=False)))
    resumed_seen = losses_of(resumed)
    scheduler.step(put(2.0, device))
    resumed.step(put(2.0, device))
    assert list(map(repr, seen)) == list(map(repr, resumed_seen)) == [repr(loss)]
    scheduler.step(3.0)
    resumed.step(3.0)
    assert list(map(repr, seen)) == list(map(repr, resumed_seen)) == [repr(loss), "2.0", "3.0"]


@devices
def test_a_checkpoint_at_any_step_resumes_exactly(device):
    losses = random_losses(120)
    for cut in (1, 19, 20, 21, 60):
        straight, resumed = GreedyLR(sgd(), config=DefaultConfig(window=5)), GreedyLR(sgd())
        for loss in losses[:cut]:
            straight.step(put(loss, device))
        resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
        assert lr_of(resumed) == lr_of(straight)
        for loss in losses[cut:]:
            straight.step(put(loss, device))
            resumed.step(put(loss, device))
            assert lr_of(resumed) == lr_of(straight)
        assert resumed.state_dict() == straight.state_dict()


def test_a_float_does_not_overtake_a_loss_of_the_device():
    """On the fast path, where nobody watches."""
    scheduler = GreedyLR(sgd(), warmup_steps=0)
    scheduler.step(0.0)
    scheduler.step(put(1.0, "stand-in"))
    scheduler.step(2.0)
    scheduler.step(3.0)
    assert scheduler.state_dict()["state"]["losses"] == [0.0, 1.0, 2.0, 3.0]


def test_a_float_after_resuming_waits_for_the_loss_before_it():
    """The fast path must not overtake a loss that came with the checkpoint."""
    scheduler = GreedyLR(sgd(), warmup_steps=0)
    scheduler.step(put(1.0, "stand-in"))
    resumed = GreedyLR(sgd())
    resumed.load_state_dict(scheduler.state_dict())
    resumed.step(2.0)
    resumed.step(3.0)
    assert resumed.state_dict()["state"]["losses"] == [1.0, 2.0, 3.0]


def test_loading_drops_a_loss_that_was_on_its_way():
    scheduler = GreedyLR(sgd(), warmup_steps=0)
    clean = scheduler.state_dict()
    scheduler.step(put(1.0, "stand-in"))
    scheduler.load_state_dict(clean)
    scheduler.step(2.0)
    assert scheduler.state_dict()["state"]["losses"] == [2.0]


def test_waits_are_counted():
    """One read for each loss, of the one before; the stand-in would notice a second."""
    OnDevice.waits = 0
    scheduler = GreedyLR(sgd())
    for step in range(10):
        scheduler.step(put(1.0, "stand-in"))
        assert OnDevice.waits == step
    scheduler.state_dict()
    scheduler.state_dict()
    assert OnDevice.waits == 10


def test_reader():
    reader = DeferredReader()
    assert reader.peek() is reader.take() is None
    one, other = Observed(1.0, 0.5), Observed(2.0, 0.25)
    reader.put(put([1.0, 0.5], "stand-in"), observed)
    assert (reader.peek(), reader.peek(), reader.take(), reader.take()) == (one, one, one, None)
    reader.restore(other)
    assert (reader.peek(), reader.take(), reader.peek()) == (other, other, None)


def test_a_loss_without_a_slope():
    assert repr(observed([1.0])) == "Observed(loss=1.0, slope=nan)"
    assert observed([1.0, 0.5]) == (1.0, 0.5)


@contextlib.contextmanager
def no_synchronisation():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_no_step_waits_for_the_device(tensor_lr, watched):
    model = torch.nn.Linear(64, 64).cuda()
    lr = torch.tensor(1e-3, device="cuda") if tensor_lr else 1e-3
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, capturable=tensor_lr)
    scheduler = GreedyLR(optimizer, config=DefaultConfig(window=5))
    if watched:
        scheduler.subscribe(lambda decision: None)
    x = torch.randn(32, 64, device="cuda")
    losses = []
    for step in range(60):
        with no_synchronisation() if step else contextlib.nullcontext():  # the first step allocates
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step(loss)
        losses.append(loss.detach())
    if tensor_lr:
        assert optimizer.param_groups[0]["lr"] is lr
    host = GreedyLR(sgd(1e-3), config=DefaultConfig(window=5))
    for loss in losses[:-1]:
        host.step(loss.item())
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(lr_of(host), rel=1e-6)
    assert lr_of(host) != 1e-3


@pytest.mark.cuda
def test_now_does_wait():
    """So the debug mode above does see a wait."""
    scheduler = GreedyLR(sgd(), read="now")
    with pytest.raises(RuntimeError, match="synchroniz"), no_synchronisation():
        scheduler.step(put(1.0, "cuda"))


@pytest.mark.cuda
def test_a_device_that_is_behind_is_not_misread():
    """The value is that of the loss, not what the host buffer held before the device got there."""
    scheduler = GreedyLR(sgd())
    seen = losses_of(scheduler)
    matrix = torch.randn(4096, 4096, device="cuda")
    for step in range(5):
        for _ in range(20):
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        scheduler.step(matrix.sum() * 0 + step)
    assert seen == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.cuda
def test_another_stream():
    scheduler = GreedyLR(sgd())
    seen = losses_of(scheduler)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for step in range(5):
            scheduler.step(put(float(step), "cuda"))
    assert seen == [0.0, 1.0, 2.0, 3.0]
