"""Plain torch.distributed, for real: DDP and FSDP2 on gloo, with 2 and 4 processes; elastic restart with torchrun."""

import json
import math
import os
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.distributed.fsdp

needs_fsdp2 = pytest.mark.skipif(not hasattr(torch.distributed.fsdp, "fully_shard"), reason="torch without FSDP2")

TRAIN = """
    import json, math, os, sys
    import torch
    import torch.distributed as dist
    from sklearn.datasets import load_digits
    from torch.nn.functional import cross_entropy
    from greedylr import DefaultConfig, GreedyLR
    from greedylr.torch import distributed as ranks

    kind, family, when = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10))
    if when == "before":
        dist.init_process_group("gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
        if kind == "fsdp":
            from torch.distributed.fsdp import fully_shard
            fully_shard(model, mesh=dist.init_device_mesh("cpu", (world,)))
        else:
            model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    if family == "default":
        scheduler = GreedyLR(optimizer, config=DefaultConfig(polyak=math.inf, catch_up_steps=0))
    elif family == "heard":
        scheduler = GreedyLR(optimizer)
    else:
        scheduler = GreedyLR.paper(optimizer, patience=0, min_lr=1e-6)
    if when == "after":  # the group is initialised when the scheduler is there
        dist.init_process_group("gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
        model = torch.nn.parallel.DistributedDataParallel(model)
    collectives = 0
    all_gather = dist.all_gather

    def counted(*args, **kwargs):
        global collectives
        collectives += 1
        return all_gather(*args, **kwargs)

    dist.all_gather = counted
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    own, observed, lrs, actions = [], [], [], []
    if when == "before":
        scheduler.subscribe(lambda decision: observed.append(decision.loss))
        scheduler.subscribe(lambda decision: actions.append(decision.action.name))
    for step in range(50):
        batch = slice(32 * (step % 14), 32 * (step % 14) + 32)
        mine_images, mine_labels = images[rank::world][batch], labels[rank::world][batch]
        loss = cross_entropy(model(mine_images), mine_labels)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        loss = loss.item()
        if step == 7 and rank == world - 1:
            loss = math.nan
        scheduler.step(loss)
        own.append(loss); lrs.append(optimizer.param_groups[0]["lr"].hex())
    shards = type(next(model.parameters())).__name__
    slope = scheduler.state_dict()["state"].get("slope")
    print(json.dumps([own, observed, lrs, actions, collectives, shards, slope]), flush=True)
    dist.barrier()
    os._exit(0)
"""


def results(processes, world, *arguments):
    return [json.loads(out.strip().splitlines()[-1]) for out in processes(TRAIN, *arguments, world=world)]


@pytest.mark.parametrize(
    ("world", "kind", "family"),
    [
        (2, "ddp", "default"),
        pytest.param(4, "ddp", "paper", marks=pytest.mark.slow),
        pytest.param(2, "fsdp", "paper", marks=needs_fsdp2),
        pytest.param(4, "fsdp", "default", marks=[needs_fsdp2, pytest.mark.slow]),
    ],
)
def test_ranks_with_different_losses_have_one_learning_rate(processes, replay, world, kind, family):
    from greedylr.control.default.config import DefaultConfig
    from greedylr.control.paper.config import PaperConfig

    ranks = results(processes, world, kind, family, "before")
    assert len({tuple(map(str, rank[0])) for rank in ranks}) == world
    _, observed, lrs, actions, collectives, shards, _ = ranks[0]
    assert all(rank[2:4] == [lrs, actions] for rank in ranks)
    assert all(list(map(repr, rank[1])) == list(map(repr, observed)) for rank in ranks), "to the last bit"
    assert collectives == 50, "one small collective for each step"
    assert shards == ("DTensor" if kind == "fsdp" else "Parameter")
    means = [sum(losses) / world for losses in zip(*(rank[0] for rank in ranks))]
    assert observed == pytest.approx(means, rel=1e-15, nan_ok=True)
    assert (math.isnan(observed[7]), actions[7]) == (True, "NON_FINITE")
    loss_only = DefaultConfig(polyak=math.inf, catch_up_steps=0)
    config = loss_only if family == "default" else PaperConfig(patience=0, min_lr=1e-6)
    assert [float.fromhex(lr) for lr in lrs] == [lr for (lr,) in replay(config, observed, [0.05])[1:]]


@needs_fsdp2
def test_ranks_that_hold_parts_of_the_gradient_hear_the_whole(processes):
    """The slope is that of the mean loss over all ranks, whoever holds the gradient."""
    whole, parts = (results(processes, 2, kind, "heard", "before") for kind in ("ddp", "fsdp"))
    for ranks in (whole, parts):
        assert ranks[0][2] == ranks[1][2], "the same learning rates on all ranks"
        assert ranks[0][6] == ranks[1][6] > 0
    assert parts[0][6] == pytest.approx(whole[0][6], rel=1e-4)
    lrs = [[float.fromhex(lr) for lr in ranks[0][2]] for ranks in (whole, parts)]
    assert lrs[0] == pytest.approx(lrs[1], rel=1e-4)


def test_a_group_initialised_after_the_scheduler_is_averaged_over(processes):
    one, other = results(processes, 2, "ddp", "paper", "after")
    assert one[0] != other[0]
    assert one[2] == other[2]
    assert (one[4], other[4]) == (50, 50)


ELASTIC = """
    import json, os, sys
    import torch
    import torch.distributed as dist
    from sklearn.datasets import load_digits
    from torch.nn.functional import cross_entropy
    from greedylr import GreedyLR

    torch.set_num_threads(1)
    folder, dies_at = sys.argv[1], int(sys.argv[2])
    rank, world, attempt = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"))
    # A store for each attempt: from the one that torchrun shares out, gloo is given addresses of the attempt before.
    dist.init_process_group("gloo", init_method=f"file://{folder}/store{attempt}", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scheduler = GreedyLR.paper(optimizer, patience=0, min_lr=1e-6)
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    start, path = 0, f"{folder}/checkpoint.pt"
    if os.path.exists(path):
        saved = torch.load(path, weights_only=True)
        start = saved["step"]
        model.module.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
    log = open(f"{folder}/rank{rank}.jsonl", "a")
    for step in range(start, 30):
        if step == dies_at and rank == 1 and attempt == 0:
            os._exit(13)
        batch = slice(32 * (step % 20), 32 * (step % 20) + 32)
        loss = cross_entropy(model(images[rank::world][batch]), labels[rank::world][batch])
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        scheduler.step(loss)
        print(json.dumps([step, optimizer.param_groups[0]["lr"].hex()]), file=log, flush=True)
        if step % 5 == 4 and rank == 0:
            state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save({**state, "scheduler": scheduler.state_dict()}, path + ".new")
            os.replace(path + ".new", path)
    log.close()
    dist.barrier()
    os._exit(0)
"""


@pytest.mark.slow
def test_a_rank_that_dies_rejoins_from_the_checkpoint(tmp_path):
    script = tmp_path / "elastic.py"
    script.write_text(textwrap.dedent(ELASTIC))

    def run(name, dies_at):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--monitor-interval=0.1"]
        ran = subprocess.run(
            [*command, str(script), str(folder), str(dies_at)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
        logs = [(folder / f"rank{rank}.jsonl").read_text().splitlines() for rank in (0, 1)]
        # Steps that were made twice count the second time.
        return [dict(map(json.loads, log)) for log in logs], sum(map(len, logs))

    whole, steps = run("whole", -1)
    broken, repeated = run("broken", 18)
    assert whole[0] == whole[1]
    assert len(set(whole[0].values())) > 10
    assert broken == whole, "restarted from step 15, and bit for bit the same from there"
    assert (steps, repeated) == (60, 66)
