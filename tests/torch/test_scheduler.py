"""GreedyLR as users of torch's schedulers meet it."""

import copy
import dataclasses
import inspect
import math
import random
from fractions import Fraction

import numpy
import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler, SequentialLR, StepLR

from greedylr import Action, Decision, GreedyLR
from greedylr.control import rule
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig

QUICK = {"warmup_steps": 0, "config": DefaultConfig(window=2, significance=1.0, factor=0.5, reflex_factor=0.5)}
RAISE = [15.0, 13.0, 12.0, 10.0]  # two windows of two: one raise; twice two better ones: two
NAN = math.nan


def sgd(*lrs):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs or (0.1,)]
    return torch.optim.SGD(groups, lr=0.1)


def add_group(optimizer, lr=0.01):
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr})


def lrs_of(scheduler):
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def feed(scheduler, losses):
    for loss in losses:
        # A float takes the fast path, everything else the slow one.
        scheduler.step(float(loss) if isinstance(loss, int) else loss)
    return lrs_of(scheduler)


def quick_paper(optimizer, **settings):
    return GreedyLR.paper(optimizer, **{"patience": 1, "factor": 0.5, "min_lr": 1e-6, **settings})


FAMILIES = {"default": lambda optimizer: GreedyLR(optimizer, **QUICK), "paper": quick_paper}
families = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
WITH_CLIMB = {
    **FAMILIES,
    "climb": lambda optimizer: GreedyLR(optimizer, decade_steps=30, config=DefaultConfig(window=5, significance=1.0)),
}
with_climb = pytest.mark.parametrize("make", WITH_CLIMB.values(), ids=WITH_CLIMB)


def noisy_losses(seed, n=300):
    r = random.Random(seed)
    special = {40: NAN, 77: 50.0, 120: 60.0, 121: 70.0, 200: math.inf}
    return [special.get(step, 2 + math.sin(step / 40) + r.gauss(0, 0.2)) for step in range(n)]


# What torch's users expect.


@families
def test_is_a_scheduler_of_torch(make):
    optimizer = sgd(0.1, 0.2)
    scheduler = make(optimizer)
    assert isinstance(scheduler, LRScheduler)
    assert scheduler.optimizer is optimizer
    assert scheduler.base_lrs == [0.1, 0.2]
    assert scheduler.get_last_lr() == scheduler.get_lr() == scheduler._last_lr == lrs_of(scheduler) == [0.1, 0.2]
    assert scheduler.last_epoch == 0
    assert [group["initial_lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    feed(scheduler, RAISE)
    assert scheduler.last_epoch == 4
    assert scheduler.base_lrs == [0.1, 0.2]
    assert scheduler.get_last_lr() == lrs_of(scheduler)
    assert scheduler.get_last_lr() > [0.1, 0.2]


@families
def test_what_it_returns_is_a_copy(make):
    scheduler = make(sgd(0.1))
    for got in (scheduler.get_last_lr(), scheduler.get_lr(), scheduler.base_lrs, scheduler._last_lr):
        got[0] = 7.0
    assert scheduler.get_last_lr() == scheduler.base_lrs == [0.1]


def test_starts_from_initial_lr_as_torch_does():
    """The default family, as torch's schedulers; the published implementation starts from the rate in force."""
    optimizer = sgd(0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.4
    assert lrs_of(GreedyLR(optimizer, warmup_steps=0)) == [0.4]
    assert lrs_of(GreedyLR(optimizer, warmup_steps=4)) == [0.2]
    assert GreedyLR(optimizer).base_lrs == [0.4]
    optimizer.param_groups[0]["lr"] = 0.1
    assert lrs_of(GreedyLR.paper(optimizer)) == [0.1]


def test_repr():
    assert repr(GreedyLR(sgd(0.1), warmup_steps=4)) == "GreedyLR(step=0, lr=0.05)"
    assert repr(GreedyLR(sgd(0.1), warmup_steps=0)) == "GreedyLR(step=0, lr=0.1)"
    assert repr(GreedyLR.paper(sgd(0.1, 0.2))) == "GreedyLR.paper(step=0, lr=0.1, 0.2)"


def test_config_is_what_was_chosen():
    assert GreedyLR(sgd()).config == DefaultConfig()
    assert GreedyLR.paper(sgd()).config == PaperConfig()
    assert GreedyLR.core(sgd(), factor=0.5, mode="max").config == PaperConfig.core(0.5, "max")
    given = {"total_steps": 900, "mode": "max", "decade_steps": 70, "warmup_steps": 3}
    given |= {"min_scale": 0.1, "max_scale": 9.0, "await_validation": True, "anneal": 0.3}
    rest = {"start_scale": 0.5, "objection": 4.0, "back_off": 5.0, "window": 7, "significance": 3.0, "factor": 0.8}
    rest |= {"reflex_factor": 0.4, "spike": 3.0, "polyak": 1.0, "headroom": 9.0, "catch_up_steps": 11}
    whole = DefaultConfig(**given, **rest)
    assert {field.name for field in dataclasses.fields(whole) if field.init} == {*given, *rest}
    assert GreedyLR(sgd(), config=whole).config == whole
    assert GreedyLR(sgd(), **given, config=DefaultConfig(**rest)).config == whole
    # What is given by name counts, its default included.
    others = {"total_steps": None, "mode": "min", "decade_steps": 0, "warmup_steps": None}
    others |= {"min_scale": 1e-5, "max_scale": 1e3, "await_validation": False, "anneal": 0.9}
    assert GreedyLR(sgd(), **others, config=whole).config == DefaultConfig(**rest)
    with pytest.raises(TypeError, match=r"config must be a greedylr\.DefaultConfig, got PaperConfig\("):
        GreedyLR(sgd(), config=PaperConfig())
    with pytest.raises(TypeError, match=r"no argument 'window' \(.*config=greedylr\.DefaultConfig\(window=20\)\)"):
        GreedyLR(sgd(), window=20)
    chosen = {
        "mode": "max", "factor": 0.8, "patience": 3, "threshold": 0.1, "threshold_mode": "rel", "cooldown": 2,
        "warmup": 4, "min_lr": 0.05, "max_lr": 0.5, "eps": 1e-5, "smooth": True, "window_size": 9, "reset_start": 8,
        "compare": "previous",
    }  # fmt: skip
    assert GreedyLR.paper(sgd(), **chosen).config == PaperConfig(**chosen)


@pytest.mark.parametrize("function", [GreedyLR.__init__, GreedyLR.paper])
def test_everything_but_the_optimizer_is_said_by_name(function):
    parameters = inspect.signature(function).parameters
    others = [parameter for name, parameter in parameters.items() if name not in ("self", "optimizer")]
    assert {parameter.kind for parameter in others[:-1]} == {inspect.Parameter.KEYWORD_ONLY}
    assert others[-1].kind is inspect.Parameter.VAR_KEYWORD
    # Settings have their defaults in one place.
    shared = [parameters[field.name] for field in dataclasses.fields(DefaultConfig) if field.name in parameters]
    assert {repr(parameter.default) for parameter in shared} <= {"<as in config>"}


@pytest.mark.parametrize("function", [GreedyLR, GreedyLR.paper, GreedyLR.core, GreedyLR.step, GreedyLR.load_state_dict])
def test_every_argument_is_in_the_docstring(function):
    described = inspect.getdoc(function).split("Args:")[1]
    for name in inspect.signature(function).parameters:
        assert name == "self" or f"    {'**' * (name in ('unknown', 'settings'))}{name}: " in described


@families
def test_a_chain_of_schedulers_gets_an_error_it_can_act_on(make):
    scheduler = make(sgd())
    with pytest.raises(TypeError, match=r"needs the loss: call scheduler\.step\(loss\) after optimizer\.step\(\)"):
        scheduler.step()
    with pytest.raises((AttributeError, TypeError)):  # at construction
        SequentialLR(scheduler.optimizer, [scheduler, StepLR(scheduler.optimizer, 5)], milestones=[3])


# Optimizers.

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam, tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.001),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
}
if hasattr(torch.optim, "Adafactor"):  # from torch 2.5 on
    OPTIMIZERS["Adafactor"] = lambda p: torch.optim.Adafactor(p, lr=0.01)


@pytest.fixture
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trains(name):
    """A real, if tiny, training: the learning rate moves, and the loss goes down."""
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = torch.tanh(x @ torch.randn(8, 1))
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = OPTIMIZERS[name](model.parameters())
    before = float(optimizer.param_groups[0]["lr"])
    scheduler = GreedyLR(optimizer, total_steps=300)
    losses, rates = [], []
    for _ in range(300):
        # LBFGS compares gradients from step to step, which is only sound on the same examples.
        batch = torch.arange(256) if name == "LBFGS" else torch.randint(0, 256, (32,))

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = (model(x[batch]) - y[batch]).square().mean()
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        scheduler.step(loss)
        losses.append(loss.item())
        rates.append(float(optimizer.param_groups[0]["lr"]))
    assert len(set(rates)) > 100
    assert rates[-1] == pytest.approx(before * 1e-5, rel=1e-6)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_groups_have_their_own_bounds():
    scheduler = GreedyLR(sgd(0.1, 1.0), **QUICK, min_scale=[0.5, 1.0], max_scale=[4.0, 1.0])
    assert feed(scheduler, [13, 15, 10, 12, 7, 9, 4, 6]) == [0.4, 1.0]
    scheduler = quick_paper(sgd(0.1, 1.0), min_lr=[0.05, 0.7], max_lr=[0.15, 1.5])
    assert feed(scheduler, [3, 2]) == [0.15, 1.5]
    assert feed(scheduler, [2, 2, 2, 2, 2, 2]) == [0.05, 0.7]


# Groups that are added in mid-run.


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_an_added_group_joins_with_the_next_step(watched, as_tensor):
    early, late = GreedyLR(sgd(0.1, 0.01), **QUICK), GreedyLR(sgd(0.1), **QUICK)
    if watched:
        late.subscribe(lambda decision: None)
    given = (lambda loss: torch.tensor(loss)) if as_tensor else float
    feed(early, RAISE)
    feed(late, map(given, RAISE))
    add_group(late.optimizer, 0.01)
    assert feed(late, [given(7.0)]) == [0.2, 0.02]  # gathered, nothing decided
    assert feed(late, [given(9.0)]) == feed(early, [7.0, 9.0]) == [0.4, 0.04]
    assert late.base_lrs == early.base_lrs == [0.1, 0.01]
    assert late.state_dict() == early.state_dict()
    assert late.optimizer.param_groups[1]["initial_lr"] == 0.01


@families
def test_an_added_group_may_bring_an_initial_learning_rate(make):
    scheduler = make(sgd(0.1))
    add_group(scheduler.optimizer, 0.01)
    scheduler.optimizer.param_groups[1]["initial_lr"] = 0.05
    assert feed(scheduler, RAISE)[1] == 2 * (2 * 0.01 if make is quick_paper else 0.05)


def test_an_added_group_climbs_with_the_others():
    early, late = (
        GreedyLR(sgd(*lrs), decade_steps=1, config=DefaultConfig(start_scale=0.25)) for lrs in ((0.1, 0.01), (0.1,))
    )
    assert feed(late, [1.0]) == [0.1 * 2.5]
    add_group(late.optimizer, 0.01)
    feed(early, [1.0])
    for loss in (1.0, 1.0, NAN, 1.0):
        assert feed(late, [loss]) == feed(early, [loss])
    assert late.state_dict() == early.state_dict()


@pytest.mark.parametrize("watched", [False, True])
def test_an_added_group_of_the_paper_keeps_its_learning_rate(watched):
    scheduler = quick_paper(sgd(0.1))
    if watched:
        scheduler.subscribe(lambda decision: None)
    feed(scheduler, [3, 2])
    add_group(scheduler.optimizer, 0.03)
    assert feed(scheduler, [1]) == [0.2, 0.03]
    assert feed(scheduler, [0]) == [0.4, 0.06]
    assert feed(scheduler, [-1, -2]) == [0.8, 0.12]


def test_an_added_group_does_not_undo_a_learning_rate_set_by_hand():
    scheduler = quick_paper(sgd(0.1), cooldown=3)
    feed(scheduler, [3, 3, 3])
    scheduler.optimizer.param_groups[0]["lr"] = 0.7
    add_group(scheduler.optimizer, 0.03)
    assert feed(scheduler, [3, 3, 3]) == [0.7, 0.03]
    assert feed(scheduler, [2, 1]) == [1.0, 0.06]


@families
def test_an_added_group_with_bounds_for_others(make):
    bounds = {"min_scale": [0.5]} if make is not quick_paper else {"min_lr": [0.01]}
    scheduler = GreedyLR(sgd(0.1), **QUICK, **bounds) if make is not quick_paper else quick_paper(sgd(0.1), **bounds)
    add_group(scheduler.optimizer)
    with pytest.warns(UserWarning, match="1 of 2 parameter groups joined later, .* the widest of them"):
        scheduler.step(RAISE[0])
    feed(scheduler, RAISE[1:])
    name = "min_lr" if make is quick_paper else "min_scale"
    assert getattr(scheduler.config, name) == (*bounds[name], *bounds[name])
    copy.deepcopy(scheduler).step(1.0)


def test_a_lost_group():
    scheduler = GreedyLR(sgd(0.1, 0.2), **QUICK)
    del scheduler.optimizer.param_groups[1]
    with pytest.raises(ValueError, match="lost parameter groups: 2 before, 1 now"):
        feed(scheduler, RAISE)


# Learning rates that are tensors.


@pytest.mark.parametrize("bounds", [{}, {"max_scale": [4.0, 8.0]}])
def test_groups_that_share_a_tensor_get_one_each(bounds):
    lr = torch.tensor(0.1, dtype=torch.float64)
    shared, floats = (
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=lr),
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1),
    )
    for optimizer in (shared, floats):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    schedulers = [GreedyLR(optimizer, **QUICK, **bounds) for optimizer in (shared, floats)]
    assert shared.param_groups[0]["lr"] is lr  # what captured optimizers hold on to
    for optimizer in () if bounds else (shared, floats):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    for loss in [*RAISE, -30, -28, -60, -58]:
        for scheduler in schedulers:
            scheduler.step(float(loss))
        assert lrs_of(schedulers[0]) == pytest.approx(lrs_of(schedulers[1]))
    assert len({id(group["lr"]) for group in shared.param_groups}) == len(shared.param_groups)


@with_climb
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensor_learning_rates_are_written_in_place(make, dtype):
    lr = torch.tensor(0.1, dtype=dtype)
    optimizer = sgd(lr, 0.1)
    reference = make(sgd(lr.item(), 0.1))  # first: the other writes to the tensor at once if it climbs
    scheduler = make(optimizer)
    for loss in noisy_losses(0):
        scheduler.step(loss)
        reference.step(loss)
        assert optimizer.param_groups[0]["lr"] is lr
        first, second = lrs_of(reference)
        assert lr.item() == torch.tensor(first, dtype=dtype).item()
        assert optimizer.param_groups[1]["lr"] == second
    got = scheduler.get_last_lr()
    assert (got[0].dtype, got[0].item(), type(got[1])) == (dtype, lr.item(), float)
    assert got[0] is not lr
    assert torch.is_tensor(optimizer.param_groups[0]["initial_lr"])
    assert optimizer.param_groups[0]["initial_lr"] is not lr
    assert optimizer.param_groups[0]["initial_lr"].item() == scheduler.base_lrs[0]


def test_an_integer_learning_rate_becomes_a_float():
    scheduler = GreedyLR(sgd(1), **QUICK)
    assert feed(scheduler, RAISE) == [2.0]
    assert type(lrs_of(scheduler)[0]) is float


@pytest.mark.parametrize("lr", [NAN, math.inf])
@pytest.mark.parametrize("make", [GreedyLR, GreedyLR.paper])
def test_a_learning_rate_that_is_none(make, lr):
    with pytest.raises(ValueError, match="a learning rate must be a finite number of at least 0, got"):
        make(sgd(lr))


# Losses.

LOSSES = {
    "float": float,
    "int": int,
    "Fraction": Fraction,
    "numpy float64": numpy.float64,
    "numpy float32": numpy.float32,
    "numpy int": numpy.int64,
    "0-d array": numpy.array,
    "0-d tensor": torch.tensor,
    "1-element tensor": lambda loss: torch.tensor([loss]),
    "1x1 tensor": lambda loss: torch.tensor([[loss]]),
    "float64 tensor": lambda loss: torch.tensor(loss, dtype=torch.float64),
    "bfloat16 tensor": lambda loss: torch.tensor(loss, dtype=torch.bfloat16),
    "float16 tensor": lambda loss: torch.tensor(loss, dtype=torch.float16),
    "int tensor": lambda loss: torch.tensor(int(loss)),
    "with a graph": lambda loss: torch.tensor(loss, requires_grad=True) * 1,
    "a leaf": lambda loss: torch.tensor(loss, requires_grad=True),
    "a parameter": lambda loss: torch.nn.Parameter(torch.tensor(loss)),
}


@families
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_of_every_kind(make, kind):
    losses = [*RAISE, 7.0, 9.0, 20.0, 25.0]
    scheduler, reference = make(sgd()), make(sgd())
    seen = []
    scheduler.subscribe(seen.append)
    for loss in losses:
        scheduler.step(LOSSES[kind](loss))
        reference.step(loss)
        assert lrs_of(scheduler) == lrs_of(reference)
    assert [decision.loss for decision in seen] == losses
    assert all(type(decision.loss) is float for decision in seen)
    assert scheduler.state_dict() == reference.state_dict()


def test_a_loss_is_not_rounded_on_the_way():
    for make in (float, lambda loss: torch.tensor(loss, dtype=torch.float64)):
        scheduler = GreedyLR(sgd(), warmup_steps=0)
        scheduler.step(make(1 / 3))
        assert scheduler.state_dict()["state"]["losses"] == [1 / 3]
        scheduler = GreedyLR(sgd(), decade_steps=100)
        scheduler.step(make(1 / 3))
        assert scheduler.state_dict()["state"]["last"] == 1 / 3


def test_the_graph_of_a_loss_is_not_kept():
    weight = torch.ones(1, requires_grad=True)
    loss = (weight * 2).sum()
    GreedyLR(sgd()).step(loss)
    loss.backward()
    assert weight.grad.item() == 2


@families
@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (torch.zeros(2), ValueError, r"loss must be one real number, got a tensor of shape \(2,\), torch.float32"),
        (torch.zeros(0), ValueError, r"shape \(0,\)"),
        (torch.tensor(1j), ValueError, "torch.complex64"),
        (None, TypeError, "needs the loss"),
        ("1.0", TypeError, "loss must be a float or a tensor with one element, got '1.0'"),
        (b"1", TypeError, "loss must be a float"),
        ([1.0], TypeError, "list"),
        ({"loss": 1.0}, TypeError, "dict"),
        (1j, TypeError, "complex"),
        (numpy.zeros(2), TypeError, "array"),
    ],
    ids=repr,
)
def test_what_is_no_loss(make, loss, error, message):
    scheduler = make(sgd())
    before = scheduler.state_dict()
    with pytest.raises(error, match=message):
        scheduler.step(loss)
    assert scheduler.state_dict() == before


# Learning rates set by hand.


@pytest.mark.parametrize("watched", [False, True])
def test_the_default_family_goes_on_from_a_learning_rate_that_was_set_by_hand(watched):
    scheduler = GreedyLR(sgd(0.1, 0.3), **QUICK, max_scale=4.0)
    seen = []
    if watched:
        scheduler.subscribe(seen.append)
    scheduler.optimizer.param_groups[0]["lr"] = 5.0
    assert scheduler.get_last_lr() == [5.0, 0.3]
    assert feed(scheduler, RAISE) == [10.0, 0.6]
    scheduler.optimizer.param_groups[0]["lr"] = 1.0
    assert scheduler.get_last_lr() == [1.0, 0.6]
    assert scheduler.state_dict()["state"]["lrs"] == [1.0, 0.6]
    assert scheduler.base_lrs == [0.5, 0.3]
    feed(scheduler, [-30, -28])
    assert feed(scheduler, [-60, -58]) == [2.0, 1.2]  # max_scale, of the initial learning rate that this makes
    assert not watched or seen[4].lr_before == (1.0, 0.6)


def test_before_the_first_step_a_learning_rate_that_was_set_by_hand_is_the_initial_one():
    scheduler = GreedyLR(sgd(0.1), decade_steps=10, config=DefaultConfig(start_scale=0.25))
    scheduler.optimizer.param_groups[0]["lr"] = 1e-3
    assert scheduler.get_last_lr() == [1e-3]
    assert feed(scheduler, [2.0]) == pytest.approx([1e-3 * 0.25 * 10**0.1])
    assert scheduler.base_lrs == [1e-3]


def test_the_learning_rate_in_the_optimizer_is_the_initial_one():
    optimizer = sgd(0.1)
    GreedyLR(optimizer)
    assert lrs_of(GreedyLR(optimizer)) == [0.1 * math.sqrt(0.05)]  # The cell was run twice.
    optimizer.param_groups[0]["lr"] = 1e-3
    assert lrs_of(GreedyLR(optimizer, warmup_steps=0, max_scale=1)) == [1e-3]
    assert optimizer.param_groups[0]["initial_lr"] == 1e-3
    assert GreedyLR(optimizer).base_lrs == [1e-3]


@pytest.mark.parametrize("watched", [False, True])
def test_the_paper_family_goes_on_from_there(watched):
    scheduler = quick_paper(sgd(0.1))
    seen = []
    if watched:
        scheduler.subscribe(seen.append)
    feed(scheduler, [5])
    scheduler.optimizer.param_groups[0]["lr"] = 0.3
    assert scheduler.get_last_lr() == [0.3]
    assert feed(scheduler, [4]) == [0.6]
    assert scheduler.base_lrs == [0.1]
    scheduler.optimizer.param_groups[0]["lr"] = 1
    assert repr(scheduler.state_dict()["state"]["lrs"]) == "[1.0]"
    assert not watched or seen[-1].lr_before == (0.3,)
    scheduler.optimizer.param_groups[0]["lr"] = NAN
    before = scheduler.last_epoch
    with pytest.raises(ValueError, match="a learning rate must be a finite number"):
        feed(scheduler, [4, 4])
    assert scheduler.last_epoch in (before, before + 1)


# Observers.


@with_climb
def test_a_watched_scheduler_does_what_an_unwatched_one_does(make):
    for seed in range(5):
        alone, watched, tensors = make(sgd(0.1, 0.2)), make(sgd(0.1, 0.2)), make(sgd(0.1, 0.2))
        seen = []
        watched.subscribe(seen.append)
        for step, loss in enumerate(noisy_losses(seed), start=1):
            alone.step(loss)
            watched.step(loss)
            tensors.step(torch.tensor(loss, dtype=torch.float64))
            assert lrs_of(alone) == lrs_of(watched) == lrs_of(tensors) == list(seen[-1].lr_after)
            assert seen[-1].step == step == alone.last_epoch
        assert alone.state_dict() == watched.state_dict() == tensors.state_dict()


@with_climb
def test_decisions_are_those_of_the_rule(make):
    scheduler = make(sgd(0.1, 0.2))
    seen = []
    scheduler.subscribe(seen.append)
    feed(scheduler, noisy_losses(1))
    state = rule.start(scheduler.config, [0.1, 0.2])
    expected = [rule.observe(scheduler.config, state, loss) for loss in noisy_losses(1)]
    assert list(map(repr, seen)) == list(map(repr, expected))
    assert all(isinstance(decision, Decision) for decision in seen)
    expected = {Action.NON_FINITE, Action.RAISED, Action.CUT}
    if make is WITH_CLIMB["climb"]:
        expected = {Action.CLIMBING, Action.NON_FINITE}
    assert expected <= {decision.action for decision in seen}


@pytest.mark.parametrize(
    "settings", [QUICK, {"decade_steps": 1, "max_scale": 2.0, "config": DefaultConfig(start_scale=0.25)}], ids=str
)
def test_observers_see_the_learning_rate_in_the_optimizer(settings):
    scheduler = GreedyLR(sgd(), **settings)
    pairs = []
    scheduler.subscribe(lambda decision: pairs.append((decision.lr_after, tuple(lrs_of(scheduler)))))
    feed(scheduler, RAISE)
    assert pairs[-1] == ((0.2,), (0.2,))
    assert all(told == written for told, written in pairs)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_the_climb_reaches_the_optimizer_at_every_step(watched, as_tensor):
    """From before the first step on, with every way of observing and for learning rates of either kind."""
    optimizer = sgd(0.5, torch.tensor(0.25, dtype=torch.float64))
    scheduler = GreedyLR(optimizer, decade_steps=4, config=DefaultConfig(start_scale=0.125))
    if watched:
        scheduler.subscribe(lambda decision: None)
    for step in range(8):
        scale = 0.125 * 10 ** (step / 4)
        assert list(map(float, lrs_of(scheduler))) == pytest.approx([0.5 * scale, 0.25 * scale])
        assert list(map(float, scheduler.get_last_lr())) == list(map(float, lrs_of(scheduler)))
        scheduler.step(torch.tensor(2.0) if as_tensor else 2.0)
    before = 0.125 * 100
    scheduler.step(NAN)
    assert lrs_of(scheduler)[0] == pytest.approx(0.5 * before)
    scheduler.step(NAN)
    assert lrs_of(scheduler)[0] == pytest.approx(0.5 * before / 8)
    assert isinstance(lrs_of(scheduler)[1], torch.Tensor)
    assert scheduler.base_lrs == [0.5, 0.25]


def test_subscriptions():
    scheduler = GreedyLR(sgd())
    calls = []
    stop_a = scheduler.subscribe(lambda decision: calls.append("a"))
    stop_b = scheduler.subscribe(lambda decision: calls.append("b"))
    scheduler.step(1.0)
    stop_a()
    stop_a()  # twice does no harm
    scheduler.step(1.0)
    stop_b()
    scheduler.step(1.0)
    assert calls == ["a", "b", "b"]


def test_the_same_observer_may_subscribe_twice():
    scheduler = GreedyLR(sgd())
    calls = []
    stop = scheduler.subscribe(calls.append)
    scheduler.subscribe(calls.append)
    scheduler.step(1.0)
    stop()
    scheduler.step(1.0)
    assert [decision.step for decision in calls] == [1, 1, 2]


def test_subscribing_and_unsubscribing_while_being_called():
    scheduler = GreedyLR(sgd())
    calls = []

    def once(decision):
        calls.append("once")
        stop()
        scheduler.subscribe(lambda decision: calls.append("new"))

    stop = scheduler.subscribe(once)
    scheduler.subscribe(lambda decision: calls.append("other"))
    scheduler.step(1.0)
    assert calls == ["once", "other"]
    scheduler.step(1.0)
    assert calls == ["once", "other", "other", "new"]


@with_climb
def test_an_observer_that_raises_leaves_the_scheduler_as_it_should_be(make):
    scheduler, reference = make(sgd()), make(sgd())

    def angry(decision):
        raise RuntimeError("disk full")

    stop = scheduler.subscribe(angry)
    for loss in RAISE:
        with pytest.raises(RuntimeError, match="disk full"):
            scheduler.step(loss)
    assert lrs_of(scheduler) == feed(reference, RAISE)
    stop()
    assert feed(scheduler, noisy_losses(2)) == feed(reference, noisy_losses(2))
    assert scheduler.state_dict() == reference.state_dict()


def test_an_observer_may_look_at_the_scheduler():
    scheduler = GreedyLR(sgd(), **QUICK)
    seen = []
    scheduler.subscribe(lambda decision: seen.append((scheduler.last_epoch, scheduler.state_dict()["state"]["lrs"])))
    feed(scheduler, RAISE)
    assert seen[-1] == (4, [0.2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_without_a_bound_a_tensor_stays_finite(dtype):
    lr = torch.tensor(0.125, dtype=dtype)
    scheduler = GreedyLR.core(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr), factor=0.5)
    for step in range(1100):
        scheduler.step(-float(step))
    assert float(lr) == torch.finfo(dtype).max
    copy.deepcopy(scheduler).step(1.0)
