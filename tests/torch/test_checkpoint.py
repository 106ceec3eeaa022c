"""Stop and resume at any step equals not stopping; copies and pickles go on by themselves."""

import contextlib
import copy
import inspect
import io
import json
import math
import pickle
import random
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR

from greedylr import DefaultConfig, GreedyLR

NAN = math.nan
WITHOUT_PROCESSES = pytest.mark.skipif(
    "no_dist" not in inspect.signature(torch.distributed.checkpoint.save).parameters,
    reason="this version of torch saves distributed checkpoints from several processes only",
)

# These checkpoints are of runs that go on past their end, and come with settings of their own.
pytestmark = [
    pytest.mark.filterwarnings("ignore:total_steps=150 are over"),
    pytest.mark.filterwarnings("ignore:the loaded state has other settings"),
]


def sgd(*lrs, tensors=False):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(lr, dtype=torch.float64) if tensors else lr}
        for lr in lrs or (0.1,)
    ]
    return torch.optim.SGD(groups, lr=0.1)


def add_group(optimizer, lr=0.01):
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr})


def lrs_of(scheduler):
    return [float(group["lr"]) for group in scheduler.optimizer.param_groups]


def trajectory(scheduler, losses):
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(lrs_of(scheduler))
    return rates


def through_json(data):
    return json.loads(json.dumps(data, allow_nan=False))


def through_torch(data):
    buffer = io.BytesIO()
    torch.save(data, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def noisy_losses(seed, n):
    r = random.Random(seed)

    def loss(step):
        trouble = r.random()
        if trouble < 0.02:
            return r.choice([NAN, math.inf, -math.inf])
        return 2 + math.sin(step / 40) + r.gauss(0, 0.2) + 30 * (trouble > 0.97)

    return [loss(step) for step in range(n)]


QUICK = {"warmup_steps": 0, "config": DefaultConfig(window=4, significance=1.0, spike=3.0)}
MAKERS = {
    "default": lambda optimizer: GreedyLR(optimizer),
    "quick": lambda optimizer: GreedyLR(optimizer, **QUICK),
    "climb": lambda optimizer: GreedyLR(
        optimizer, decade_steps=25, config=DefaultConfig(start_scale=1e-4, spike=30.0, objection=2.0)
    ),
    "climb, horizon": lambda optimizer: GreedyLR(
        optimizer, total_steps=150, decade_steps=30, config=DefaultConfig(window=4, spike=30.0)
    ),
    "horizon": lambda optimizer: GreedyLR(optimizer, **QUICK, total_steps=150, anneal=0.3),
    "reward": lambda optimizer: GreedyLR(
        optimizer, mode="max", min_scale=0.5, max_scale=2.0, config=DefaultConfig(window=3)
    ),
    "paper": lambda optimizer: GreedyLR.paper(optimizer, patience=2, min_lr=1e-6),
    "paper, all on": lambda optimizer: GreedyLR.paper(
        optimizer,
        patience=1,
        min_lr=0.05,
        cooldown=2,
        warmup=3,
        smooth=True,
        window_size=7,
        reset_start=2,
        max_lr=math.inf,
    ),
    "core": lambda optimizer: GreedyLR.core(optimizer),
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@settings(max_examples=400)
@given(
    make=st.sampled_from(list(MAKERS.values())),
    seed=st.integers(0, 2**32),
    before=st.integers(0, 200),
    through=st.sampled_from([through_json, through_torch, copy.deepcopy]),
    order=st.sampled_from(["optimizer first", "scheduler first", "scheduler only"]),
    tensors=st.booleans(),
    other_settings=st.booleans(),
)
def test_resuming_equals_not_stopping(make, seed, before, through, order, tensors, other_settings):
    losses = noisy_losses(seed, before + 60)
    straight = make(sgd(0.1, 0.07, tensors=tensors))
    trajectory(straight, losses[:before])
    saved = through({"scheduler": straight.state_dict()})["scheduler"]
    saved_optimizer = copy.deepcopy(straight.optimizer.state_dict())

    optimizer = sgd(0.1, 0.07, tensors=tensors)
    if other_settings:  # the saved ones replace them
        family = GreedyLR if saved["family"] == "default" else GreedyLR.paper
        resumed = family(optimizer)
    else:
        resumed = make(optimizer)
    if order == "optimizer first":
        optimizer.load_state_dict(saved_optimizer)
    resumed.load_state_dict(saved)
    if order == "scheduler first":
        optimizer.load_state_dict(saved_optimizer)
    assert lrs_of(resumed) == lrs_of(straight)
    assert resumed.get_last_lr() == straight.get_last_lr()
    assert (resumed.last_epoch, resumed.base_lrs) == (straight.last_epoch, straight.base_lrs)
    assert resumed.state_dict() == straight.state_dict()
    assert trajectory(resumed, losses[before:]) == trajectory(straight, losses[before:])
    assert resumed.state_dict() == straight.state_dict()
    assert resumed.config == straight.config


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("through", [through_json, through_torch, copy.deepcopy])
@pytest.mark.parametrize("end", [None, "objection", "explosion", "not finite"])
def test_resuming_anywhere_in_a_climb(end, through, tensors):
    """Also just before and just after it ends, and with a spike behind it."""
    r = random.Random(3)
    losses = [3 - step / 50 + r.gauss(0, 0.1) for step in range(60)]
    losses[40] = 50.0  # a spike, left out
    losses += {
        None: losses[-20:],
        "objection": [2.2 + step / 10 for step in range(20)],
        "explosion": [60.0] * 20,
        "not finite": [NAN, *losses[-20:]],
    }[end]

    def make():
        return GreedyLR(sgd(0.1, 0.07, tensors=tensors), decade_steps=40, config=DefaultConfig(window=5))

    straight = make()
    actions = []
    straight.subscribe(lambda decision: actions.append(decision.action.name))
    expected = trajectory(straight, losses)
    assert actions[40] == "SPIKE"
    assert actions.count("CLIMBING") >= 58
    ended_by = {None: "CLIMBING", "objection": "BACKED_OFF", "explosion": "EXPLOSION", "not finite": "NON_FINITE"}
    assert ended_by[end] in actions
    for at in (0, 1, 9, 10, 11, 40, 41, 42, *range(55, 75, 3)):
        first = make()
        assert trajectory(first, losses[:at]) == expected[:at]
        resumed, copied = make(), copy.deepcopy(first)
        resumed.load_state_dict(through(first.state_dict()))
        assert lrs_of(resumed) == lrs_of(copied) == lrs_of(first)
        assert trajectory(resumed, losses[at:]) == trajectory(copied, losses[at:]) == expected[at:]
        assert resumed.state_dict() == copied.state_dict() == straight.state_dict()


@makers
def test_looking_at_the_state_changes_nothing(make):
    looked_at, alone = make(sgd(0.1, 0.2)), make(sgd(0.1, 0.2))
    for loss in noisy_losses(3, 200):
        looked_at.step(loss)
        looked_at.state_dict(), looked_at.get_last_lr(), repr(looked_at), copy.copy(looked_at)
        alone.step(loss)
        assert lrs_of(looked_at) == lrs_of(alone)


TRAINING = """
import json, sys
import torch
from greedylr import DefaultConfig, GreedyLR

path, begin, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
if sys.argv[4] == "default":
    scheduler = GreedyLR(optimizer, decade_steps=40, total_steps=120, config=DefaultConfig(window=5))
else:
    scheduler = GreedyLR.paper(optimizer, patience=2, smooth=True, window_size=5, min_lr=1e-4)
if begin:
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
for step in range(begin, end):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 4, generator=generator)
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step(loss)
parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
torch.save({name: part.state_dict() for name, part in parts.items()}, path)
print(json.dumps([scheduler.get_last_lr(), [p.tolist() for p in model.parameters()], scheduler.state_dict()]))
"""


@pytest.mark.parametrize("family", ["default", pytest.param("paper", marks=pytest.mark.slow)])
def test_resuming_in_a_fresh_process(tmp_path, family):
    """Weights and learning rates, bit for bit."""

    def train(path, begin, end):
        command = [sys.executable, "-c", TRAINING, str(tmp_path / path), str(begin), str(end), family]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    straight = train("straight.pt", 0, 110)
    train("resumed.pt", 0, 47)
    assert train("resumed.pt", 47, 110) == straight
    assert straight[0] != [0.01]


# Just after something was changed from outside.


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize("optimizer_first", [True, False])
@makers
def test_checkpoint_just_after_a_group_was_added(make, after, optimizer_first):
    losses = [loss if math.isfinite(loss) else 5.0 for loss in noisy_losses(5, after + 60)]
    straight = make(sgd(0.1))
    trajectory(straight, losses[:after])
    add_group(straight.optimizer, 0.06)
    saved, saved_optimizer = through_json(straight.state_dict()), copy.deepcopy(straight.optimizer.state_dict())
    assert len(saved["state"]["lrs"]) == 2
    optimizer = sgd(0.1)
    add_group(optimizer, 0.06)
    resumed = make(optimizer)
    if optimizer_first:
        optimizer.load_state_dict(saved_optimizer)
    resumed.load_state_dict(saved)
    if not optimizer_first:
        optimizer.load_state_dict(saved_optimizer)
    assert lrs_of(resumed) == lrs_of(straight)
    assert trajectory(resumed, losses[after:]) == trajectory(straight, losses[after:])
    assert resumed.state_dict() == straight.state_dict()


def test_checkpoint_just_after_a_learning_rate_was_set_by_hand():
    straight = GreedyLR.paper(sgd(0.1), patience=2)
    trajectory(straight, [5, 4])
    straight.optimizer.param_groups[0]["lr"] = 0.3
    resumed = GreedyLR.paper(sgd(0.1))
    resumed.load_state_dict(through_json(straight.state_dict()))
    assert lrs_of(resumed) == [0.3]
    losses = [3, 3, 3, 3, 2, 1, 0]
    assert trajectory(resumed, losses) == trajectory(straight, losses)


# What is not a checkpoint of this scheduler.


def of_another_family():
    return GreedyLR.paper(sgd(0.1)).state_dict()


def of_another_scheduler():
    return CosineAnnealingLR(sgd(0.1), 10).state_dict()


def of_other_groups(n):
    return GreedyLR(sgd(*[0.1] * n)).state_dict()


def changed(path, value):
    def make():
        data = GreedyLR(sgd(0.1), config=DefaultConfig(window=5)).state_dict()
        *parents, name = path
        inner = data
        for parent in parents:
            inner = inner[parent]
        if value is ...:
            del inner[name]
        else:
            inner[name] = value
        return data

    return make


def of_lrs(lrs):
    data = GreedyLR(sgd(0.1)).state_dict()
    data["state"].update(lrs=lrs, initial_lrs=lrs)
    return data


WRONG = {
    "no group at all": (lambda: of_lrs([]), "parameter groups"),
    "more groups than it says": (lambda: of_lrs([0.1, 0.1, 0.1]), "parameter groups"),
    "another family": (of_another_family, "a state of the paper family cannot be loaded into the default one"),
    "another scheduler": (of_another_scheduler, "not a state dict of GreedyLR: it has the entries"),
    "nothing": (dict, "not a state dict of GreedyLR"),
    "more groups": (lambda: of_other_groups(3), "the saved state has 3 parameter groups, the optimizer has 2"),
    "fewer groups": (lambda: of_other_groups(1), "the saved state has 1 parameter groups, the optimizer has 2"),
    "no config": (changed(["config"], ...), "not a state dict of GreedyLR"),
    "no state": (changed(["state"], ...), "not a state dict of GreedyLR"),
    "something else in it": (changed(["epoch"], 3), "not a state dict of GreedyLR"),
    "unknown family": (changed(["family"], "greedy"), "a state of the greedy family"),
    "invalid setting": (changed(["config", "window"], -1), "window must be"),
    "setting of another kind": (changed(["config", "factor"], "0.5"), "factor must be"),
    "missing setting": (changed(["config", "factor"], ...), "missing entries .'factor'."),
    "missing state": (changed(["state", "scale"], ...), "missing entries .'scale'."),
    "unknown state": (changed(["state", "best"], 0.0), "unknown entries .'best'."),
    "lr of another kind": (changed(["state", "lrs"], ["0.1", "0.1"]), "lrs must be"),
    "lr missing": (changed(["state", "lrs"], None), "lrs must be"),
    "lr negative": (changed(["state", "lrs"], [-0.1]), "a learning rate must be"),
    "lr infinite": (changed(["state", "lrs"], ["inf"]), "a learning rate must be"),
    "initial lrs of other groups": (changed(["state", "initial_lrs"], [0.1, 0.1, 0.1]), "parameter groups"),
    "no lrs": (changed(["state", "lrs"], []), "parameter groups"),
    "losses": (changed(["state", "losses"], ["a"]), "losses must be"),
    "scale": (changed(["state", "scale"], None), "scale must be"),
    "bounds": (changed(["config", "min_scale"], [0.1, 0.1, 0.1]), "min_scale has 3 values"),
    "pending loss that no float can hold": (changed(["pending_loss"], 10**400), "pending_loss in the saved state must"),
    "pending loss": (
        changed(["pending_loss"], "soon"),
        "pending_loss in the saved state must be a number or None, got 'soon'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_checkpoint_raises_and_changes_nothing(name):
    make, message = WRONG[name]
    wrong = make()
    if "groups" in wrong and name not in ("more groups", "fewer groups"):
        wrong["groups"] = 2  # everything else as it should be
    scheduler, reference = (GreedyLR(sgd(0.1, 0.2), config=DefaultConfig(window=3)) for _ in range(2))
    losses = noisy_losses(1, 100)
    trajectory(scheduler, losses[:50]), trajectory(reference, losses[:50])
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict(wrong)
    assert scheduler.state_dict() == reference.state_dict()
    assert lrs_of(scheduler) == lrs_of(reference)
    assert trajectory(scheduler, losses[50:]) == trajectory(reference, losses[50:])


def test_a_default_checkpoint_is_not_for_the_paper_family():
    with pytest.raises(ValueError, match="a state of the default family cannot be loaded into the paper one"):
        GreedyLR.paper(sgd(0.1)).load_state_dict(GreedyLR(sgd(0.1)).state_dict())


# Copies and pickles.


def pickled(scheduler):
    return pickle.loads(pickle.dumps(scheduler))


def saved_whole(scheduler):
    buffer = io.BytesIO()
    torch.save(scheduler, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@makers
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved_whole])
@pytest.mark.parametrize("at", [0, 3, 57])
def test_copies_go_on_by_themselves(make, copied, at):
    losses = noisy_losses(7, 160)
    original, reference = make(sgd(0.1, 0.2)), make(sgd(0.1, 0.2))
    calls = []
    original.subscribe(calls.append)
    trajectory(original, losses[:at]), trajectory(reference, losses[:at])
    other = copied(original)
    assert type(other) is GreedyLR
    assert other.optimizer is not original.optimizer
    assert other.state_dict() == original.state_dict()
    assert lrs_of(other) == lrs_of(original)
    expected = trajectory(reference, losses[at:])
    assert trajectory(other, losses[at:]) == expected
    assert len(calls) == at  # observers stay with the original
    assert original.last_epoch == at  # which has not moved
    assert trajectory(original, losses[at:]) == expected
    assert len(calls) == 160


def test_a_model_and_its_scheduler_are_copied_together():
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = GreedyLR(optimizer)
    new_model, new_optimizer, new_scheduler = copy.deepcopy((model, optimizer, scheduler))
    assert new_scheduler.optimizer is new_optimizer
    assert new_optimizer.param_groups[0]["params"][0] is new_model.weight


def test_copies_keep_how_losses_are_read():
    scheduler = GreedyLR(sgd(), read="now", average_ranks=False)
    other = copy.deepcopy(scheduler)
    assert (other._read_mode, other._average_ranks) == ("now", False)


def test_a_shallow_copy_shares_the_optimizer_alone():
    scheduler = GreedyLR(sgd(0.1), **QUICK)
    trajectory(scheduler, noisy_losses(2, 50))
    rates = lrs_of(scheduler)
    other = copy.copy(scheduler)
    assert other.optimizer is scheduler.optimizer
    assert lrs_of(other) == rates
    other.step(1.0)
    assert other.last_epoch == scheduler.last_epoch + 1


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_copies_of_a_scheduler_with_an_added_group(copied):
    scheduler = GreedyLR(sgd(0.1), **QUICK)
    trajectory(scheduler, [1.0, 2.0])
    add_group(scheduler.optimizer)
    other = copied(scheduler)
    losses = noisy_losses(4, 50)
    assert trajectory(other, losses) == trajectory(scheduler, losses)
    assert len(other.base_lrs) == 2


def test_plain_data_all_the_way_down():
    def kinds(value):
        if isinstance(value, dict):
            return {str}.union(*map(kinds, value.values())) | {type(key) for key in value} | {dict}
        if isinstance(value, list):
            return {list}.union(*map(kinds, value))
        return {type(value)}

    for make in MAKERS.values():
        scheduler = make(sgd(0.1, 0.2, tensors=True))
        trajectory(scheduler, map(torch.tensor, noisy_losses(1, 77)))
        assert kinds(scheduler.state_dict()) <= {dict, list, str, int, float, bool, type(None)}


def entries(tree, path=()):
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from entries(value, (*path, name))
    elif path:
        yield path


BAD = [None, -1, -1.5, 0, 1e308, -1e308, "x", "inf", [], [1], [None], {}, True, 2**70, math.nan, math.inf, 1e-320]
DAMAGED = {
    "default": lambda: GreedyLR(sgd(0.1), decade_steps=20, total_steps=200, config=DefaultConfig(window=5)),
    "levels": lambda: GreedyLR(sgd(0.1), warmup_steps=0, level_by="d", config=DefaultConfig(window=4)),
    "paper": lambda: GreedyLR.paper(sgd(0.1), patience=1, smooth=True, window_size=5, min_lr=1e-4),
    "core": lambda: GreedyLR.core(sgd(0.1)),
}


@pytest.mark.filterwarnings("ignore:total_steps=:UserWarning")
@pytest.mark.parametrize("make", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_state_is_refused_or_can_be_gone_on_from_for_ever(make):
    """Every entry with every bad value: a ValueError, or three hundred hostile losses without an error."""
    r = random.Random(0)
    for at in (0, 17):
        scheduler = make()
        for step in range(at):
            scheduler.step(2 - step / 100 + r.gauss(0, 0.1), composition={"d": str(step % 2)})
        good = scheduler.state_dict()
        for path in entries(good):
            for bad in r.sample(BAD, 6):
                damaged = copy.deepcopy(good)
                inner = damaged
                for name in path[:-1]:
                    inner = inner[name]
                inner[path[-1]] = bad
                other = make()
                before = other.state_dict()
                try:
                    other.load_state_dict(damaged)
                except ValueError:
                    assert other.state_dict() == before
                    continue
                if path == ("levels", "by"):
                    continue  # Its batches name another column.
                for step in range(100):
                    other.step(r.choice([1.0, 2.0, 1e30, NAN, math.inf, -5.0, 1.5]), composition={"d": str(step % 2)})
                    assert math.isfinite(other.optimizer.param_groups[0]["lr"])
                make().load_state_dict(other.state_dict())


@pytest.mark.parametrize("bad", [None, 7, "state", [], {}, {"family": "default"}])
def test_what_is_no_state_is_a_value_error(bad):
    with pytest.raises(ValueError, match="state"):
        GreedyLR(sgd(0.1)).load_state_dict(bad)


def test_damaged_states_of_transformers_are_value_errors():
    optimization = pytest.importorskip("transformers.optimization")
    if not hasattr(optimization, "GreedyLR"):
        pytest.skip("this version of transformers has no GreedyLR")
    peer = optimization.GreedyLR(sgd(0.1), patience=2, smooth=True)
    for loss in (3.0, 2.0, 1.0):
        peer.step(loss)
    for name in peer.state_dict():
        for bad in [*BAD, "gone"]:
            state = copy.deepcopy(peer.state_dict())
            if bad == "gone":
                del state[name]
            else:
                state[name] = bad
            scheduler = GreedyLR.paper(sgd(0.1))
            with contextlib.suppress(ValueError):
                scheduler.load_state_dict(state)
                for _ in range(50):
                    scheduler.step(2.0)


def test_the_core_rule_never_reaches_an_infinite_learning_rate():
    scheduler = GreedyLR.core(sgd(0.1), factor=0.1)
    for step in range(1000):
        scheduler.step(-float(step))
    assert scheduler.get_last_lr() == [sys.float_info.max]
    GreedyLR.core(sgd(0.1)).load_state_dict(scheduler.state_dict())
    scheduler.step(0.0)
    assert scheduler.get_last_lr()[0] < sys.float_info.max


def test_numbers_of_other_libraries_are_settings():
    np = pytest.importorskip("numpy")
    scheduler = GreedyLR(
        sgd(0.1, 0.2),
        total_steps=np.int64(500),
        anneal=torch.tensor(0.25),
        max_scale=np.array([2.0, 4.0]),
        min_scale=[np.float64(0.1), torch.tensor(0.5)],
        config=DefaultConfig(window=np.array(7), factor=np.float32(0.5)),
    )
    config = scheduler.config
    assert (config.total_steps, config.window, config.factor, config.anneal) == (500, 7, 0.5, 0.25)
    assert (config.max_scale, config.min_scale) == ((2.0, 4.0), (0.1, 0.5))
    assert {type(config.total_steps), type(config.window)} == {int}
    json.dumps(scheduler.state_dict(), allow_nan=False)
    paper = GreedyLR.paper(sgd(0.1), patience=np.int32(3), min_lr=np.float64(1e-3))
    assert (paper.config.patience, type(paper.config.patience)) == (3, int)
    with pytest.raises(TypeError, match="window must be an integer"):
        GreedyLR(sgd(0.1), config=DefaultConfig(window=np.array([7, 8])))


# Distributed checkpoints restore the entries that the target has, and no others.

FAMILIES = {
    "default": lambda: GreedyLR(sgd(0.1, 0.2), decade_steps=10),
    "horizon": lambda: GreedyLR(sgd(0.1, 0.2), total_steps=200, min_scale=[0.0, 0.1]),
    "levels": lambda: GreedyLR(sgd(0.1, 0.2), warmup_steps=0, level_by="domain", config=DefaultConfig(window=5)),
    "paper": lambda: GreedyLR.paper(sgd(0.1, 0.2), patience=2, smooth=True),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pending", [None, 2.5, "nan"])
@pytest.mark.parametrize("steps", [0, 2, 77])
@pytest.mark.parametrize("family", FAMILIES)
@WITHOUT_PROCESSES
def test_a_distributed_checkpoint_brings_everything_back(family, steps, pending, tmp_path):
    losses = [loss if math.isfinite(loss) else 9.0 for loss in noisy_losses(3, 150)]

    def stepped(scheduler, some):
        for number, loss in enumerate(some):
            scheduler.step(loss, composition={"domain": "abc"[number % 3]})
        return scheduler.state_dict()

    trained, fresh = FAMILIES[family](), FAMILIES[family]()
    saved = stepped(trained, losses[:steps])
    saved |= {"pending_loss": pending, "pending_domain": "b" if pending is not None and family == "levels" else None}
    trained.load_state_dict(saved)
    torch.distributed.checkpoint.save({"scheduler": trained.state_dict()}, checkpoint_id=tmp_path, no_dist=True)
    target = {"scheduler": fresh.state_dict()}
    torch.distributed.checkpoint.load(target, checkpoint_id=tmp_path, no_dist=True)
    fresh.load_state_dict(target["scheduler"])
    assert fresh.state_dict() == trained.state_dict() == saved
    assert stepped(fresh, losses[steps:]) == stepped(trained, losses[steps:])


@pytest.mark.filterwarnings("ignore")
@WITHOUT_PROCESSES
def test_a_distributed_checkpoint_without_levels_is_not_taken_for_one_with_them(tmp_path):
    torch.distributed.checkpoint.save(
        {"scheduler": FAMILIES["default"]().state_dict()}, checkpoint_id=tmp_path, no_dist=True
    )
    target = {"scheduler": FAMILIES["levels"]().state_dict()}
    with pytest.raises(torch.distributed.checkpoint.api.CheckpointException, match="Missing key"):
        torch.distributed.checkpoint.load(target, checkpoint_id=tmp_path, no_dist=True)
