"""What the gradient promises: how far the loss would fall in one optimizer step."""

import copy
import gc
import io
import json
import math
import weakref

import pytest
import torch
from torch import Tensor

from greedylr import Action, DefaultConfig, GreedyLR
from greedylr.torch.gradient import Slope, is_round, norm_order

ADAMS = ["Adam", "AdamW", "NAdam", "RAdam", "Adamax"]
OTHERS = ["Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD", "Adafactor", "LBFGS"]
OTHERS = [name for name in OTHERS if hasattr(torch.optim, name)]  # Adafactor from torch 2.5 on


def weights(*sizes, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)) for size in sizes]


def slope_of(optimizer, lrs):
    slope = Slope(optimizer, lambda: lrs)
    slope.listens = True
    return slope


def linear(parts, slopes):
    """A loss that falls as steeply everywhere as it begins to."""
    return sum((part * steepness).sum() for part, steepness in zip(parts, slopes))


@pytest.mark.parametrize("name", ADAMS)
def test_adams_first_step_lowers_the_loss_by_the_slope(name):
    """As it moves every weight by the learning rate; RAdam does so in the end."""
    parts, steep = weights(5, (3, 2)), [one.detach() for one in weights(5, (3, 2), seed=1)]
    optimizer = getattr(torch.optim, name)(parts, lr=0.01, weight_decay=0.0)
    slope = slope_of(optimizer, [0.01])
    losses = []
    for _ in range(1 if name != "RAdam" else 3000):
        optimizer.zero_grad()
        loss = linear(parts, steep)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        told = slope.number()
    assert told == pytest.approx(0.01 * sum(one.abs().sum().item() for one in steep), rel=1e-6)
    assert losses[-1] - linear(parts, steep).item() == pytest.approx(told, rel=0.06 if name != "RAdam" else 0.2)


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.5, "dampening": 0.25}],
    ids=str,
)
def test_sgd_lowers_the_loss_by_the_slope(settings):
    """Once its momentum has built up."""
    parts, steep = weights(5, (3, 2)), [one.detach() for one in weights(5, (3, 2), seed=1)]
    optimizer = torch.optim.SGD(parts, lr=0.01, **settings)
    slope = slope_of(optimizer, [0.01])
    for _ in range(200):
        optimizer.zero_grad()
        loss = linear(parts, steep)
        loss.backward()
        optimizer.step()
    told = slope.number()
    assert loss.item() - linear(parts, steep).item() == pytest.approx(told, rel=1e-4)


def test_every_group_counts_with_its_own_initial_learning_rate():
    one, other = weights(4, 3)
    groups = [{"params": [one], "lr": 0.5, "momentum": 0.5}, {"params": [other], "lr": 0.25}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    slope = slope_of(optimizer, [0.5, 0.25])
    one.grad, other.grad = torch.randn(4), torch.randn(3)
    optimizer.param_groups[0]["lr"] = 1e-9  # What it is now does not matter.
    optimizer.step()
    wanted = 0.5 / (1 - 0.5) * one.grad.square().sum() + 0.25 * other.grad.square().sum()
    assert slope.number() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_of_other_optimizers_nothing_is_known(name):
    parts = weights(5)
    optimizer = getattr(torch.optim, name)(parts)
    assert norm_order(optimizer) is None
    slope = slope_of(optimizer, [0.1])
    assert not optimizer._optimizer_step_post_hooks
    assert math.isnan(slope.number())


def test_what_is_derived_counts_as_what_it_is_derived_from():
    class Own(torch.optim.AdamW):
        pass

    class Lion(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 0.1})

    assert (norm_order(Own(weights(1))), norm_order(Lion(weights(1)))) == (1, 1)


def stepped(parts, gradients, **settings):
    optimizer = torch.optim.SGD(parts, lr=0.1, **settings)
    slope = slope_of(optimizer, [0.1])
    for part, gradient in zip(parts, gradients):
        part.grad = gradient
    optimizer.step()
    return slope.number()


def test_nothing_is_known():
    assert math.isnan(stepped(weights(2), [torch.tensor([0.3, 0.7])], maximize=True))
    sparse = torch.sparse_coo_tensor([[1]], [0.3], (2,), check_invariants=True)
    assert math.isnan(stepped(weights(2), [sparse]))
    assert math.isnan(stepped([torch.nn.Parameter(torch.zeros(2, dtype=torch.cfloat))], [torch.randn(2).cfloat()]))
    assert math.isnan(stepped(weights(2), []))
    assert math.isnan(stepped(weights(2), [torch.tensor([math.nan, 1.0])]))
    assert stepped(weights(2), [torch.tensor([math.inf, 1.0])]) == math.inf
    # A rank that has a part of a weight, and does not know.
    (part,) = weights(2)
    part._fsdp_flattened = True
    assert math.isnan(stepped([part], [torch.tensor([0.3, 0.7])]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_neither_overflows_nor_stops_counting(dtype):
    parts = weights(100_000, dtype=dtype)
    optimizer = torch.optim.AdamW(parts, lr=1e-6)
    slope = slope_of(optimizer, [1.0])
    parts[0].grad = torch.full((100_000,), 3.1415, dtype=dtype)
    optimizer.step()
    assert slope.number() == pytest.approx(314_150, rel=2e-3)


def test_a_clipped_gradient_does_not_tell_its_norm():
    torch.manual_seed(0)
    for most in (1.0, 0.5, 0.25, 10.0, 0.01):
        parts = weights(1000, (30, 30))
        optimizer = torch.optim.AdamW(parts)
        slope = slope_of(optimizer, [0.1])
        for part in parts:
            part.grad = torch.randn_like(part) * 100
        torch.nn.utils.clip_grad_norm_(parts, most)
        optimizer.step()
        assert math.isnan(slope.number())
        torch.nn.utils.clip_grad_norm_(parts, 2 * most)  # nothing to clip, and the norm is no round number
        parts[0].grad.mul_(0.77)
        optimizer.step()
        assert slope.number() > 0


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
@pytest.mark.parametrize("of", [float, torch.detach, lambda norm: norm.double()])
def test_a_clipped_gradient_is_heard_if_its_norm_is_told(kind, of):
    """Adam divides by what it has clipped, so that its steps stay what they were; those of SGD are shorter."""
    slopes = []
    for most in (math.inf, 0.5):
        parts = weights(1000, (30, 30))
        optimizer = getattr(torch.optim, kind)(parts)
        slope = slope_of(optimizer, [0.1])
        for part, gradient in zip(parts, weights(1000, (30, 30), seed=3)):
            part.grad = gradient.detach().clone()
        norm = torch.nn.utils.clip_grad_norm_(parts, most)
        optimizer.step()
        slopes.append(slope.number(of(norm)))
    shorter = 1.0 if kind == "AdamW" else 0.5 / norm.item()
    assert slopes[1] == pytest.approx(slopes[0] * shorter, rel=1e-4)


def test_the_norm_is_told_to_step():
    rates = []
    for told in (True, False):
        parts = weights(50)
        optimizer = torch.optim.AdamW(parts, lr=300.0)
        scheduler = GreedyLR(optimizer, warmup_steps=0)
        for _ in range(3):
            loss = parts[0].square().mean()
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parts, 1e-3)
            optimizer.step()
            scheduler.step(loss, grad_norm=norm if told else None)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] < rates[1] == 300.0


def test_a_norm_that_is_no_number_is_refused():
    parts = weights(4)
    scheduler = GreedyLR(torch.optim.SGD(parts, lr=0.1))
    parts[0].grad = torch.randn(4)
    scheduler.optimizer.step()
    with pytest.raises(TypeError, match="grad_norm must be a number or a tensor with one element, got 'high'"):
        scheduler.step(1.0, grad_norm="high")
    scheduler.step(1.0)  # as if it had not been tried
    assert scheduler.state_dict()["state"]["slope"] > 0


def test_an_optimizer_that_wraps_another_is_heard_through_it():
    class Wraps(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

        @property
        def param_groups(self):
            return self.optimizer.param_groups

        def step(self):
            self.optimizer.step()

    parts = weights(4)
    wrapping = Wraps(torch.optim.SGD(parts, lr=0.1))
    slope = slope_of(wrapping, [0.1])
    parts[0].grad = torch.tensor([0.3, 0.7, 0.11, 0.13])
    wrapping.step()
    assert slope.number() == pytest.approx(0.1 * parts[0].grad.square().sum().item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", [(4096,), (4097,), (3, 5000, (70, 80)), (2**20 + 5, 7)], ids=str)
def test_large_gradients_are_summed_up_as_small_ones_are(sizes, dtype):
    parts = weights(*sizes, dtype=dtype)
    for part, steep in zip(parts, weights(*sizes, seed=1, dtype=dtype)):
        part.grad = steep.detach().clone(memory_format=torch.contiguous_format)
        if part.dim() == 2:  # Not contiguous, as the gradient of a transposed weight.
            part.grad = part.grad.t().contiguous().t()
    slope = slope_of(optimizer := torch.optim.Adam(parts, lr=0.01, foreach=False), [0.01])
    expected = 0.01 * sum(part.grad.double().abs().sum().item() for part in parts)
    optimizer.step()
    assert slope.number() == pytest.approx(expected, rel=1e-6)
    parts[-1].grad[0] = math.nan
    optimizer.step()
    assert math.isnan(slope.number())


def test_few_norms_are_round_by_chance():
    norms = torch.rand(100_000, generator=torch.Generator().manual_seed(0)).mul(20).exp()
    assert 0.001 < is_round(norms).float().mean() < 0.02
    odd = torch.tensor([0.0, math.inf, math.nan, 1e-45, 3e38])
    assert not is_round(odd)[:3].any()
    assert is_round(torch.tensor([1.0, 0.5, 125.0, 1e-6])).all()


def test_a_step_with_a_closure_is_heard():
    parts = weights(4)
    optimizer = torch.optim.SGD(parts, lr=0.1)
    slope = slope_of(optimizer, [0.1])
    seen = []

    def closure():
        optimizer.zero_grad()
        loss = parts[0].square().sum()
        loss.backward()
        seen.append(0.1 * parts[0].grad.square().sum().item())
        return loss

    for _ in range(3):
        optimizer.step(closure)
        assert slope.number() == pytest.approx(seen[-1], rel=1e-6)


def test_accumulated_gradients_count_as_one():
    parts = weights(4)
    optimizer = torch.optim.SGD(parts, lr=0.1)
    slope = slope_of(optimizer, [0.1])
    for _ in range(4):
        (parts[0].square().sum() / 4).backward()
    assert slope.peek() is None
    wanted = 0.1 * (2 * parts[0].detach()).square().sum().item()
    optimizer.step()
    assert slope.number() == pytest.approx(wanted, rel=1e-6)
    assert math.isnan(slope.number())  # There was no other step.


@pytest.mark.parametrize("fused", [False, True])
def test_scaled_gradients_are_heard_as_they_are(fused):
    parts = weights(4)
    optimizer = torch.optim.AdamW(parts, lr=1e-3, fused=fused)
    slope = slope_of(optimizer, [0.1])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for bad in (False, True):
        optimizer.zero_grad()
        wanted = 0.1 * (2 * parts[0].detach()).abs().sum().item()
        scaler.scale(parts[0].square().sum() * (math.inf if bad else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        told = slope.number()
        assert not math.isfinite(told) if bad else told == pytest.approx(wanted, rel=1e-5)


# Through the scheduler.


def train(scheduler, parts, steps, seed=0):
    """A noisy quadratic."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = scheduler.optimizer
    for _ in range(steps):
        loss = (parts[0] - 0.1 * torch.randn(parts[0].shape, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step(loss)
    return optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_finds_its_way_from_learning_rates_that_are_far_off(kind):
    """Far too high is held down; far too low catches up, and ends far lower than the schedule alone."""
    for lr, action in ((300.0, Action.LIMITED), (1e-5, Action.CATCHING_UP)):
        ends = []
        for polyak, headroom, catch_up in ((2.0, 5.0, None), (math.inf, 5.0, 0)):
            parts = weights(50)
            optimizer = getattr(torch.optim, kind)(parts, lr=lr, weight_decay=0.0)
            scheduler = GreedyLR(
                optimizer,
                total_steps=400,
                max_scale=1e6,
                config=DefaultConfig(polyak=polyak, headroom=headroom, catch_up_steps=catch_up),
            )
            seen = []
            scheduler.subscribe(lambda decision, seen=seen: seen.append(decision.action))
            train(scheduler, parts, 400)
            ends.append(parts[0].detach().square().mean().item())
            assert (action in seen) == (polyak < math.inf)
        assert ends[0] < 0.1
        assert lr > 1 or ends[0] < ends[1] / 4


def test_is_not_measured_where_it_is_not_heard(monkeypatch):
    def refuse(*_):
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(Slope, "_measure", refuse)
    for make in (
        lambda optimizer: GreedyLR(optimizer, mode="max"),
        lambda optimizer: GreedyLR(optimizer, config=DefaultConfig(polyak=math.inf, catch_up_steps=0)),
        GreedyLR.paper,
        GreedyLR.core,
    ):
        parts = weights(3)
        train(make(torch.optim.SGD(parts, lr=0.1)), parts, 3)
    parts = weights(3)
    scheduler = GreedyLR(torch.optim.SGD(parts, lr=0.1), level_by="domain")
    parts[0].square().sum().backward()
    scheduler.optimizer.step()
    scheduler.step(1.0, composition={"domain": "one"})


def test_a_watched_scheduler_hears_the_same():
    rates = []
    for watch in (False, True):
        parts = weights(20)
        scheduler = GreedyLR(torch.optim.AdamW(parts, lr=1e-4), total_steps=200)
        if watch:
            scheduler.subscribe(lambda decision: None)
        rates.append(train(scheduler, parts, 120))
        assert scheduler.state_dict()["state"]["slope"] > 0
    assert rates[0] == rates[1]


def test_every_kind_of_loss_goes_with_its_slope():
    states = []
    for kind in (Tensor.item, torch.detach, lambda loss: loss.detach().double()):
        parts = weights(20)
        scheduler = GreedyLR(torch.optim.AdamW(parts, lr=1e-4), average_ranks=False)
        for _ in range(30):
            loss = parts[0].square().mean()
            scheduler.optimizer.zero_grad()
            loss.backward()
            scheduler.optimizer.step()
            scheduler.step(kind(loss))
        states.append(scheduler.state_dict()["state"])
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state dict"])
@pytest.mark.parametrize("between", [False, True])
def test_goes_on_hearing_after_a_checkpoint(how, between):
    """Also one that is taken after the optimizer's step and before the scheduler's."""
    parts = weights(20)
    scheduler = GreedyLR(torch.optim.AdamW(parts, lr=1e-4), total_steps=100)
    train(scheduler, parts, 40)
    loss = parts[0].square().mean()
    if between:
        scheduler.optimizer.zero_grad()
        loss.backward()
        scheduler.optimizer.step()
    if how == "deepcopy":
        other = copy.deepcopy(scheduler)
    elif how == "pickle":
        buffer = io.BytesIO()
        torch.save(scheduler, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    else:
        again = torch.optim.AdamW([torch.nn.Parameter(parts[0].detach().clone())], lr=1e-4)
        again.load_state_dict(copy.deepcopy(scheduler.optimizer.state_dict()))
        other = GreedyLR(again, total_steps=100)
        other.load_state_dict(json.loads(json.dumps(scheduler.state_dict(), allow_nan=False)))
    ends = []
    for one in (scheduler, other):
        mine = one.optimizer.param_groups[0]["params"]
        if between:
            one.step(loss.item())
        ends.append((train(one, mine, 40), one.state_dict()["state"], mine[0].tolist()))
    assert ends[0] == ends[1]
    assert ends[0][1]["slope"] > 0


def test_a_scheduler_that_is_gone_is_not_held():
    parts = weights(3)
    optimizer = torch.optim.SGD(parts, lr=0.1)
    gone = weakref.ref(GreedyLR(optimizer))
    gc.collect()
    assert gone() is None
    scheduler = GreedyLR(optimizer)
    train(scheduler, parts, 3)
    assert scheduler.state_dict()["state"]["slope"] > 0


def test_learning_rates_set_by_hand_begin_anew():
    parts = weights(20)
    scheduler = GreedyLR(torch.optim.SGD(parts, lr=0.1), warmup_steps=0)
    train(scheduler, parts, 10)
    scheduler.optimizer.param_groups[0]["lr"] = 0.01
    scheduler.step(1.0)
    assert scheduler.state_dict()["state"]["slope"] == 0.0
    train(scheduler, parts, 1)
    assert scheduler.state_dict()["state"]["slope"] > 0.0


@pytest.mark.cuda
def test_no_step_waits_for_the_device():
    parts = [torch.nn.Parameter(torch.randn(1000, device="cuda"))]
    scheduler = GreedyLR(torch.optim.AdamW(parts, lr=1e-4))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(10):
            loss = parts[0].square().mean()
            scheduler.optimizer.zero_grad()
            loss.backward()
            scheduler.optimizer.step()
            scheduler.step(loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert scheduler.state_dict()["state"]["slope"] > 0
