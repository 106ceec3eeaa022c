"""Several processes, one learning rate."""

import json
import subprocess
import sys

import pytest

RANK = """
import json, math, os, random, sys
import torch
import torch.distributed as dist
from greedylr import DefaultConfig, GreedyLR

file, rank, world, family, average, kind = sys.argv[1], *map(int, sys.argv[2:4]), *sys.argv[4:]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
average = average == "average"
if family == "default":
    config = DefaultConfig(window=5, significance=1.0)
    scheduler = GreedyLR(optimizer, decade_steps=10, average_ranks=average, config=config)
else:
    scheduler = GreedyLR.paper(optimizer, patience=1, smooth=True, min_lr=1e-4, average_ranks=average)
seen = []
scheduler.subscribe(seen.append)
r = random.Random(rank)
losses = [1 / 3 + math.sin(step / 15) + r.gauss(0, 0.3) for step in range(200)]
losses[50] = math.nan if rank == 1 else losses[50]
losses[90] = 1e300 if rank == 0 else losses[90]
lrs = []
for loss in losses:
    given = torch.tensor(loss, dtype=torch.float64) if kind == "tensor" else loss
    scheduler.step(given)
    if kind == "tensor":
        assert repr(given.item()) == repr(loss), "the user's tensor is not the place to add up"
    lrs.append(optimizer.param_groups[0]["lr"].hex())
print(json.dumps({
    "lrs": lrs,
    "losses": losses,
    "seen": [decision.loss for decision in seen],
    "actions": [decision.action.name for decision in seen],
}), flush=True)
dist.barrier()
os._exit(0)  # Gloo's threads may abort a process that takes itself apart while another still talks to it.
"""


def run(path, world, family, average, kind):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(path / "store"), str(rank), str(world), family, average, kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    said = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * world, said
    return [json.loads(out.strip().splitlines()[-1]) for out, _ in said]


@pytest.mark.parametrize(
    ("world", "family", "kind"),
    [
        (2, "paper", "tensor"),
        pytest.param(2, "default", "float", marks=pytest.mark.slow),
        pytest.param(3, "default", "tensor", marks=pytest.mark.slow),
    ],
)
def test_ranks_with_different_losses_have_the_same_learning_rates(tmp_path, world, family, kind):
    results = run(tmp_path, world, family, "average", kind)
    first = results[0]
    assert all(other["lrs"] == first["lrs"] for other in results)
    assert len(set(first["lrs"])) > 5
    # A NaN of one rank is a NaN for all.
    assert {result["actions"][50] for result in results} == {"NON_FINITE"}
    assert all(result["actions"][:50] == first["actions"][:50] for result in results)
    # What is observed is the mean, in double precision all the way.
    for step in (0, 17, 90):
        mean = sum(result["losses"][step] for result in results) / world
        assert [result["seen"][step] for result in results] == [pytest.approx(mean, rel=1e-15)] * world


def test_without_averaging_they_may_differ(tmp_path):
    one, other = run(tmp_path, 2, "default", "each", "float")
    assert one["lrs"] != other["lrs"]
    assert one["seen"][:50] == one["losses"][:50]
    assert (one["actions"][50] == "NON_FINITE", other["actions"][50]) == (False, "NON_FINITE")


SCENES = """
import json, os, sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from greedylr import DefaultConfig, GreedyLR
from greedylr.torch import distributed

file, rank, scenes = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
distributed.TIMEOUT = timedelta(seconds=3)

def start():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    if scene == "groups" and rank:
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    top = 10.0 if scene == "settings" and rank else 100.0
    return optimizer, GreedyLR(optimizer, decade_steps=10, max_scale=top)

def play(optimizer, scheduler):
    if scene == "state" and rank:
        scheduler.load_state_dict(saved)
    if scene == "memory":
        scheduler.step(2.0)
        if rank:
            of_this = scheduler.state_dict()
            of_this["state"]["total"] = 9.0
            scheduler.load_state_dict(of_this)
    if scene == "lr" and rank:
        optimizer.param_groups[0]["lr"] = 0.3
    other = start()[1]
    for step in range(20):
        if scene == "norm":
            optimizer.param_groups[0]["params"][0].grad = torch.tensor([0.37])
        optimizer.step()
        if scene == "skips" and rank and step == 7:
            continue
        if scene == "alone" and rank:
            dist.all_reduce(everyone := torch.ones(1))
            return everyone.item()
        loss = 2.0 - step / 100
        if step == 3 and rank:
            loss = {"bad": "two", "two": torch.ones(2)}.get(scene, loss)
        batch = 7 if scene == "batch" and rank and step == 3 else None
        norm = "high" if scene == "norm" and rank and step == 3 else None
        scheduler.step(torch.tensor(loss) if scene == "mixed" and rank else loss, composition=batch, grad_norm=norm)
        if scene == "several":
            other.step(1.0 + step / 50)

saved, scene = None, ""
ahead = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), decade_steps=10, max_scale=100.0)
ahead.step(2.0)
saved = ahead.state_dict()
late, _ = (optimizer, scheduler) = start()
for step in range(5):
    scheduler.step(2.0 - step / 100)
late = scheduler
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=60))
said = {}
for scene in scenes:
    optimizer, scheduler = (late.optimizer, late) if scene == "late" else start()
    try:
        own = play(optimizer, scheduler)
        lr = optimizer.param_groups[0]["lr"].hex()
        said[scene] = f"fine {lr}" if own is None else f"fine, and its own collective was its own: {own}"
    except Exception as error:
        said[scene] = f"{type(error).__name__} {error}"
        if scene == "alone":
            dist.all_reduce(torch.ones(1))
print(json.dumps(said), flush=True)
time.sleep(1)
os._exit(0)
"""


def play(path, scenes):
    command = [sys.executable, "-c", SCENES, str(path / "store")]
    ranks = [
        subprocess.Popen([*command, str(rank), scenes], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [json.loads(out) if out else err for out, err in said]


def test_what_differs_between_ranks_is_said_on_all_of_them(tmp_path):
    expected = {
        "late": "RuntimeError torch.distributed was initialised after the first step",
        "skips": "RuntimeError the ranks have made different numbers of optimizer steps since their first "
        "(rank 0: 7, rank 1: 8)",
        "settings": "RuntimeError the ranks have schedulers with different settings: max_scale "
        "(rank 0: 100.0, rank 1: 10.0)",
        "groups": "RuntimeError the ranks have schedulers with different settings: initial_lrs "
        "(rank 0: [], rank 1: [0.1])",
        "memory": "RuntimeError the ranks remember different losses: a state was loaded on some of them",
        "state": "RuntimeError the ranks are at different steps (rank 0: 1, rank 1: 2)",
        "lr": "RuntimeError the ranks have different learning rates (rank 0: 0.00",
    }
    first, second = play(tmp_path, ",".join(expected))
    for scene, said in expected.items():
        assert first[scene].startswith(said)
        assert second[scene].startswith(said)


def test_a_rank_that_raises_does_not_keep_the_others_waiting(tmp_path):
    first, second = play(tmp_path, "bad,two,batch,norm,mixed,several")
    for scene, error in {"bad": "TypeError", "two": "ValueError", "batch": "TypeError", "norm": "TypeError"}.items():
        assert second[scene].startswith(error)
        assert first[scene].startswith("RuntimeError rank 1 was given something that is no loss at step 4")
    for scene in ("mixed", "several"):
        assert first[scene] == second[scene]
        assert first[scene].startswith("fine")


def test_a_scheduler_on_one_rank_alone_is_said_in_time(tmp_path):
    first, second = play(tmp_path, "alone")
    assert first["alone"].startswith("RuntimeError the other ranks did not step their scheduler within 3 s of step 1:")
    assert first["alone"].endswith("(rank 0 has not seen rank 1)")
    assert second["alone"] == "fine, and its own collective was its own: 2.0"


UNEVEN = """
import json, os, sys, time
from datetime import timedelta
import torch
import torch.distributed as dist
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel
from greedylr import DefaultConfig, GreedyLR

file, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=20))
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(2, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scheduler = GreedyLR(optimizer, decade_steps=10)
own, seen = [], []
scheduler.subscribe(lambda decision: seen.append(decision.loss))
torch.manual_seed(1 + rank)
for first in (0, 1):  # The rank that runs out first, also before its first step.
    with Join([model, scheduler]):
        for step in range(0 if rank == first == 0 else 10 if rank == first else 30):
            loss = model(torch.randn(4, 2)).square().mean()
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            scheduler.step(loss)
            own.append(loss.item())
    own.append(None)
print(json.dumps([own, seen, optimizer.param_groups[0]["lr"].hex(), scheduler.last_epoch]), flush=True)
time.sleep(1)
os._exit(0)
"""


def test_a_rank_whose_inputs_are_used_up_goes_along(tmp_path):
    command = [sys.executable, "-c", UNEVEN, str(tmp_path / "store")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ranks = [subprocess.Popen([*command, str(rank)], **pipes) for rank in range(2)]
    try:
        said = [rank.communicate(timeout=60) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], said
    (first, seen, lr, steps), (second, other_seen, other_lr, other_steps) = (json.loads(out) for out, _ in said)
    assert (seen, lr, steps) == (other_seen, other_lr, other_steps)
    assert steps == 60
    assert seen[:30] == pytest.approx(second[:30]), "the first rank has nothing"
    both = [(one + two) / 2 for one, two in zip(first[1:11], second[31:41])]
    assert seen[30:40] == pytest.approx(both)
    assert seen[40:] == pytest.approx(first[11:31]), "the second rank has nothing any more"
