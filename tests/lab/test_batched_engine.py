"""The batched engine against one run at a time: the same losses, learning rates and decisions, in any company."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from greedylr.control.batched import ACTIONS
from greedylr.lab.engines.batched import Job, parts, supports, train_batched, train_one
from greedylr.lab.engines.batched import train as engine
from greedylr.lab.engines.batched.job import batches, initial_model, load
from greedylr.lab.engines.batched.stack import Stack
from greedylr.lab.optimizers import OPTIMIZERS
from greedylr.lab.problems import PROBLEMS, Data, Examples, Problem
from greedylr.lab.problems.models import GRU, Transformer
from greedylr.lab.schedulers import SCHEDULERS

STEPS = 200
NAMES = [name for name in SCHEDULERS if supports(Job("adamw", 0.1, name, 0))]
train64 = partial(train_batched, dtype=torch.float64)
one64 = partial(train_one, dtype=torch.float64)


def _load():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 5, generator=generator)
    targets = (inputs @ torch.randn(5, 3, generator=generator)).argmax(-1)
    return Data(Examples(inputs[:90], targets[:90]), Examples(inputs[90:], targets[90:]))


def _symbols():
    symbols = torch.randint(7, (60, 6), generator=torch.Generator().manual_seed(0))
    examples = Examples(symbols[:, :-1], symbols[:, 1:])
    return Data(examples, examples.batch(torch.arange(10)))


def _images():
    data = _load()
    return Data(*(Examples(part.inputs[:, None, None].expand(-1, 1, 5, 5) ** 2, part.targets) for part in data))


def _sequential(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def _problem(model, load=_load, name="tiny", lr=0.01):
    lrs = {"sgd": 0.05, "adam": lr, "adagrad": 0.05, "adafactor": lr}
    return Problem(name=name, title=name, lr=lr, lrs=lrs, steps=STEPS, batch_size=8, load=load, model=model)


TINY = _problem(_sequential(partial(nn.Linear, 5, 6), nn.Tanh, partial(nn.Linear, 6, 3)))
SHAPES = {
    "cnn": _problem(
        _sequential(
            partial(nn.Conv2d, 1, 3, 3), nn.ReLU, partial(nn.MaxPool2d, 2, 1), nn.Flatten, partial(nn.Linear, 12, 3)
        ),
        _images,
    ),
    "gru": _problem(partial(GRU, 7, 4), _symbols),
    "transformer": _problem(
        lambda: Transformer(nn.Embedding(7, 8), length=5, width=8, heads=2, depth=1, outputs=7, each=True), _symbols
    ),
}


def jobs(problem, schedulers, optimizers=tuple(OPTIMIZERS), multipliers=(1.0,), seeds=(1,)):
    return [
        Job(optimizer, problem.lrs[optimizer] * multiplier, scheduler, seed)
        for optimizer in optimizers
        for scheduler in schedulers
        for multiplier in multipliers
        for seed in seeds
    ]


def deviation(got, want):
    """The largest relative difference of any number that two trajectories hold."""
    names = ("losses", "observed", "lrs", "validation_losses", "metric")
    pairs = [np.broadcast_arrays(getattr(got, name), getattr(want, name)) for name in names]
    return max(np.max(np.abs(a - b) / np.maximum(1.0, np.abs(b)), initial=0.0) for a, b in pairs)


def assert_same(got, want, tolerance):
    assert got.job == want.job
    assert got.validation_steps == want.validation_steps
    assert deviation(got, want) < tolerance
    assert (got.actions is None) == (want.actions is None)
    assert got.actions is None or np.array_equal(got.actions, want.actions)


@pytest.mark.parametrize("scheduler", NAMES)
def test_equals_one_by_one_for_every_optimizer(scheduler):
    chosen = jobs(TINY, [scheduler], multipliers=(0.3, 3.0))
    for got in train64(TINY, chosen, STEPS, validate_at=(0, 50, STEPS)):
        assert_same(got, one64(TINY, got.job, STEPS, validate_at=(0, 50, STEPS)), 1e-9)


@pytest.mark.parametrize("problem", SHAPES.values(), ids=SHAPES)
def test_equals_one_by_one_for_every_kind_of_model(problem):
    chosen = jobs(problem, ["greedylr", "one-cycle"], seeds=(0, 1))
    for got in train64(problem, chosen, 60, validate_at=(60,)):
        # The gradient of attention's key bias is zero but for rounding, and Adafactor makes steps of full size of it:
        # one run at a time deviates from itself by 1e-7 when each batch is taken in reverse.
        noisy = problem is SHAPES["transformer"] and got.job.optimizer == "adafactor"
        assert_same(got, one64(problem, got.job, 60, validate_at=(60,)), 1e-5 if noisy else 1e-9)


@pytest.mark.parametrize("name", ["quadratic-noisy", "rosenbrock", "least-squares", "bandit", "continual", "experts"])
def test_equals_one_by_one_on_the_catalogue(name):
    problem = PROBLEMS[name]
    chosen = jobs(problem, ["greedylr-open", "paper"], ["sgd", "adamw"])
    for got in train64(problem, chosen, 30, validate_at=(30,)):
        assert_same(got, one64(problem, got.job, 30, validate_at=(30,)), 1e-9)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_every_problem_of_the_catalogue_can_be_stacked(problem):
    chosen = jobs(problem, ["constant"], ["adamw"], seeds=(0, 1))
    for got in train_batched(problem, chosen, 2):
        assert_same(got, train_one(problem, got.job, 2), 1e-3)


def test_float32_is_as_good():
    for got in train_batched(TINY, jobs(TINY, ["cosine"], multipliers=(0.3, 1.0)), 50):
        assert_same(got, train_one(TINY, got.job, 50), 1e-4)


def test_what_a_reward_problem_gives_its_scheduler_is_not_the_loss():
    got = train_batched(PROBLEMS["bandit"], [Job("adam", 0.01, "greedylr-open", 0)], 5)[0]
    assert not np.array_equal(got.observed, got.losses)
    assert 0 <= got.observed.min() <= got.observed.max() <= 1


def test_a_diverged_run_leaves_its_neighbours_alone_bit_for_bit():
    calm = jobs(TINY, ["greedylr", "constant", "plateau"], ["sgd"], seeds=(0, 1, 2))
    for lr in (0.06, 1e38):  # both above the others', so that it trains at the same place among them
        wild = train_batched(TINY, [calm[0], Job("sgd", lr, "constant", 1), *calm[1:]], 60)
        if lr == 0.06:
            beside_calm = wild
    assert not math.isfinite(wild[1].losses[-1])
    assert math.isfinite(beside_calm[1].losses[-1])
    for got, want in zip(wild[:1] + wild[2:], beside_calm[:1] + beside_calm[2:], strict=True):
        assert np.array_equal(got.losses, want.losses)
        assert np.array_equal(got.lrs, want.lrs)


def test_a_diverged_run_is_told_as_one_by_one():
    job = Job("sgd", 1e308, "greedylr-open", 0)
    got, want = train64(TINY, [job], 40)[0], one64(TINY, job, 40)
    assert np.array_equal(np.isfinite(got.losses), np.isfinite(want.losses))
    assert np.array_equal(got.actions, want.actions)
    assert "NON_FINITE" in {ACTIONS[code].name for code in got.actions}


def test_neither_order_nor_company_matters(monkeypatch):
    chosen = jobs(TINY, ["greedylr", "cosine", "plateau"], seeds=(0, 1, 2))
    together = train64(TINY, chosen, STEPS)
    shuffled = [chosen[row] for row in np.random.default_rng(0).permutation(len(chosen))]
    monkeypatch.setattr(engine, "_MOST", 2)
    apart = {trajectory.job: trajectory for trajectory in train64(TINY, shuffled, STEPS)}
    assert [trajectory.job for trajectory in together] == chosen
    for got in together:
        assert_same(got, apart[got.job], 1e-12)


def test_parts_hold_every_job_once_and_are_parts_of_themselves():
    chosen = jobs(TINY, NAMES, seeds=range(3))
    cut = parts(TINY, chosen, STEPS, workers=4)
    assert sorted(row for rows in cut for row in rows) == list(range(len(chosen)))
    assert len(cut) >= 4
    for rows in cut:
        assert len({chosen[row].optimizer for row in rows}) == 1
        assert parts(TINY, [chosen[row] for row in rows], STEPS) == [list(range(len(rows)))]


def test_runs_that_differ_in_the_scheduler_begin_alike_and_see_the_same_batches():
    got = train64(TINY, jobs(TINY, NAMES, ["sgd"], seeds=(0, 1)), 1, validate_at=(0,))
    for seed in (0, 1):
        of_seed = [trajectory for trajectory in got if trajectory.job.seed == seed]
        assert len({trajectory.losses[0] for trajectory in of_seed}) == 1
        assert len({trajectory.validation_losses[0] for trajectory in of_seed}) == 1
    assert got[0].losses[0] != got[1].losses[0]
    assert got[0].validation_losses[0] != got[1].validation_losses[0]


def test_the_seed_alone_decides_weights_and_batches():
    data = load(TINY, torch.float32)

    def of_seed(seed):
        torch.rand(3)  # Whatever else draws numbers.
        weights = nn.utils.parameters_to_vector(initial_model(TINY, seed, torch.float32).parameters())
        return weights.tolist(), [next(drawn).tolist() for drawn in [batches(TINY, data, seed)] for _ in range(5)]

    assert of_seed(3) == of_seed(3)
    (weights, drawn), (other_weights, other_drawn) = of_seed(3), of_seed(4)
    assert weights != other_weights
    assert drawn != other_drawn


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    train_batched(TINY, [Job("sgd", 0.1, "constant", 5)], 2)
    assert torch.equal(torch.get_rng_state(), before)


class _Offset(nn.Module):
    """A model with a buffer of its own for each seed, and one that all share."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.register_buffer("offset", torch.rand(3))
        self.register_buffer("gain", torch.full((3,), 2.0))

    def forward(self, inputs):
        return self.gain * self.layer(inputs) + self.offset


def test_buffers_belong_to_their_runs():
    problem = _problem(_Offset)
    stack = Stack(problem, [initial_model(problem, seed, torch.float32) for seed in (0, 1)], torch.tensor([0, 1, 1]))
    assert stack.buffers["offset"].shape == (3, 3)
    assert stack.buffers["gain"].shape == (3,)
    for got in train64(problem, jobs(problem, ["constant"], ["adam"], seeds=(0, 1)), 20):
        assert_same(got, one64(problem, got.job, 20), 1e-9)


def test_a_momentum_that_is_cycled_reaches_the_optimizer(monkeypatch):
    job = Job("sgd", 0.05, "one-cycle", 0)
    cycled = train64(TINY, [job], 50)[0]
    still = replace(
        SCHEDULERS["one-cycle"],
        make=lambda optimizer, horizon: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, job.lr, total_steps=horizon.steps, cycle_momentum=False
        ),
    )
    monkeypatch.setitem(SCHEDULERS, "still", still)
    flat = train64(TINY, [job._replace(scheduler="still")], 50)[0]
    assert np.allclose(cycled.lrs, flat.lrs, rtol=1e-12)
    assert not np.allclose(cycled.losses, flat.losses, rtol=1e-3)


def test_no_jobs_no_trajectories():
    assert train_batched(TINY, [], 5) == []


@pytest.mark.parametrize("scheduler", ["schedule-free", "prodigy", "momo"])
def test_whole_optimizers_are_refused(scheduler):
    job = Job("sgd", 0.1, scheduler, 0)
    assert not supports(job)
    with pytest.raises(ValueError, match=f"moves a learning rate, got '{scheduler}'"):
        train_batched(TINY, [job], 1)
