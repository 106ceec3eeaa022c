"""The rule on tensors."""

import math
import random

import pytest
import torch

from greedylr import Action
from greedylr.control import rule
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig
from greedylr.torch.device import DeviceController

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(autouse=True)
def _needs(request):
    if request.node.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "config",
    [
        DefaultConfig(),
        DefaultConfig(start_scale=1e-4, decade_steps=25, total_steps=250),
        DefaultConfig(warmup_steps=0, window=20),
        PaperConfig(min_lr=1e-6, smooth=True, patience=2),
    ],
    ids=repr,
)
def test_equals_the_scalar_rule(device, config):
    r = random.Random(0)
    controller = DeviceController(torch.full((3,), 0.1, dtype=torch.float64, device=device), config)
    states = [rule.start(config, [0.1]) for _ in range(3)]
    for step in range(300):
        losses = [2.0 - 0.004 * step * k + r.gauss(0, 0.2) + (r.random() < 0.02) * 50.0 for k in range(3)]
        losses[0] = float("nan") if step % 97 == 50 else losses[0]
        slopes = [r.choice([1e-2, 1.0, 30.0, math.nan]) for _ in range(3)] if step >= 100 else [math.nan] * 3
        told = torch.tensor([losses, slopes], dtype=torch.float64, device=device)
        controller.step(told[0], told[1] if step >= 100 else None)
        decisions = [rule.observe(config, *of_one) for of_one in zip(states, losses, slopes)]
        assert controller.lrs.tolist() == [decision.lr_after[0] for decision in decisions]
        assert controller.actions() == [decision.action for decision in decisions]


def test_keeps_its_storage_so_that_an_optimizer_follows():
    controller = DeviceController(torch.tensor([0.1]), DefaultConfig(warmup_steps=0, window=2))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=controller.lrs[0])
    storage = controller.lrs.data_ptr()
    for loss in (3.0, 3.1, 1.0, 1.1):
        controller.step(torch.tensor(loss, requires_grad=True))
    assert controller.lrs.data_ptr() == storage
    assert controller.actions() == [Action.RAISED]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 0.9)


@pytest.mark.parametrize(
    "config",
    [
        DefaultConfig(window=3),
        DefaultConfig(warmup_steps=0, window=3, significance=0.5),
        PaperConfig(min_lr=0.0, patience=1, smooth=True),
    ],
    ids=repr,
)
def test_resumes_exactly(config, tmp_path):
    r = random.Random(1)
    losses = [torch.tensor([r.gauss(2, 0.3), r.gauss(1, 0.3)], dtype=torch.float64) for _ in range(100)]
    initial = torch.tensor([0.1, 0.01], dtype=torch.float64)
    whole, first, second = (DeviceController(initial, config) for _ in range(3))
    for step, loss in enumerate(losses):
        whole.step(loss)
        (first if step < 41 else second).step(loss)
        if step == 40:
            torch.save(first.state_dict(), tmp_path / "state.pt")
            second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert isinstance(config, PaperConfig) or config.warmup or not torch.equal(whole.lrs, initial)
    assert torch.equal(whole.lrs, second.lrs)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="must be a floating tensor, got torch"):
        DeviceController(torch.tensor([1]))
    controller = DeviceController(torch.tensor([0.1]))
    with pytest.raises(ValueError, match="another family"):
        controller.load_state_dict(DeviceController(torch.tensor([0.1]), PaperConfig()).state_dict())
    with pytest.raises(ValueError, match=r"has shape \(2,\), not \(1,\)"):
        controller.load_state_dict(DeviceController(torch.tensor([0.1, 0.1])).state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_climbs_in_any_precision(dtype):
    """Growing by 2.3 % at every step, which is more than bfloat16's last bit, too."""
    controller = DeviceController(torch.tensor([0.1], dtype=dtype), DefaultConfig(start_scale=0.05, decade_steps=100))
    scalar = rule.start(DefaultConfig(start_scale=0.05, decade_steps=100), [0.1])
    for loss in (2 - step / 128 for step in range(50)):
        controller.step(torch.tensor([loss], dtype=dtype))
        rule.observe(DefaultConfig(start_scale=0.05, decade_steps=100), scalar, loss)
    assert controller.actions() == [Action.CLIMBING]
    assert float(controller.lrs[0]) == pytest.approx(scalar.lrs[0], rel=1e-5 if dtype is torch.float32 else 0.2)


@pytest.mark.cuda
@pytest.mark.parametrize("config", [DefaultConfig(window=5), DefaultConfig(warmup_steps=0, window=5)], ids=repr)
def test_no_synchronisation_and_capture(config):
    controller = DeviceController(torch.full((4,), 0.1, dtype=torch.float64, device="cuda"), config)
    eager = DeviceController(torch.full((4,), 0.1, dtype=torch.float64, device="cuda"), config)
    losses = torch.randn(60, 4, dtype=torch.float64, device="cuda")
    fed = torch.zeros(4, dtype=torch.float64, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for row in losses:
            eager.step(row)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    before = controller.state_dict()
    before = {"config": before["config"], "state": {k: v.clone() for k, v in before["state"].items()}}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        controller.step(fed)
    controller.load_state_dict(before)
    for row in losses:
        fed.copy_(row)
        graph.replay()
    assert torch.equal(controller.lrs, eager.lrs)
    assert not torch.equal(controller.lrs, torch.full_like(controller.lrs, 0.1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: None,
        lambda state: [state],
        lambda state: {},
        lambda state: {**state, "more": 1},
        lambda state: {**state, "config": None},
        lambda state: {**state, "state": None},
        lambda state: {**state, "config": {**state["config"], "spike": -1}},
        lambda state: {**state, "config": {**state["config"], "max_scale": [1.0, 2.0]}},
        lambda state: {**state, "config": {**state["config"], "window": 2**40}},
        lambda state: {**state, "state": {**state["state"], "lrs": torch.tensor([math.nan, 1.0])}},
        lambda state: {**state, "state": {**state["state"], "scale": torch.tensor([-1.0, 1.0])}},
        lambda state: {**state, "state": {**state["state"], "step": 1}},
        lambda state: {**state, "state": {**state["state"], "step": torch.zeros(2)}},
    ],
)
def test_a_damaged_state_is_refused_and_nothing_has_changed(damage):
    controller = DeviceController(torch.tensor([0.1, 0.2]))
    controller.step(torch.tensor(2.0))
    before = {name: value.clone() for name, value in controller.state_dict()["state"].items()}
    config = controller.config
    with pytest.raises(ValueError, match=r"must be|cannot restore|cannot be loaded"):
        controller.load_state_dict(damage(DeviceController(torch.tensor([0.3, 0.4])).state_dict()))
    after = controller.state_dict()["state"]
    assert controller.config == config
    assert all(torch.equal(after[name], value) for name, value in before.items())
