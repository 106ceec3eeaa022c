"""Several processes, one learning rate."""

import json
import subprocess
import sys

import pytest

RANK = """
import json, math, os, random, sys
import torch
import torch.distributed as dist
from greedylr import GreedyLR

file, rank, world, family, average, kind = sys.argv[1], *map(int, sys.argv[2:4]), *sys.argv[4:]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
average = average == "average"
if family == "default":
    scheduler = GreedyLR(optimizer, decade_steps=10, window=5, significance=1.0, average_ranks=average)
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
    ("world", "family", "kind"), [(2, "default", "float"), (2, "paper", "tensor"), (3, "default", "tensor")]
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
