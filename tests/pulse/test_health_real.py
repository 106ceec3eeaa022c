"""Findings in real training runs: for each a run that has it, and one that comes near and must not have it.

What happens in them happens to people. Where the rule has nothing to do with it, the published one is in charge and
never moves, so that they do not hang on the default one; runs in order are under the default one.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch
from torch.nn.functional import cross_entropy

from greedylr import Action, DefaultConfig, GreedyLR
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.findings import Kind
from greedylr.pulse.diagnosis.health import examine
from greedylr.pulse.recording import recorder

AT = 701
"""The step at which things happen."""


def held(optimizer):
    return GreedyLR.paper(optimizer, min_lr=1e-9, max_lr=1e3, patience=10**6)


def default(**settings):
    return partial(GreedyLR, config=DefaultConfig(**settings))


def published(**settings):
    return partial(GreedyLR.paper, **settings)


def digits_run(
    planted,
    path,
    *,
    steps=1500,
    rows=1400,
    hidden=(64,),
    lr=1e-3,
    sgd=False,
    weight_decay=1e-2,
    rule=held,
    batch=lambda step, x, y, generator: (x, y),
    reduction=lambda step: "mean",
    clip=None,
    other=None,
    validated_on=None,
    seed=0,
):
    """Train a perceptron on handwritten digits."""
    torch.manual_seed(seed)
    x, y = planted.digits()
    sizes = (64, *hidden)
    layers = [layer for pair in pairwise(sizes) for layer in (torch.nn.Linear(*pair), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], 10))
    parameters = list(model.parameters())
    if sgd:
        optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    scheduler = rule(optimizer)
    second = None if other is None else other(optimizer)
    generator = torch.Generator().manual_seed(seed)
    with Recorder(path, scheduler) as kept:
        for step in range(1, steps + 1):
            drawn = torch.randint(0, rows, (32,), generator=generator)
            inputs, targets = batch(step, x[drawn], y[drawn], generator)
            loss = cross_entropy(model(inputs), targets, reduction=reduction(step))
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters, clip)
            if loss.isfinite():  # as mixed precision does
                optimizer.step()
            scheduler.step(loss)
            if second is not None:
                second.step()
            if step % 50 == 0:
                few = slice(1400, None) if validated_on is None else torch.randint(1400, 1797, (validated_on,))
                with torch.no_grad():
                    kept.log(val_loss=cross_entropy(model(x[few]), y[few]))


def problem_run(planted, path, *, name, optimizer="adamw", multiple=1.0, steps=500, known=True, seed=0):
    """Train a problem of the lab under the default rule."""
    problem = PROBLEMS[name]
    data = problem.load()
    torch.manual_seed(seed)
    model = problem.model()
    lr = multiple * problem.lrs[optimizer]
    if optimizer == "adamw":
        trained_by = torch.optim.AdamW(model.parameters(), lr=lr)
    else:
        trained_by = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = GreedyLR(trained_by, total_steps=steps if known else None)
    generator = torch.Generator().manual_seed(seed)
    with Recorder(path, scheduler):
        for step in range(steps):
            loss = problem.loss(model, data.train.batch(problem.sample(data, generator, step)))
            trained_by.zero_grad()
            loss.backward()
            trained_by.step()
            scheduler.step(loss)


def from_a_step(change, steps=None):
    """A change of the batches, for so many steps or for good."""

    def batch(step, x, y, generator):
        return change(x, y) if step >= AT and (steps is None or step < AT + steps) else (x, y)

    return batch


def two_sources(step, x, y, generator, *, shuffled):
    """Images as they are and of a bad scanner, mixed, or as they lie in their file: twenty batches of each by turns."""
    bad = torch.rand(len(x), 1, generator=generator) < 0.5 if shuffled else (step - 1) // 20 % 2
    return x + bad * torch.randn(x.shape, generator=generator), y


def label_out_of_range(x, y):
    return x, torch.where(torch.arange(len(y)) == 3, 10, y)


def missing_pixel(x, y):
    return x.index_put((torch.tensor(3), torch.tensor(20)), torch.tensor(torch.nan)), y


def breaks_off(planted, path):
    with contextlib.suppress(IndexError):
        digits_run(planted, path, batch=from_a_step(label_out_of_range))


def decaying_labels(step, x, y, generator):
    """More and more of them are drawn at random: the loss comes up again, slowly, on every machine."""
    wrong = torch.rand(len(y), generator=generator) < (step - 300) / 700
    return x, torch.where(wrong, torch.randint(0, 10, y.shape, generator=generator), y)


def killed(planted, path):
    """A process that is killed while it trains."""
    code = "import sys, pathlib, torch, planted; torch.set_num_threads(1); planted.train(pathlib.Path(sys.argv[1]))"
    code = code.replace("(sys.argv[1])", "(sys.argv[1]), steps=10**6")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(planted.__file__).parent), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], env=environment) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (path.exists() and Trace.load(path).last > 100):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)


def tensor_lr(planted, path):
    """The learning rate is a tensor, in float32; the recorder looks at it at every step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "WRITE_EVERY", 0.0)
        digits_run(planted, path, lr=torch.tensor(1e-3), rule=default(total_steps=600), steps=600)


def second_scheduler(planted, path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "WRITE_EVERY", 0.0)
        digits_run(planted, path, steps=300, other=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.999))


def planted_run(planted, path, **settings):
    planted.train(path, ("disruption", "shard", "nan"), **settings)


class Run(NamedTuple):
    """A training run.

    Attributes:
        train: Trains, given the module ``planted`` and the folder to record to.
        found: All that is to be found, and the step where it first begins, if that is known.
        may: What may or may not be found besides.
    """

    train: Callable[..., None]
    found: Mapping[Kind, int | None] = MappingProxyType({})
    may: frozenset[Kind] = frozenset()


FLAT = frozenset({Kind.PLATEAU})
UNCLIPPED = {"steps": 1200, "hidden": (16, 16), "lr": 0.1, "sgd": True, "weight_decay": 0.0}
BY_TURNS = {"steps": 600, "rule": default(window=20, warmup_steps=0, polyak=math.inf, catch_up_steps=0)}
ON_ITS_WAY_UP = {"steps": 600, "rule": default(max_scale=1.2, warmup_steps=0, polyak=math.inf, catch_up_steps=0)}

CLIMBS = default(total_steps=600, decade_steps=120, anneal=0.4, polyak=math.inf)

RUNS = {
    # In order, under the default rule.
    "annealed": Run(partial(digits_run, rule=default(total_steps=600), steps=600)),
    # Here the loss falls to a third at once, as the climb ends and the learning rate is cut to an eighth.
    "backed off": Run(partial(digits_run, rule=CLIMBS, steps=600, seed=2)),
    "listening": Run(partial(digits_run, rule=default(), steps=1000)),
    "sgd": Run(partial(digits_run, rule=default(total_steps=1000), steps=1000, sgd=True, lr=0.05, weight_decay=0.0)),
    "tensor": Run(tensor_lr),
    # A loss that falls to a hundredth within 200 steps, its noise as well.
    "falls fast": Run(partial(problem_run, name="digits", multiple=0.3, known=False, seed=4)),
    # Most batches have a loss near 0.03, one in twenty a loss of ten times that.
    "hard batches": Run(partial(problem_run, name="logistic", steps=1500, seed=3), may=FLAT),
    "text": Run(partial(problem_run, name="gru", steps=300)),
    # Things that happen.
    "planted": Run(
        partial(planted_run, rescue=True), {Kind.DISRUPTION: 900, Kind.LEVEL_SHIFT: 1400, Kind.NON_FINITE: 2000}
    ),
    "lost": Run(
        planted_run, {Kind.DISRUPTION: 900, Kind.LEVEL_SHIFT: 1400, Kind.NON_FINITE: 2000, Kind.DIVERGENCE: 2000}
    ),
    "label out of range": Run(breaks_off, {Kind.FAILED: AT - 1}),
    "killed": Run(killed, {Kind.FAILED: None}, may=FLAT),
    "missing pixel": Run(
        partial(digits_run, steps=800, batch=from_a_step(missing_pixel, steps=1)), {Kind.NON_FINITE: AT}
    ),
    "sum in place of mean": Run(
        partial(digits_run, steps=1200, lr=1e-4, reduction=lambda step: "mean" if step < AT else "sum"),
        {Kind.LOSS_SCALE: AT},
    ),
    # Ten batches that were not scaled to one.
    "damaged": Run(
        partial(digits_run, batch=from_a_step(lambda x, y: (16 * x, y), steps=10), **UNCLIPPED),
        {Kind.NO_RECOVERY: AT, Kind.DIVERGENCE: None},
        may=FLAT,
    ),
    "clipped": Run(
        partial(digits_run, batch=from_a_step(lambda x, y: (16 * x, y), steps=10), clip=5.0, seed=1, **UNCLIPPED),
        {Kind.DISRUPTION: AT},
        may=FLAT,
    ),
    "one odd batch": Run(partial(digits_run, batch=from_a_step(lambda x, y: (1 - x, y), steps=1), steps=1000)),
    "labels decay": Run(
        partial(digits_run, steps=1000, lr=3e-3, seed=2, batch=decaying_labels), {Kind.DIVERGENCE: None}
    ),
    # Near the highest learning rate at which it learns: the level trebles for a hundred steps, after a steep fall.
    "restless": Run(partial(digits_run, steps=700, hidden=(64, 64), lr=0.1, sgd=True, weight_decay=0.0), may=FLAT),
    "few examples": Run(partial(digits_run, rows=100, lr=3e-3, hidden=(256,)), {Kind.OVERFITTING: None}, may=FLAT),
    "noisy validation": Run(partial(digits_run, steps=1200, validated_on=48)),
    "second scheduler": Run(second_scheduler, {Kind.LR_IGNORED: None}),
    "cut by noise": Run(
        partial(digits_run, steps=1000, rule=published(min_lr=1e-9, max_lr=1.0, patience=2, factor=0.9)),
        {Kind.SINKING: None},
    ),
    "bounded": Run(partial(digits_run, **ON_ITS_WAY_UP), {Kind.AT_BOUND: None}),
    "touches the bound": Run(
        partial(digits_run, **{**ON_ITS_WAY_UP, "rule": default(max_scale=1.9, warmup_steps=0, catch_up_steps=0)})
    ),
    "by turns": Run(
        partial(digits_run, batch=partial(two_sources, shuffled=False), seed=1, **BY_TURNS), {Kind.OSCILLATING: None}
    ),
    "shuffled": Run(partial(digits_run, batch=partial(two_sources, shuffled=True), seed=1, **BY_TURNS)),
    "converged": Run(
        partial(digits_run, steps=2500, hidden=(), lr=0.1, sgd=True, rule=default()), {Kind.PLATEAU: None}
    ),
    "slow": Run(partial(digits_run, steps=3000, hidden=(1,), lr=2e-2)),
}

EXAMPLES = {
    Kind.FAILED: ("label out of range", "annealed"),
    Kind.NON_FINITE: ("missing pixel", "damaged"),
    Kind.DIVERGENCE: ("labels decay", "clipped"),
    Kind.OVERFITTING: ("few examples", "noisy validation"),
    Kind.LR_IGNORED: ("second scheduler", "tensor"),
    Kind.LEVEL_SHIFT: ("planted", "sum in place of mean"),
    Kind.LOSS_SCALE: ("sum in place of mean", "falls fast"),
    Kind.NO_RECOVERY: ("damaged", "clipped"),
    Kind.DISRUPTION: ("clipped", "hard batches"),
    Kind.SINKING: ("cut by noise", "annealed"),
    Kind.AT_BOUND: ("bounded", "touches the bound"),
    Kind.OSCILLATING: ("by turns", "shuffled"),
    Kind.PLATEAU: ("converged", "slow"),
}
"""For each finding, a run that has it and one that comes near."""


@pytest.fixture(scope="module")
def trace(planted, tmp_path_factory):
    """The trace of a run, which is trained once."""
    traces = {}
    folder = tmp_path_factory.mktemp("real")

    def of(name):
        if name not in traces:
            path = folder / name.replace(" ", "_")
            RUNS[name].train(planted, path)
            traces[name] = Trace.load(path)
        return traces[name]

    return of


SHOWN = {name for pair in EXAMPLES.values() for name in pair}


@pytest.mark.parametrize(
    "name", [name if name in SHOWN else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_what_happened_is_found_and_nothing_else(trace, name):
    first = {}
    for one in examine(trace(name)):
        first.setdefault(one.kind, one)
    run = RUNS[name]
    assert set(run.found) <= set(first) <= set(run.found) | run.may, list(first.values())
    for kind, step in run.found.items():
        assert step is None or abs(first[kind].first - step) <= 5, first[kind]


@pytest.mark.parametrize("kind", Kind)
def test_every_finding_has_a_run_that_has_it_and_one_that_must_not(kind):
    has, near = (RUNS[name] for name in EXAMPLES[kind])
    assert kind in has.found
    assert kind not in near.found
    assert kind not in near.may


def test_what_comes_near_comes_near(trace):
    """Or it would show nothing that a finding is not there."""

    def of(kind):
        return trace(EXAMPLES[kind][1])

    def actions(kind):
        return [one.action for one in of(kind).decisions]

    assert of(Kind.FAILED).status == "finished"
    assert of(Kind.NON_FINITE).losses.max() > 100 * of(Kind.NON_FINITE).losses[0]
    assert of(Kind.DIVERGENCE).losses.max() > of(Kind.DIVERGENCE).losses[0]
    validation = of(Kind.OVERFITTING).metrics["val_loss"].values
    assert validation[-3:].mean() > validation.min()
    assert of(Kind.OVERFITTING).losses[-100:].mean() < 0.2 * of(Kind.OVERFITTING).losses[:100].mean()
    assert of(Kind.LEVEL_SHIFT).losses[AT:].min() > of(Kind.LEVEL_SHIFT).losses[: AT - 1].max()
    assert of(Kind.LOSS_SCALE).losses[-50:].mean() < 0.02 * of(Kind.LOSS_SCALE).losses[0]
    assert actions(Kind.DISRUPTION).count(Action.SPIKE) >= 10
    assert of(Kind.SINKING).lrs[-1, 0] < 0.01 * of(Kind.SINKING).lrs.max()
    assert 1 <= actions(Kind.AT_BOUND).count(Action.AT_MAX) <= 2
    assert {Action.RAISED, Action.CUT} <= set(actions(Kind.OSCILLATING))


ORDERLY = [
    (name, optimizer, multiple, steps, known)
    for name, steps in {"mlp": 1500, "digits": 700, "residual-mlp": 700, "logistic": 1500, "attention": 500}.items()
    for optimizer in ("adamw", "sgd")
    for multiple in (0.3, 1.0)
    for known in (False, True)
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20, 21])
@pytest.mark.parametrize(("name", "optimizer", "multiple", "steps", "known"), ORDERLY)
def test_runs_in_order(tmp_path, planted, name, optimizer, multiple, steps, known, seed):
    settings = {"optimizer": optimizer, "multiple": multiple, "steps": steps, "known": known, "seed": seed}
    problem_run(planted, tmp_path, name=name, **settings)
    # By chance one patient, whom the model gets wrong, is in three of five batches: that is named.
    by_chance = {Kind.DISRUPTION} if (name, seed) == ("logistic", 21) else set()
    assert {one.kind for one in examine(Trace.load(tmp_path))} <= {Kind.PLATEAU} | by_chance
