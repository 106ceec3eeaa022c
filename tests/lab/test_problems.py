"""Every problem of the catalogue: what it says of itself is so, and it can be trained alone or stacked."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from greedylr.lab.catalogue.problems import PROBLEMS as EVERY
from greedylr.lab.catalogue.problems.landscapes import LANDSCAPE

PROBLEMS = {name: problem for name, problem in EVERY.items() if problem.kind not in ("encoder", "architecture")}
"""But for Transformers' architectures and a published encoder, which have tests of their own."""
TUNED_AS_THEY_ARE = ("tuned-scarce", "tuned-gru")
"""Problems in whose models nothing is drawn: all weights are pre-trained."""
OPTIMIZERS = ("sgd", "adam", "adamw", "adagrad", "adafactor")
DOCS = Path(__file__).parents[2] / "docs" / "problems.md"

each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


@pytest.fixture(scope="module")
def data_of():
    """The data of a problem, read once."""
    return cache(lambda problem: problem.load())


def weights(problem, seed):
    torch.manual_seed(seed)
    return torch.cat([parameter.detach().flatten() for parameter in problem.model().parameters()])


def batches(problem, data, seed, steps=3):
    generator = torch.Generator().manual_seed(seed)
    return [problem.sample(data, generator, step) for step in range(steps)]


def train(problem, data, steps, seed=0):
    """The values observed, and the validation loss before and after; AdamW at its good learning rate, cosine."""
    torch.manual_seed(seed)
    model, generator = problem.model(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=problem.lr, fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    before, observed = problem.validate(model, data), []
    for step in range(steps):
        batch = data.train.batch(problem.sample(data, generator, step))
        with torch.no_grad():
            observed.append(problem.observe(model, batch).item())
        optimizer.zero_grad()
        problem.loss(model, batch).backward()
        optimizer.step()
        scheduler.step()
    return observed, before, problem.validate(model, data)


@each_problem
def test_it_says_what_it_is(problem):
    assert PROBLEMS[problem.name] is problem
    assert problem.kind in {"analytic", "learned", "boundary", "pre-trained"}
    assert problem.description
    assert problem.title
    assert isinstance(problem.lrs, Mapping)
    assert set(problem.lrs) == set(OPTIMIZERS)
    assert problem.lrs["adamw"] == problem.lr
    assert all(0 < lr <= 10 for lr in problem.lrs.values())
    assert 200 <= problem.steps <= 1000


@each_problem
def test_data_are_the_same_at_every_call_and_fit_the_model(problem, data_of):
    one, two = data_of(problem), problem.load()
    for first, second in zip((*one.train, *one.validation), (*two.train, *two.validation), strict=True):
        assert torch.equal(first, second)
    for part in one:
        assert len(part.inputs) == len(part.targets)
    batch = one.train.batch(batches(problem, one, 0)[0])
    assert len(batch.inputs) == problem.batch_size
    model = problem.model()
    for function in (problem.loss, problem.observe, problem.judge, problem.metric):
        assert function(model, batch).shape == ()
    assert problem.validate(model, one) > 0
    assert model.training


@pytest.mark.parametrize(
    "problem",
    [problem for problem in PROBLEMS.values() if problem.task is not LANDSCAPE],
    ids=lambda problem: problem.name,
)
def test_nothing_is_both_trained_on_and_judged_by(problem, data_of):
    # Each row is compared as one item, and in NumPy: there are a million windows of text.
    train, validation = (part.inputs.flatten(1).contiguous().numpy() for part in data_of(problem))
    item = f"V{train.itemsize * train.shape[1]}"
    assert not np.isin(validation.view(item), train.view(item)).any()


@each_problem
def test_the_seed_decides_weights_and_batches_and_nothing_else_does(problem, data_of):
    data = data_of(problem)
    assert torch.equal(weights(problem, 1), weights(problem, 1))
    assert torch.equal(weights(problem, 1), weights(problem, 2)) == (problem.name in TUNED_AS_THEY_ARE)
    for one, two in zip(batches(problem, data, 1), batches(problem, data, 1), strict=True):
        assert torch.equal(one, two)
    if len(data.train.inputs) > 1:
        pairs = zip(batches(problem, data, 1), batches(problem, data, 2), strict=True)
        assert not all(torch.equal(one, two) for one, two in pairs)


@each_problem
def test_batches_are_of_training_examples_and_reach_all_of_them(problem, data_of):
    data = data_of(problem)
    seen = torch.cat(batches(problem, data, 0, steps=problem.steps))
    size = len(data.train.inputs)
    assert seen.min() >= 0
    assert seen.max() < size
    for quarter in range(4):
        assert ((seen * 4 // size) == quarter).any() or size < 4


@each_problem
def test_stacked_is_the_same_as_one_by_one(problem, data_of):
    data = data_of(problem)
    torch.manual_seed(0)
    models = [problem.model().double() for _ in range(3)]
    alone = [in_double(data.train.batch(batches(problem, data, seed, 1)[0])) for seed in range(3)]
    stacked = type(alone[0])(*(torch.stack(part) for part in zip(*alone, strict=True)))
    parameters, _ = stack_module_state(models)

    def applied(function):
        return lambda parameters, examples: function(lambda x: functional_call(models[0], parameters, (x,)), examples)

    gradients, losses = vmap(grad_and_value(applied(problem.loss)))(parameters, stacked)
    for run, (model, batch) in enumerate(zip(models, alone, strict=True)):
        loss = problem.loss(model, batch)
        loss.backward()
        torch.testing.assert_close(losses[run], loss, rtol=1e-9, atol=1e-9)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][run], parameter.grad, rtol=1e-9, atol=1e-9)
    for function in (problem.observe, problem.judge, problem.metric):
        together = vmap(applied(function))(parameters, stacked)
        one_by_one = torch.stack([function(model, batch) for model, batch in zip(models, alone, strict=True)])
        torch.testing.assert_close(together, one_by_one, rtol=1e-9, atol=1e-9)


def in_double(examples):
    return type(examples)(*(part.double() if part.is_floating_point() else part for part in examples))


@each_problem
def test_a_model_is_a_function_of_parameters_and_inputs(problem, data_of):
    """No dropout, no running statistics: training mode changes nothing, nor does having been called."""
    data, model = data_of(problem), problem.model()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    inputs = data.train.batch(batches(problem, data, 0)[0]).inputs
    first = model(inputs)
    assert torch.equal(first, model(inputs))
    torch.testing.assert_close(first, model.eval()(inputs))
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@each_problem
def test_it_trains(problem, data_of):
    data = data_of(problem)
    # What is pre-trained has less to learn, and where data are scarce not much at all.
    longer = problem.name in ("rastrigin", "continual")
    steps, share = (250, 0.99) if problem.kind == "pre-trained" else (min(problem.steps, 400 if longer else 250), 0.8)
    observed, before, after = train(problem, data, steps)
    assert all(map(math.isfinite, observed))
    assert after < share * before


def test_the_docs_list_every_problem_as_it_is():
    documented = DOCS.read_text(encoding="utf-8").splitlines()
    wanted = [row(problem) for problem in PROBLEMS.values()] + [row_of_lrs(problem) for problem in PROBLEMS.values()]
    assert not [line for line in wanted if line not in documented], "docs/problems.md lacks these rows"
    assert len([line for line in documented if line.startswith("| `")]) == len(wanted)


def test_the_documents_count_the_problems():
    for document in (DOCS, DOCS.parents[1] / "README.md"):
        assert f"{len(PROBLEMS)} problems" in document.read_text(encoding="utf-8"), document


def row(problem):
    parameters = sum(parameter.numel() for parameter in problem.model().parameters())
    numbers = f"{parameters:,} | {problem.steps:,} × {problem.batch_size}"
    judged = f"{problem.task.loss_name} | {problem.task.metric_name}"
    return f"| `{problem.name}` | {problem.title} | {problem.description} | {numbers} | {judged} |"


def row_of_lrs(problem):
    return f"| `{problem.name}` | " + " | ".join(f"{problem.lrs[name]:g}" for name in OPTIMIZERS) + " |"
