"""Accelerate, for real: accumulation, skipped steps, checkpoints, processes, FSDP, on handwritten digits."""

import importlib.util
import json
import math

import pytest
import torch
import torch.distributed.fsdp
from torch.nn import functional

from greedylr import DefaultConfig, GreedyLR

pytest.importorskip("accelerate")

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from greedylr.adapters.accelerate import attach
from greedylr.pulse import Recorder, Trace

BRISK = {"patience": 0, "min_lr": 1e-6, "eps": 0.0}  # a move at nearly every step
pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")
needs_fsdp2 = pytest.mark.skipif(not hasattr(torch.distributed.fsdp, "fully_shard"), reason="torch without FSDP2")


@pytest.fixture
def accelerator():
    def made(scaler=None, **settings):
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        accelerator = Accelerator(cpu=True, **settings)
        accelerator.scaler = scaler
        return accelerator

    yield made
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def setting(accelerator, digits, optimizer=torch.optim.SGD, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
    images, labels = digits
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images[:704], labels[:704]), batch_size=32, shuffle=True
    )
    optimizer = optimizer(model.parameters(), lr=0.05, **options)
    return accelerator.prepare(model, optimizer, loader)


def train(accelerator, model, optimizer, loader, scheduler, epochs=1, poison=()):
    """The losses of all micro-batches, and the learning rate that each optimizer step was made with."""
    losses, lrs = [], []
    for _ in range(epochs):
        for images, labels in loader:
            with accelerator.accumulate(model):
                loss = functional.cross_entropy(model(images), labels)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    if len(lrs) in poison:
                        next(model.parameters()).grad.fill_(math.inf)
                    lrs.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step(loss)
                optimizer.zero_grad()
            losses.append(loss.detach())
    return losses, lrs


@pytest.mark.parametrize("most", [None, 1e-3])
def test_the_gradient_is_heard_however_it_is_clipped(accelerator, digits, most):
    accelerator = accelerator(gradient_accumulation_steps=2)
    model, optimizer, loader = setting(accelerator, digits, torch.optim.AdamW)
    scheduler = attach(accelerator, GreedyLR(optimizer, warmup_steps=0, max_scale=1))
    images, labels = next(iter(loader))
    for _ in range(2):
        with accelerator.accumulate(model):
            loss = functional.cross_entropy(model(images), labels)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                wanted = 0.05 * sum(part.grad.abs().sum().item() for part in model.parameters())
                if most is not None:
                    accelerator.clip_grad_norm_(model.parameters(), most)
            optimizer.step()
            scheduler.step(loss)
            optimizer.zero_grad()
    assert scheduler.state_dict()["state"]["slope"] == pytest.approx(0.05 * wanted, rel=1e-4)  # smoothed from 0


def test_one_observation_for_each_optimizer_step(accelerator, digits, replay):
    accelerator = accelerator(gradient_accumulation_steps=3)
    model, optimizer, loader = setting(accelerator, digits)
    scheduler = attach(accelerator, GreedyLR.paper(optimizer, **BRISK))
    seen = []
    scheduler.subscribe(seen.append)
    assert accelerator.prepare(scheduler) is scheduler
    micro, lrs = train(accelerator, model, optimizer, loader, scheduler, epochs=2)
    # 22 micro-batches an epoch: seven steps of three, and one of the single micro-batch that is left.
    groups = [epoch[i : i + 3] for epoch in (micro[:22], micro[22:]) for i in range(0, 22, 3)]
    losses = [decision.loss for decision in seen]
    assert losses == [float(sum(group[1:], group[0]) / len(group)) for group in groups]
    expected = replay(scheduler.config, losses, [0.05])
    assert lrs == [lr for (lr,) in expected[:-1]]
    assert scheduler.get_last_lr() == list(expected[-1])
    assert len(set(lrs)) > 3


def test_a_recorder_gets_everything(accelerator, digits, tmp_path):
    accelerator = accelerator(gradient_accumulation_steps=2)
    model, optimizer, loader = setting(accelerator, digits)
    scheduler = attach(accelerator, GreedyLR(optimizer, config=DefaultConfig(window=5)))
    with Recorder(tmp_path, scheduler):
        for step, (images, labels) in enumerate(loader):
            with accelerator.accumulate(model):
                loss = functional.cross_entropy(model(images), labels)
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step(loss, composition={"domain": "abc"[step % 3], "number": step})
                optimizer.zero_grad()
    trace = Trace.load(tmp_path)
    assert trace.config["window"] == 5
    assert trace.composition["domain"][:3].tolist() == ["a + b", "a + c", "b + c"]
    assert trace.composition["number"].tolist() == [2 * step + 0.5 for step in range(11)]


@pytest.mark.parametrize(
    ("optimizer", "options"), [(torch.optim.SGD, {}), (torch.optim.Adam, {"fused": True})], ids=["plain", "fused"]
)
@pytest.mark.parametrize("prepared", [True, False])
def test_a_skipped_step_is_no_observation(accelerator, digits, optimizer, options, prepared):
    accelerator = accelerator(scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    model, optimizer, loader = setting(accelerator, digits, optimizer, **options)
    scheduler = attach(accelerator, GreedyLR.paper(optimizer if prepared else optimizer.optimizer, **BRISK))
    seen = []
    scheduler.subscribe(seen.append)
    losses, _ = train(accelerator, model, optimizer, loader, scheduler, poison=(0, 5, 6))
    assert accelerator.scaler.get_scale() == 1.0
    assert [decision.loss for decision in seen] == [float(losses[i]) for i in range(22) if i not in (0, 5, 6)]


def test_resumed_equals_uninterrupted(accelerator, digits, tmp_path):
    first = accelerator()
    model, optimizer, loader = setting(first, digits)
    scheduler = attach(first, GreedyLR.paper(optimizer, **BRISK))
    train(first, model, optimizer, loader, scheduler)
    first.save_state(tmp_path / "state")
    _, whole = train(first, model, optimizer, loader, scheduler)
    reached = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    second = accelerator()
    model, optimizer, loader = setting(second, digits)
    scheduler = attach(second, GreedyLR.paper(optimizer, **BRISK))
    second.load_state(tmp_path / "state")
    _, resumed = train(second, model, optimizer, loader, scheduler)
    assert scheduler.last_epoch == 44
    assert resumed == whole
    assert torch.equal(reached, torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))


SCRIPT = """
    import json, os, sys, torch
    from sklearn.datasets import load_digits
    from torch.nn.functional import cross_entropy
    from accelerate import Accelerator
    from greedylr import GreedyLR
    from greedylr.adapters.accelerate import attach

    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
    images, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    loader = torch.utils.data.DataLoader(data, batch_size=32, drop_last=True)
    if sys.argv[1] == "fsdp":
        # Accelerate shards on accelerators only: on the CPU the model is sharded before it, and the rest is prepared.
        from torch.distributed.fsdp import fully_shard
        fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
        optimizer, loader = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.05), loader)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    scheduler = attach(accelerator, GreedyLR.paper(optimizer, patience=0, min_lr=1e-6))
    seen, own, lrs = [], [], []
    scheduler.subscribe(seen.append)

    def epoch():
        for images, labels in loader:
            with accelerator.accumulate(model):
                loss = cross_entropy(model(images), labels)
                accelerator.backward(loss)
                optimizer.step(); scheduler.step(loss); optimizer.zero_grad()
            own.append(loss.item()); lrs.append(optimizer.param_groups[0]["lr"].hex())

    epoch()
    if sys.argv[1] == "ddp":
        accelerator.save_state("state")
        lrs.clear(); epoch(); whole = list(lrs)
        accelerator.load_state("state")
        lrs.clear(); epoch()
        assert lrs == whole
    kind = type(next(model.parameters())).__name__
    print(json.dumps([own, [d.loss for d in seen], lrs, kind]), flush=True)
    torch.distributed.barrier()
    os._exit(0)
"""


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=[needs_fsdp2, pytest.mark.slow])])
def test_processes_share_one_learning_rate(processes, kind):
    one, other = (json.loads(out.strip().splitlines()[-1]) for out in processes(SCRIPT, kind, world=2))
    assert one[0] != other[0]
    assert one[1:] == other[1:]
    # Once per optimizer step, not once per process, on the mean over micro-batches and processes.
    means = [sum(shares) / 4 for shares in zip(one[0][::2], one[0][1::2], other[0][::2], other[0][1::2])]
    assert one[1] == pytest.approx(means, rel=1e-6)
    assert len(set(one[2])) > 3
    assert one[3] == ("DTensor" if kind == "fsdp" else "Parameter")


DEEPSPEED = """
    import json, os, sys
    os.environ.update(DS_ACCELERATOR="cpu", ACCELERATE_USE_DEEPSPEED="true")
    import torch
    from accelerate import Accelerator, DeepSpeedPlugin
    from sklearn.datasets import load_digits
    from torch.nn.functional import cross_entropy
    from greedylr import GreedyLR
    from greedylr.adapters.accelerate import attach

    config = {"train_micro_batch_size_per_gpu": 32, "gradient_accumulation_steps": 2}
    config |= {"zero_optimization": {"stage": int(sys.argv[1])}, "zero_allow_untested_optimizer": True}
    accelerator = Accelerator(deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=config), gradient_accumulation_steps=2)
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 10)
    images, labels = load_digits(return_X_y=True)
    data = torch.utils.data.TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    loader = torch.utils.data.DataLoader(data, batch_size=32, drop_last=True)
    model, optimizer, loader = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.05), loader)
    scheduler = attach(accelerator, GreedyLR.paper(optimizer, patience=0, min_lr=1e-6))
    seen, own, lrs = [], [], []
    scheduler.subscribe(seen.append)
    for images, labels in loader:
        with accelerator.accumulate(model):
            loss = cross_entropy(model(images), labels)
            accelerator.backward(loss)
            optimizer.step(); scheduler.step(loss); optimizer.zero_grad()
        own.append(loss.item()); lrs.append(model.get_lr()[0])
    print(json.dumps([type(optimizer).__name__, own, [d.loss for d in seen], lrs, [d.lr_after[0] for d in seen]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("deepspeed"), reason="no DeepSpeed")
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed(processes, monkeypatch, stage):
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 0,
    }.items():
        monkeypatch.setenv(name, str(value))
    (out,) = processes(DEEPSPEED, stage)
    kind, own, observed, lrs, decided = json.loads(out.strip().splitlines()[-1])
    assert kind == "DeepSpeedOptimizerWrapper"
    assert observed == pytest.approx([sum(pair) / 2 for pair in zip(own[::2], own[1::2])], rel=1e-6)
    assert lrs[1::2] == decided, "the engine's own learning rate"
    assert len(set(decided)) > 3
