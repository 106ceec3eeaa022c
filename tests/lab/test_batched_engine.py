"""The batched engine against one run at a time: the same losses, learning rates and decisions, in any company."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from greedylr import Action
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.problems import PROBLEMS, Data, Examples, Problem
from greedylr.lab.catalogue.problems.models import GRU, Transformer
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.execution.engines import batched as batched_engine
from greedylr.lab.execution.engines.batched import parts, supports, train_all, train_batched
from greedylr.lab.execution.engines.batched import train as engine
from greedylr.lab.execution.engines.batched.stack import Stack
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.setup import StoppedError, batches, data_of, initial_model
from greedylr.lab.runs import Run

STEPS = 200
NAMES = [name for name, scheduler in SCHEDULERS.items() if scheduler.kind != "optimizer"]


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
        "tiny-cnn",
    ),
    "gru": _problem(partial(GRU, 7, 4), _symbols, "tiny-gru"),
    "transformer": _problem(
        lambda: Transformer(nn.Embedding(7, 8), length=5, width=8, heads=2, depth=1, outputs=7, each=True),
        _symbols,
        "tiny-transformer",
    ),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    for problem in [TINY, OFFSET, *SHAPES.values()]:
        monkeypatch.setitem(PROBLEMS, problem.name, problem)


def runs_of(problem, schedulers, optimizers=tuple(OPTIMIZERS), multipliers=(1.0,), seeds=(1,), steps=STEPS):
    return [
        Run(problem.name, multiplier, scheduler, seed, steps, optimizer)
        for optimizer in optimizers
        for scheduler in schedulers
        for multiplier in multipliers
        for seed in seeds
    ]


def batched(runs, dtype=torch.float64):
    """What the engine makes of any runs, in their order."""
    made = {result.run: result for part in parts(runs, dtype=dtype) for result in train_batched(part, dtype=dtype)}
    return [made[run] for run in runs]


def deviation(got, want):
    """The largest relative difference of any number that two results hold, but for the evidence of decisions."""
    of_each = [
        np.array([*result.losses, *result.lrs, *result.validation_losses, result.metric]) for result in (got, want)
    ]
    differences = np.abs(of_each[0] - of_each[1]) / np.maximum(1.0, np.abs(of_each[1]))
    return differences.max()


def assert_same(got, tolerance, dtype=torch.float64):
    """As one by one, in torch's own optimizers with the scheduler itself."""
    want = train(got.run, dtype=dtype, fused=False)
    assert got.validation_steps == want.validation_steps
    assert got.failure is want.failure is None
    assert deviation(got, want) < tolerance
    assert [(one.step, one.action) for one in got.decisions] == [(one.step, one.action) for one in want.decisions]
    for mine, its in zip(got.decisions, want.decisions):
        assert mine.evidence == pytest.approx(its.evidence, rel=1e-6, abs=1e-6)
        assert mine.lr_before + mine.lr_after == pytest.approx(its.lr_before + its.lr_after, rel=tolerance)


# All that are known before the run go through one table of learning rates, and what else they move.
TELLING = {"cosine", "one-cycle"} | {name for name in NAMES if SCHEDULERS[name].kind == "feedback"}


@pytest.mark.parametrize(
    "scheduler", [pytest.param(name, marks=() if name in TELLING else pytest.mark.slow) for name in NAMES]
)
def test_equals_one_by_one_for_every_optimizer(scheduler):
    for got in batched(runs_of(TINY, [scheduler], multipliers=(3.0,))):
        assert_same(got, 1e-9)


@pytest.mark.parametrize("problem", SHAPES.values(), ids=SHAPES)
def test_equals_one_by_one_for_every_kind_of_model(problem):
    # From low learning rates, for at the edge of stability training makes much of rounding, and the climb goes there.
    optimizers = ("sgd", "adamw", "adafactor")
    for got in batched(runs_of(problem, ["greedylr", "one-cycle"], optimizers, (0.03,), seeds=(0, 1), steps=60)):
        # The gradient of attention's key bias is zero but for rounding, and Adafactor makes steps of full size of it:
        # one run at a time deviates from itself by 1e-7 when each batch is taken in reverse.
        noisy = problem is SHAPES["transformer"] and got.run.optimizer == "adafactor"
        assert_same(got, 1e-5 if noisy else 1e-9)


@pytest.mark.parametrize("name", ["quadratic-noisy", "rosenbrock", "least-squares", "bandit", "continual", "experts"])
def test_equals_one_by_one_on_the_catalogue(name):
    for got in batched(runs_of(PROBLEMS[name], ["greedylr-open", "paper"], ["sgd", "adamw"], steps=30)):
        assert_same(got, 1e-9)


@pytest.mark.parametrize("name", [name for name, problem in PROBLEMS.items() if problem.stackable])
def test_every_problem_that_says_so_can_be_stacked(name):
    for got in batched(runs_of(PROBLEMS[name], ["constant"], ["adamw"], seeds=(0, 1), steps=2), torch.float32):
        assert_same(got, 1e-3, torch.float32)


def test_float32_is_as_good():
    for got in batched(runs_of(TINY, ["cosine"], multipliers=(0.3, 1.0), steps=50), torch.float32):
        assert_same(got, 1e-4, torch.float32)


def test_what_a_reward_problem_gives_its_scheduler_is_not_the_loss():
    run = Run("bandit", 1.0, "core", 0, 20, "adam")
    decisions = batched([run])[0].decisions
    assert decisions
    assert all(0 <= one.loss <= 1 for one in decisions)


def test_a_diverged_run_leaves_its_neighbours_alone_bit_for_bit():
    calm = runs_of(TINY, ["greedylr", "constant", "plateau"], ["sgd"], seeds=(0, 1, 2), steps=60)
    for multiplier in (1.2, 2e39):  # both above the others', so that it trains at the same place among them
        wild = batched([*calm, Run("tiny", multiplier, "constant", 1, 60, "sgd")], torch.float32)
        if multiplier == 1.2:
            beside_calm = wild
    assert not math.isfinite(wild[-1].losses[-1])
    assert math.isfinite(beside_calm[-1].losses[-1])
    for got, want in zip(wild[:-1], beside_calm[:-1], strict=True):
        assert (got.losses, got.lrs) == (want.losses, want.lrs)


def test_a_diverged_run_is_told_as_one_by_one():
    run = Run("least-squares", 1e200, "greedylr-loss", 0, 40, "sgd")
    got, want = batched([run])[0], train(run, dtype=torch.float64, fused=False)
    assert np.array_equal(np.isfinite(got.losses), np.isfinite(want.losses))
    assert [(one.step, one.action) for one in got.decisions] == [(one.step, one.action) for one in want.decisions]
    assert any(one.action is Action.NON_FINITE for one in got.decisions)


class _Fussy(torch.optim.lr_scheduler.ConstantLR):
    """A scheduler that breaks down at its 25th step."""

    def step(self, loss=None):
        if loss is not None:
            self.told = getattr(self, "told", 0) + 1
            if self.told == 25:
                raise ZeroDivisionError("by the loss")


def test_a_scheduler_that_breaks_down_ends_its_run_as_one_by_one_and_no_other(monkeypatch):
    entry = replace(SCHEDULERS["plateau"], make=lambda optimizer, horizon: _Fussy(optimizer, 1.0))
    monkeypatch.setitem(SCHEDULERS, "fussy", entry)
    got, calm = batched(runs_of(TINY, ["fussy", "plateau"], ["adam"], steps=60))
    want = train(got.run, dtype=torch.float64, fused=False)
    assert got.failure == want.failure == "ZeroDivisionError: by the loss"
    assert got.metric is want.metric is None
    assert got.validation_steps == want.validation_steps == [0, 10, 20]
    assert len(got.losses) == len(got.lrs) == len(want.losses) == 25
    assert got.validation_losses == pytest.approx(want.validation_losses)
    assert_same(calm, 1e-9)


@pytest.mark.slow
def test_neither_order_nor_company_matters(monkeypatch):
    chosen = runs_of(TINY, ["greedylr", "cosine", "plateau"], ["sgd", "adamw"], seeds=(0, 1, 2))
    together = batched(chosen)
    shuffled = [chosen[row] for row in np.random.default_rng(0).permutation(len(chosen))]
    monkeypatch.setattr(engine, "_MOST", 2)
    apart = {result.run: result for result in batched(shuffled)}
    for got in together:
        assert deviation(got, apart[got.run]) < 1e-12
        assert len(got.decisions) == len(apart[got.run].decisions)


def test_parts_hold_every_run_once_and_are_parts_of_themselves():
    chosen = runs_of(TINY, NAMES, seeds=range(3)) + runs_of(SHAPES["gru"], ["cosine"], steps=7)
    cut = list(parts(chosen))
    assert sorted(run for part in cut for run in part) == sorted(chosen)
    assert len(cut) >= 16
    for part in cut:
        assert len({(run.problem, run.steps, run.optimizer) for run in part}) == 1


def test_parts_do_not_depend_on_the_order_of_the_runs():
    chosen = runs_of(TINY, NAMES, ["adam"], seeds=range(3))
    shuffled = [chosen[row] for row in np.random.default_rng(0).permutation(len(chosen))]
    assert sorted(parts(shuffled)) == sorted(parts(chosen))


def test_where_there_are_many_kinds_none_is_cut():
    chosen = runs_of(TINY, ["cosine", "constant"], ["adam"], seeds=range(8))
    perturbed = [run._replace(perturbation=f"gradient-noise:{strength}") for run in chosen for strength in range(1, 17)]
    assert len(list(parts(chosen))) == 16
    assert len(list(parts(perturbed))) == 16


def test_runs_that_differ_in_the_scheduler_begin_alike_and_see_the_same_batches():
    got = batched(runs_of(TINY, NAMES, ["sgd"], seeds=(0, 1), steps=1))
    for seed in (0, 1):
        of_seed = [result for result in got if result.run.seed == seed]
        assert len({result.losses[0] for result in of_seed}) == 1
        assert len({result.validation_losses[0] for result in of_seed}) == 1
    assert got[0].losses[0] != got[1].losses[0]
    assert got[0].validation_losses[0] != got[1].validation_losses[0]


def test_the_seed_alone_decides_weights_and_batches():
    data = data_of("tiny", torch.float32)

    def of_seed(seed):
        torch.rand(3)  # Whatever else draws numbers.
        run = Run("tiny", torch.rand(1).item(), "cosine", seed, 5)
        weights = nn.utils.parameters_to_vector(initial_model(run, torch.float32).parameters())
        return weights.tolist(), [next(drawn).tolist() for drawn in [batches(run, data)] for _ in range(5)]

    assert of_seed(3) == of_seed(3)
    (weights, drawn), (other_weights, other_drawn) = of_seed(3), of_seed(4)
    assert weights != other_weights
    assert drawn != other_drawn


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    train_batched([Run("tiny", 1.0, "constant", 5, 2, "sgd")])
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


OFFSET = _problem(_Offset, name="offset")


def test_buffers_belong_to_their_runs():
    runs = runs_of(OFFSET, ["constant"], ["adam"], seeds=(0, 1), steps=20)
    stack = Stack(OFFSET, [initial_model(run, torch.float32) for run in runs], torch.tensor([0, 1, 1]))
    assert stack.buffers["offset"].shape == (3, 3)
    assert stack.buffers["gain"].shape == (3,)
    for got in batched(runs):
        assert_same(got, 1e-9)


def test_a_momentum_that_is_cycled_reaches_the_optimizer(monkeypatch):
    run = Run("tiny", 1.0, "one-cycle", 0, 50, "sgd")
    cycled = batched([run])[0]
    still = replace(
        SCHEDULERS["one-cycle"],
        make=lambda optimizer, horizon: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, optimizer.param_groups[0]["lr"], total_steps=horizon.steps, cycle_momentum=False
        ),
    )
    monkeypatch.setitem(SCHEDULERS, "still", still)
    flat = batched([run._replace(scheduler="still")])[0]
    assert np.allclose(cycled.lrs, flat.lrs, rtol=1e-12)
    assert not np.allclose(cycled.losses, flat.losses, rtol=1e-3)


def test_no_runs_no_parts():
    assert list(parts([])) == []


def test_it_stops_when_it_is_told_to():
    answers = iter([False, False, True])
    with pytest.raises(StoppedError):
        train_batched(runs_of(TINY, ["constant"], ["sgd"]), stopped=lambda: next(answers))
    assert next(answers, None) is None


@pytest.mark.parametrize("scheduler", ["schedule-free", "prodigy", "momo", "salsa"])
def test_whole_optimizers_are_refused(scheduler):
    run = Run("tiny", 1.0, scheduler, 0, 5, "sgd")
    assert not supports(run)
    with pytest.raises(ValueError, match=f"moves a learning rate, and problem stackable, got '{scheduler}'"):
        list(parts([run]))


def test_each_worker_begins_with_what_takes_little_time(monkeypatch):
    begun = []
    monkeypatch.setattr(batched_engine, "each", lambda tasks, do, workers, keep: begun.extend(tasks))
    runs = runs_of(TINY, ["cosine", "greedylr"]) + runs_of(SHAPES["cnn"], ["cosine"], steps=7)
    batched_engine.train_all(runs, 2, keep=lambda result: None)
    costs = [batched_engine.cost(stack) for stack, _ in begun]
    assert costs[:2] == sorted(costs)[:2]
    assert len(set(costs)) == 2
    assert sorted(run for stack, _ in begun for run in stack) == sorted(runs)


def test_processes_give_what_this_one_gives():
    runs = runs_of(PROBLEMS["rosenbrock"], ["greedylr", "cosine"], ["sgd"], seeds=(0, 1), steps=30)
    results = []
    train_all(runs, 2, results.append, wanted=lambda run: run.seed == 1)
    assert sorted(result.run for result in results) == sorted(run for run in runs if run.seed == 1)
    for got in results:
        assert deviation(got, train(got.run)) < 1e-4
        assert got.arithmetic == "stacked"


@pytest.mark.slow
def test_results_do_not_depend_on_what_is_wanted_or_on_the_number_of_workers():
    # Of this problem a run's last bits do depend on its stack.
    runs = runs_of(PROBLEMS["rosenbrock"], ["greedylr", "cosine", "plateau"], ["adam"], seeds=range(8), steps=30)
    once, bit_by_bit = [], []
    train_all(runs, 1, once.append)
    for turn in range(2):
        train_all(runs[::-1], 2, bit_by_bit.append, wanted=lambda run, turn=turn: run.seed % 2 == turn)
    by_run = {result.run: result for result in once}
    assert {result.run: result for result in bit_by_bit} == by_run
    assert len(once) == len(bit_by_bit) == len(runs)
    alone = [result for part in parts(runs[:3]) for result in train_batched(part)]
    assert any(result != by_run[result.run] for result in alone)
