"""Runs elsewhere than on the processor, or in a shorter type: the same start, and results that are kept apart."""

from dataclasses import replace

import pytest
import torch

from greedylr.lab.catalogue.problems import PROBLEMS, DataError
from greedylr.lab.catalogue.problems.task import Examples
from greedylr.lab.execution.engines import ENGINES, assign
from greedylr.lab.execution.engines.batched import train_batched
from greedylr.lab.execution.engines.devices import DeviceError
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.setup import data_of, initial_model
from greedylr.lab.execution.store import Store
from greedylr.lab.runs import Run

OF_TRANSFORMERS = {one.partition("-")[0]: one for one in sorted(PROBLEMS) if PROBLEMS[one].kind == "architecture"}
ONE_OF_EACH_MODEL = [
    *(one for one in sorted(PROBLEMS) if PROBLEMS[one].kind != "architecture"),
    *(pytest.param(one, marks=pytest.mark.slow) for one in OF_TRANSFORMERS.values()),
]
SHORT = Run("digits", 1.0, "cosine", 0, 20)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        yield store


@pytest.mark.parametrize("problem", ONE_OF_EACH_MODEL)
def test_nothing_of_a_problem_stays_behind_on_the_processor(problem, monkeypatch):
    # Tensors of torch's device "meta" have no values, and no operation takes them together with those of another.
    entry = PROBLEMS[problem]
    try:
        data = data_of(problem, torch.float32)
    except DataError as error:
        pytest.skip(str(error))
    model = initial_model(Run(problem, 1.0, "constant", 0, 1), torch.float32).to("meta")
    examples = Examples(*(part[:8].to("meta") for part in data.train))
    known = torch.Tensor.__bool__  # Some ask whether all of a mask is set.
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: not tensor.is_meta and known(tensor))
    loss = entry.loss(model, examples)
    loss.backward()
    with torch.no_grad():
        others = [entry.judge(model, examples), entry.observe(model, examples)]
        if entry.kind != "architecture":  # Metrics of those read values, such as words that are generated.
            others.append(entry.metric(model, examples))
    assert {one.device.type for one in (loss, *others)} == {"meta"}
    assert {one.grad.device.type for one in model.parameters() if one.grad is not None} == {"meta"}


@pytest.mark.parametrize("problem", ["digits", "gru", "vit"])
def test_a_forward_pass_in_bfloat16_trains_the_same_weights_on_the_same_batches(problem):
    run = SHORT._replace(problem=problem)
    whole, short = train(run), train(run, forward=torch.bfloat16)
    assert (whole.arithmetic, short.arithmetic) == ("cpu", "cpu-bfloat16")
    assert short.lrs == whole.lrs
    assert short.losses != whole.losses
    assert short.losses[:3] == pytest.approx(whole.losses[:3], rel=0.02)  # From there on they part.
    assert short.final_loss == pytest.approx(whole.final_loss, rel=0.2)


def test_weights_and_what_the_optimizer_keeps_are_not_shortened(monkeypatch):
    kinds = set()
    step = torch.optim.AdamW.step

    def watched(self, *args):
        for parameter in self.param_groups[0]["params"]:
            kinds.update({parameter.dtype, parameter.grad.dtype})
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    assert train(SHORT, forward=torch.bfloat16).failure is None
    assert kinds == {torch.float32}


def test_results_of_another_arithmetic_are_taken_only_where_they_are_asked_for(store, made_up):
    here, there = made_up(SHORT, 0.25), replace(made_up(SHORT, 0.5), arithmetic="cuda-bfloat16")
    store.save(there)
    assert list(store.load([SHORT])) == []
    assert store.keys([SHORT]) == {}
    assert store.others([SHORT]) == 1
    store.save(here)
    assert list(store.load([SHORT])) == [here]
    assert list(store.load([SHORT], "cuda-bfloat16")) == [there]
    assert list(store.load([SHORT], "cuda")) == []
    of_each = [store.keys([SHORT], arithmetic)[SHORT] for arithmetic in (None, "cuda-bfloat16")]
    assert of_each[0] != of_each[1]
    assert {one.result.arithmetic for one in store.everything()} == {"cpu", "cuda-bfloat16"}


def test_a_device_is_used_only_where_it_is_asked_for():
    assert {engine.name for engine in assign([SHORT, SHORT._replace(problem="resnet-digits")])} == {"batched", "pool"}
    with pytest.raises(ValueError, match=r"disturbed by label-noise:0\.5, cannot be trained by the engine cuda"):
        assign([SHORT._replace(perturbation="label-noise:0.5")], "cuda")


def test_without_a_device_it_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in ("cuda", "cuda-bfloat16"):
        with pytest.raises(DeviceError, match="torch finds no CUDA device here; without --engine"):
            ENGINES[name].train([SHORT], 1, print, lambda run: True)


@pytest.mark.parametrize("engine", ["pool", "batched"])
def test_a_learning_rate_of_ones_own_is_taken_as_it_is(engine):
    good = PROBLEMS["digits"].lr
    runs = [SHORT, SHORT._replace(multiplier=good, absolute=True), SHORT._replace(multiplier=2 * good, absolute=True)]
    multiple, same, twice = train_batched(runs) if engine == "batched" else map(train, runs)
    assert same.lrs == multiple.lrs
    assert same.losses == multiple.losses
    assert twice.lrs == [2 * lr for lr in same.lrs]


def test_a_learning_rate_of_ones_own_is_kept_as_such(store, made_up):
    of_ones_own = made_up(SHORT._replace(absolute=True), 0.5)
    store.save(of_ones_own)
    assert list(store.load([SHORT])) == []
    assert list(store.load([of_ones_own.run])) == [of_ones_own]
    assert [type(run.absolute) for run in store.present()] == [bool]


@pytest.mark.cuda
@pytest.mark.parametrize("problem", ["digits", "gru", "vit", "resnet-digits"])
@pytest.mark.parametrize("scheduler", ["cosine", "greedylr"])
def test_on_a_device_a_run_begins_as_on_the_processor(problem, scheduler):
    run = SHORT._replace(problem=problem, scheduler=scheduler)
    here, made = train(run), {}
    for name in ("cuda", "cuda-bfloat16"):
        ENGINES[name].train([run], 1, lambda result: made.update({result.arithmetic: result}), lambda run: True)
    assert set(made) == {"cuda", "cuda-bfloat16"}
    assert made["cuda"].losses[0] == pytest.approx(here.losses[0], rel=1e-3)
    assert made["cuda"].final_loss == pytest.approx(here.final_loss, rel=0.1)
    assert made["cuda-bfloat16"].losses[0] == pytest.approx(here.losses[0], rel=0.05)
