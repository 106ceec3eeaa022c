"""Problems, one by one: the data are what they say they are, and the boundary cases what they are named after."""

import math
import statistics
import sys
from itertools import pairwise

import pytest
import torch

from greedylr.lab.catalogue.problems import PROBLEMS, DataError, models, problem, text
from greedylr.lab.catalogue.problems.continual import STEPS_EACH, TASKS
from greedylr.lab.catalogue.problems.domains import SWITCH
from greedylr.lab.catalogue.problems.samplers import blocks, neighbours, uniform


def train(problem, data, steps, each_step=lambda step, model, batch: None, seed=0):
    """A model trained with AdamW at the problem's good learning rate; ``each_step`` is called before each."""
    torch.manual_seed(seed)
    model, generator = problem.model(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=problem.lr, fused=True)
    for step in range(steps):
        batch = data.train.batch(problem.sample(data, generator, step))
        with torch.no_grad():
            each_step(step, model, batch)
        optimizer.zero_grad()
        problem.loss(model, batch).backward()
        optimizer.step()
    return model


def observed(problem, data, steps):
    """What the scheduler is given at each step."""
    values = []
    train(problem, data, steps, lambda step, model, batch: values.append(problem.observe(model, batch).item()))
    return values


# Data


def test_the_default_batch_is_drawn_as_it_always_was():
    generator = torch.Generator().manual_seed(3)
    data = PROBLEMS["mlp"].load()
    drawn = PROBLEMS["mlp"].sample(data, torch.Generator().manual_seed(3), 5)
    assert torch.equal(drawn, torch.randint(len(data.train.inputs), (32,), generator=generator))


def test_no_digit_is_in_both_sets():
    data = PROBLEMS["digits"].load()
    assert (len(data.train.inputs), len(data.validation.inputs)) == (1347, 450)


@pytest.mark.parametrize(("domain", "between"), [(text.prose, b"\n\n"), (text.names, b"\n")])
def test_no_paragraph_and_no_name_is_in_both_sets(domain, between):
    train, validation = (bytes(part.tolist()).split(between) for part in domain())
    assert len(validation) > 250
    assert 6 < len(train) / len(validation) < 8
    assert not set(train) & set(validation)


def test_code_is_validated_on_files_of_its_own():
    assert not set(text.TRAIN_FILES) & set(text.VALIDATION_FILES)
    data = PROBLEMS["stdlib-text"].load()
    assert len(data.validation.inputs) == 256
    assert 700_000 < len(data.train.inputs) < 1_500_000
    # Windows of the held-out files that the training files happen to contain too would be licence headers and the like.
    trained_on = bytes(data.train.inputs[:, 0].tolist())
    shared = sum(bytes(window.tolist()) in trained_on for window in data.validation.inputs)
    assert shared < 0.05 * len(data.validation.inputs)


@pytest.mark.parametrize("name", ["stdlib-text", "lm-prose", "gru", "domains", "uneven"])
def test_the_target_of_each_character_is_the_next_one(name):
    for part in PROBLEMS[name].load():
        assert torch.equal(part.inputs[:50, 1:], part.targets[:50, :-1])


@pytest.mark.parametrize("name", ["stdlib-text", "deep-transformer", "gru"])
def test_a_language_model_does_not_see_what_it_is_to_predict(name):
    model, inputs = PROBLEMS[name].model(), PROBLEMS[name].load().train.inputs[:1].clone()
    before = model(inputs)
    inputs[0, 10] = (inputs[0, 10] + 1) % text.CHARACTERS
    after = model(inputs)
    torch.testing.assert_close(before[0, :10], after[0, :10])
    assert (before[0, 10:] - after[0, 10:]).abs().amax(-1).min() > 0


def test_a_python_without_sources_or_manual_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(text.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match=r"sources of the Python standard library cannot be read.*argparse\.py"):
        PROBLEMS["stdlib-text"].load()
    monkeypatch.setitem(sys.modules, "pydoc_data", None)
    with pytest.raises(DataError, match="manual in the Python standard library cannot be read"):
        PROBLEMS["lm-prose"].load()


def test_an_old_windows_line_end_is_one_character():
    assert text.encode("a\r\nä".encode()).tolist() == [97, 10, 127, 127]


def test_tiles_are_put_together_again():
    """The patches of a tile are where they were, and the region is the tile's."""
    from sklearn.datasets import load_sample_images

    photograph = torch.tensor(load_sample_images().images[0]) / 255 - 0.5
    data = PROBLEMS["vit"].load()
    tiles = torch.cat([part.inputs for part in data])
    regions = torch.cat([part.targets for part in data])
    # (tokens, 3 × 4 × 4) to the tile's (3, 16, 16)
    whole = tiles.unflatten(1, (4, 4)).unflatten(3, (3, 4, 4)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    for row, column, region in ((0, 0, 0), (25, 39, 7), (0, 39, 3), (13, 0, 4)):
        wanted = photograph[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].movedim(-1, 0)
        found = (whole == wanted).flatten(1).all(1)
        assert regions[found].tolist() == [region]


# Landscapes


@pytest.mark.parametrize("name", ["quadratic-100", "quadratic-10000", "rosenbrock", "rastrigin", "ackley"])
def test_a_landscape_is_zero_at_its_minimum_and_above_everywhere_else(name):
    model = PROBLEMS[name].model().double()
    level = torch.zeros(1, len(model.point), dtype=torch.float64)
    target = torch.ones_like(model.point) if name == "rosenbrock" else torch.zeros_like(model.point)
    with torch.no_grad():
        model.point.copy_(model.origin + model.rotation.T @ target)
        assert abs(model(level).item()) < 1e-5
        for _ in range(20):
            model.point.copy_(model.origin + torch.randn_like(model.point))
            assert model(level).item() > 1e-5


@pytest.mark.parametrize(("name", "condition"), [("quadratic-100", 1e2), ("quadratic-10000", 1e4)])
def test_a_quadratic_has_the_condition_number_it_is_named_after(name, condition):
    model = PROBLEMS[name].model().double()
    level = torch.zeros(1, len(model.point), dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(
        lambda point: torch.func.functional_call(model, {"point": point}, (level,)).sum(), model.point
    )
    curvatures = torch.linalg.eigvalsh(hessian)
    assert curvatures[-1].item() == pytest.approx(1)
    assert curvatures[-1].item() / curvatures[0].item() == pytest.approx(condition, rel=1e-3)
    assert hessian.fill_diagonal_(0).abs().max() > 0.05, "it is not rotated"


@pytest.mark.parametrize("name", ["quadratic-noisy", "rastrigin", "ackley"])
def test_noise_has_no_mean_and_is_not_judged_by(name):
    data = PROBLEMS[name].load()
    assert data.train.inputs.mean(0).abs().max() < 1e-6
    assert data.train.inputs.std() > 0.1
    assert not data.validation.inputs.any()


# Boundary cases


def test_batches_by_turns_stay_in_their_part():
    generator, sampler = torch.Generator().manual_seed(0), blocks(3, 5)
    parts = [set((sampler(300, 50, generator, step) // 100).tolist()) for step in range(30)]
    assert parts == [{step // 5 % 3} for step in range(30)]


def test_neighbours_are_close_and_everyone_can_be_one():
    generator, sampler = torch.Generator().manual_seed(0), neighbours(10)
    drawn = [sampler(40, 200, generator, step) for step in range(200)]
    assert max(int(batch.max() - batch.min()) for batch in drawn) == 9
    assert set(torch.cat(drawn).tolist()) == set(range(40))
    assert set(torch.cat([uniform(40, 200, generator, step) for step in range(9)]).tolist()) == set(range(40))


def test_the_loss_jumps_where_the_domain_changes():
    problem = PROBLEMS["domains"]
    losses = observed(problem, problem.load(), 8 * SWITCH)
    settled = losses[2 * SWITCH :]
    steps = [abs(after - before) for before, after in pairwise(settled)]
    at_switches = steps[SWITCH - 1 :: SWITCH]
    assert len(at_switches) == 5
    assert min(at_switches) > 3 * statistics.median(steps)


def test_the_domains_differ_in_the_level_of_their_loss():
    problem = PROBLEMS["domains"]
    losses = observed(problem, problem.load(), 8 * SWITCH)
    ends = [statistics.fmean(losses[end - 5 : end]) for end in range(5 * SWITCH, 8 * SWITCH + 1, SWITCH)]
    prose, names = ends[::2], ends[1::2]
    assert min(prose) > 1.2 * max(names)


def test_the_loss_of_an_uneven_batch_depends_on_where_it_is_from():
    problem = PROBLEMS["uneven"]
    data = problem.load()
    torch.manual_seed(0)
    model, size = train(problem, data, 150), len(data.train.inputs)
    with torch.no_grad():
        losses = [
            problem.loss(model, data.train.batch(torch.randint(2000, (64,)) + start)).item()
            for start in (0, size // 2, size - 2000)
        ]
    assert losses[0] < losses[1] - 0.3
    assert losses[1] < losses[2] - 0.3


def test_each_input_gets_one_expert_and_all_experts_get_inputs():
    problem = PROBLEMS["experts"]
    data = problem.load()
    torch.manual_seed(0)
    shares = {}

    def note(step, model, batch):
        if step in (0, 299):
            hidden = model[:4](data.validation.inputs)
            layer = model[4].layers[1]
            assert isinstance(layer, models.Experts)
            weights = layer.weights(model[4].layers[0](hidden))
            assert ((weights > 0).sum(-1) == 1).all()
            shares[step] = (weights > 0).double().mean(0)

    train(problem, data, 300, note)
    assert all((share > 0.02).sum() >= 2 for share in shares.values())
    assert not torch.equal(shares[0], shares[299])


def test_the_reward_rises_and_the_loss_says_nothing():
    problem = PROBLEMS["bandit"]
    data = problem.load()
    assert problem.task.mode == "max"
    rewards, losses = [], []

    def note(step, model, batch):
        rewards.append(problem.observe(model, batch).item())
        losses.append(problem.loss(model, batch).item())

    model = train(problem, data, problem.steps, note)
    assert statistics.fmean(rewards[:20]) < 0.2
    assert statistics.fmean(rewards[-20:]) > 0.4
    assert all(0 <= reward <= 1 for reward in rewards)
    with torch.no_grad():
        assert problem.metric(model, data.validation) > 0.4
        assert 0 < problem.judge(model, data.validation) < 0.6


def test_actions_are_drawn_from_the_policy():
    data = PROBLEMS["bandit"].load()
    logits = torch.linspace(-1, 1, 10)
    noise = data.train.targets[:, 1]
    shares = torch.bincount((logits + noise).argmax(-1), minlength=10) / len(noise)
    torch.testing.assert_close(shares, logits.softmax(-1), atol=0.01, rtol=0)


def test_the_policy_gradient_points_up_the_expected_reward():
    problem = PROBLEMS["bandit"]
    train, _ = problem.load()
    torch.manual_seed(0)
    model = problem.model()
    parameters = list(model.parameters())
    estimate = torch.autograd.grad(problem.loss(model, train), parameters)
    exact = torch.autograd.grad(problem.judge(model, train), parameters)
    one, other = (torch.cat([part.flatten() for part in parts]) for parts in (estimate, exact))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.95
    assert one.norm().item() == pytest.approx(other.norm().item(), rel=0.2)


def test_a_new_task_is_a_shock_and_the_old_one_is_partly_forgotten():
    problem = PROBLEMS["continual"]
    data = problem.load()
    size = len(data.validation.inputs) // TASKS
    first = data.validation.batch(torch.arange(size))
    of_first, losses = [], []

    def note(step, model, batch):
        of_first.append(problem.loss(model, first).item())
        losses.append(problem.loss(model, batch).item())

    model = train(problem, data, problem.steps, note)
    for task in range(1, TASKS):
        switch = task * STEPS_EACH
        assert losses[switch] > 3 * statistics.fmean(losses[switch - 20 : switch])
        assert statistics.fmean(losses[switch + STEPS_EACH - 20 : switch + STEPS_EACH]) < losses[switch] / 3
    assert problem.loss(model, first).item() > 2 * of_first[STEPS_EACH]
    assert problem.validate(model, data) < math.log(10)


# The class


def test_lrs_hold_that_of_adamw_also_when_it_is_replaced():
    from dataclasses import replace

    changed = replace(PROBLEMS["mlp"], lr=0.5)
    assert changed.lrs["adamw"] == 0.5
    assert changed.lrs["sgd"] == PROBLEMS["mlp"].lrs["sgd"]
    assert hash(changed) != hash(PROBLEMS["mlp"])
    assert isinstance(changed, problem.Problem)
