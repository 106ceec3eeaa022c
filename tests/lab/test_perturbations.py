"""Each perturbation changes what it is to change and nothing else; at strength zero, nothing at all, bit for bit."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.perturbations import KINDS, PERTURBATIONS, Scene, disturb, find, suits
from greedylr.lab.catalogue.problems import PROBLEMS, Data, Examples, Problem
from greedylr.lab.catalogue.schedulers import SCHEDULERS, Scheduler
from greedylr.lab.execution.engines.batched import parts, train_batched
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.setup import data_of, initial_model
from greedylr.lab.runs import Run

STEPS = 200
BEGIN, END = 80, 100  # of most
SHORT = 100  # where it does not matter which steps they are


def of_place(*places):
    return [name for name, one in PERTURBATIONS.items() if one.kind.acts_on in places]


TRAINING = of_place("gradient", "data", "state")
OBSERVATION = of_place("observation")
PUBLISHED = of_place("nothing")


def _load():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 5, generator=generator)
    targets = (inputs @ torch.randn(5, 3, generator=generator)).argmax(-1)
    return Data(Examples(inputs[:90], targets[:90]), Examples(inputs[90:], targets[90:]))


TINY = Problem(
    name="tiny-disturbed",
    title="",
    lr=0.01,
    lrs={"sgd": 0.05, "adam": 0.01, "adagrad": 0.05, "adafactor": 0.01},
    steps=STEPS,
    batch_size=8,
    load=_load,
    model=lambda: nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)),
)
TOLD = []


class Listening(torch.optim.lr_scheduler.ConstantLR):
    """A scheduler that writes down what it is told, and does nothing."""

    def step(self, value=None):
        if value is not None:
            TOLD.append(value)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(PROBLEMS, TINY.name, TINY)
    listening = Scheduler("listening", "", "", lambda optimizer, horizon: Listening(optimizer, 1.0), kind="feedback")
    monkeypatch.setitem(SCHEDULERS, "listening", listening)
    TOLD.clear()


def a_run(perturbation="none", scheduler="greedylr", optimizer="adamw", seed=1, multiplier=1.0, steps=STEPS):
    return Run(TINY.name, multiplier, scheduler, seed, steps, optimizer, perturbation)


def batched(*runs, dtype=torch.float64):
    made = {result.run: result for part in parts(runs, dtype=dtype) for result in train_batched(part, dtype=dtype)}
    return [made[run] for run in runs]


def batched_alone(run):
    return batched(run, dtype=torch.float32)[0]


ENGINES = pytest.mark.parametrize("engine", [train, batched_alone], ids=["one by one", "batched"])


def curves(result):
    return result.losses, result.lrs, result.validation_losses, result.metric


def told_by(run, engine=train):
    TOLD.clear()
    result = engine(run)
    return result, np.array(TOLD)


# What they do, in both engines


@ENGINES
@pytest.mark.parametrize("name", TRAINING)
def test_it_changes_training_from_its_beginning_on(name, engine):
    got, twin = (engine(a_run(one, "constant", steps=SHORT)) for one in (name, "none"))
    begin = find(name).span(SHORT).begin
    same = [mine == its for mine, its in zip(got.losses, twin.losses)]
    assert all(same[:begin])
    assert not any(same[begin + 10 :]) or find(name).kind.acts_on == "data"
    assert got.final_loss != twin.final_loss
    assert got.lrs == twin.lrs


@ENGINES
@pytest.mark.parametrize("kind", KINDS)
def test_at_strength_zero_it_changes_nothing_bit_for_bit(kind, engine):
    got, twin = (engine(a_run(name, "greedylr", steps=100)) for name in (f"{kind}:0", "none"))
    assert curves(got) == curves(twin)
    assert got.decisions == twin.decisions
    assert got.clean_losses in ([], got.losses)


@ENGINES
@pytest.mark.parametrize("name", OBSERVATION)
def test_it_changes_what_the_scheduler_is_told_and_nothing_else(name, engine):
    got, told = told_by(a_run(name, "listening"), engine)
    twin, its = told_by(a_run(scheduler="listening"), engine)
    assert curves(got) == curves(twin)
    begin, end = find(name).span(STEPS)
    assert len(told) == len(its) == STEPS
    assert its.tolist() == twin.losses
    changed = ~(told == its)
    assert changed[begin:end].any()
    assert not changed[:begin].any()
    assert not changed[end:].any()


@ENGINES
@pytest.mark.parametrize("name", OBSERVATION)
def test_a_scheduler_that_listens_is_misled_only_through_its_ears(name, engine):
    got, twin = engine(a_run(name, steps=100)), engine(a_run(steps=100))
    begin = find(name).span(100).begin
    assert got.losses[: begin + 1] == twin.losses[: begin + 1]
    assert got.lrs[: begin + 1] == twin.lrs[: begin + 1]
    assert got.clean_losses == []


@ENGINES
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("scheduler", ["greedylr", "transformers-greedylr", "cosine"])
def test_what_has_been_published_changes_nothing_bit_for_bit(name, scheduler, engine):
    got, twin = (engine(a_run(one, scheduler, "adam", steps=100)) for one in (name, "none"))
    assert curves(got) == curves(twin)
    assert got.decisions == twin.decisions


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers_are_numbers_all_the_same(name):
    disturbance = disturb([a_run(name)], data_of(TINY.name, torch.float32).train)
    assert any(disturbance.constant(step).abs() > 0.5 for step in range(STEPS))


# Both engines alike


STRONGEST = {find(name).kind.name: name for name in PERTURBATIONS}.values()


@pytest.mark.parametrize(
    "name", [name if name in STRONGEST else pytest.param(name, marks=pytest.mark.slow) for name in PERTURBATIONS]
)
def test_both_engines_do_the_same(name):
    runs = [a_run(name, one, seed=seed, steps=SHORT) for one in ("greedylr", "plateau") for seed in (0, 1)]
    for got in batched(*filter(suits, runs))[1:3]:
        assert_same(got, 1e-9)


@pytest.mark.parametrize(
    "optimizer",
    [name if name in ("sgd", "adafactor") else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS],
)
@pytest.mark.parametrize(
    "name",
    ["gradient-noise:1", "label-noise:0.5", "optimizer-lost:3", "rollback:0.2", "lr-jump:1", "observed-spikes:3"],
)
def test_both_engines_do_the_same_to_every_optimizer(name, optimizer):
    runs = [
        a_run(name, one, optimizer, multiplier=rate, steps=SHORT) for one, rate in (("greedylr", 1), ("plateau", 0.5))
    ]
    for got in batched(*runs):
        assert_same(got, 1e-9)


def assert_same(got, tolerance):
    want = train(got.run, dtype=torch.float64, fused=False)
    numbers = [
        np.array([*one.losses, *one.lrs, *one.validation_losses, one.metric, *one.clean_losses]) for one in (got, want)
    ]
    assert (np.abs(numbers[0] - numbers[1]) / np.maximum(1, np.abs(numbers[1]))).max() < tolerance
    assert [(one.step, one.action) for one in got.decisions] == [(one.step, one.action) for one in want.decisions]


def test_company_does_not_matter():
    name = "gradient-noise:1"
    alone = batched(a_run(name, seed=3))[0]
    together = batched(*[a_run(name, scheduler, seed=seed) for scheduler in ("cosine", "greedylr") for seed in (5, 3)])
    assert together[3].run == alone.run
    assert np.allclose(alone.losses, together[3].losses, rtol=1e-12)


# Twins


@pytest.mark.parametrize("name", of_place("data"))
def test_a_twin_sees_the_same_batches(name):
    # At a learning rate that moves nothing, clean losses are the twin's losses.
    got, twin = (train(a_run(one, "constant", "sgd", multiplier=1e-30)) for one in (name, "none"))
    assert got.clean_losses == twin.losses
    begin, end = find(name).span(STEPS)
    different = [step for step in range(STEPS) if got.losses[step] != twin.losses[step]]
    assert different
    assert begin <= min(different) <= max(different) < end


@pytest.mark.parametrize("name", [name for name in TRAINING if name not in of_place("data")])
def test_where_data_are_left_alone_the_losses_are_clean(name):
    assert train(a_run(name, steps=20)).clean_losses == []


def test_the_trouble_is_the_same_for_every_scheduler_learning_rate_and_strength_but_not_for_every_seed():
    data = data_of(TINY.name, torch.float32).train

    def noise(name, seed, scheduler="greedylr", multiplier=1.0):
        disturbance = disturb([a_run(name, scheduler, seed=seed, multiplier=multiplier)], data)
        gradients = [torch.ones(1, 6, 5), torch.ones(1, 6)]
        return torch.cat([one.flatten() - 1 for one in disturbance.gradients(BEGIN, gradients)])

    mine = noise("gradient-noise:1", 0)
    assert torch.equal(mine, noise("gradient-noise:1", 0, "cosine", 0.1))
    assert torch.allclose(3 * mine, noise("gradient-noise:3", 0), atol=1e-6)
    assert not torch.allclose(mine, noise("gradient-noise:1", 1))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    train(a_run("gradient-noise:1", steps=10))
    assert torch.equal(torch.get_rng_state(), before)


# One by one


def disturbance_of(name, *seeds, steps=STEPS):
    return disturb(
        [a_run(name, seed=seed, steps=steps) for seed in seeds or (0,)], data_of(TINY.name, torch.float32).train
    )


def of_gradient(name, gradient, step=BEGIN):
    """What becomes of the gradient of one run."""
    return disturbance_of(name).gradients(step, [gradient.unsqueeze(0)])[0].squeeze(0)


BIG = torch.linspace(-1, 3, 4000)


def test_noise_is_in_proportion_to_the_gradient():
    for scale in (1e-6, 1.0, 1e6):
        noise = of_gradient("gradient-noise:0.5", scale * BIG) - scale * BIG
        assert float(noise.norm() / BIG.norm()) == pytest.approx(0.5 * scale, rel=0.05)


def test_noise_is_shared_by_the_parameters_of_a_run_and_apart_for_runs():
    disturbance = disturbance_of("gradient-noise:1", 0, 1, 0)
    large, small = torch.ones(3, 50, 50), torch.zeros(3, 50)
    noises = [mine - its for mine, its in zip(disturbance.gradients(BEGIN, [large, small]), [large, small])]
    assert noises[0].std() == pytest.approx(1, rel=0.05)
    assert noises[1].std() == pytest.approx(1, rel=0.2)
    assert torch.equal(noises[0][0], noises[0][2])
    assert not torch.equal(noises[0][0], noises[0][1])


def test_random_spikes_hit_the_first_step_and_some_others():
    disturbance = disturbance_of("gradient-spikes:100")
    sizes = [disturbance.gradients(step, [BIG[None]])[0].norm() / BIG.norm() for step in range(STEPS)]
    hit = [step for step, size in enumerate(sizes) if size != 1]
    assert hit[0] == BEGIN
    assert hit[-1] < END
    assert 1 < len(hit) < 15
    assert all(sizes[step] == pytest.approx(100, rel=0.1) for step in hit)


def test_overflow_comes_every_few_steps():
    factors = [of_gradient("gradient-overflow:3", BIG, step)[-1] / BIG[-1] for step in range(STEPS)]
    assert [step for step, factor in enumerate(factors) if factor == 4] == [80, 85, 90, 95]
    assert set(map(float, factors)) == {1.0, 4.0}


def test_adversarial_steps_flip_a_share_of_the_signs():
    assert torch.equal(of_gradient("adversarial:1", BIG), -BIG)
    flipped = of_gradient("adversarial:0.25", BIG)
    assert torch.equal(flipped.abs(), BIG.abs())
    assert (flipped != BIG).float().mean() == pytest.approx(0.25, abs=0.03)


def test_bursts_are_short():
    on = [step for step in range(STEPS) if not torch.equal(of_gradient("gradient-bursts:3", BIG, step), BIG)]
    assert on == [80, 81, 82, 90, 91, 92, 100, 101, 102, 110, 111, 112]


def test_a_lost_worker_is_the_same_as_long_as_it_is_lost():
    disturbance = disturbance_of("worker-lost:0.5")
    first, second = (disturbance.gradients(step, [BIG[None]])[0] for step in (BEGIN, BEGIN + 1))
    assert torch.equal(first, second)
    lost = first[0] == 0
    assert lost.float().mean() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(first[0][~lost], BIG[~lost])


def test_a_stale_gradient_is_that_of_ten_steps_ago():
    disturbance = disturbance_of("worker-stale:0.25")
    got = [float(disturbance.gradients(step, [torch.full((1, 1), float(step))])[0]) for step in range(STEPS)]
    assert got[:BEGIN] == list(range(BEGIN))
    assert got[BEGIN:END] == [step - 2.5 for step in range(BEGIN, END)]
    assert got[END:] == list(range(END, STEPS))


def test_gradients_are_not_written_to():
    for name in of_place("gradient"):
        gradient = BIG.clone()
        of_gradient(name, gradient)
        assert torch.equal(gradient, BIG)


def of_batch(name, step=BEGIN, count=2000):
    """What becomes of a batch: what it would be, and what it is."""
    data = data_of(TINY.name, torch.float32).train
    indices = torch.randint(90, (1, count), generator=torch.Generator().manual_seed(0))
    return data.batch(indices[0]), Examples(*(part[0] for part in disturbance_of(name).examples(step, indices)))


def test_label_noise_changes_targets_only_and_keeps_their_frequencies():
    clean, got = of_batch("label-noise:0.5")
    assert torch.equal(got.inputs, clean.inputs)
    every, other = of_batch("label-noise:1")
    of_half, of_all = (
        float((a != b).float().mean()) for a, b in ((got.targets, clean.targets), (every.targets, other.targets))
    )
    assert of_half == pytest.approx(of_all / 2, abs=0.05)
    assert torch.allclose(other.targets.bincount() / 2000, clean.targets.bincount() / 2000, atol=0.05)


def test_corrupted_inputs_are_numbers_of_other_examples_at_their_places():
    data = data_of(TINY.name, torch.float32).train
    clean, got = of_batch("input-corruption:0.2")
    assert torch.equal(got.targets, clean.targets)
    assert (got.inputs != clean.inputs).float().mean() == pytest.approx(0.2, abs=0.02)
    for column in range(5):
        assert torch.isin(got.inputs[:, column], data.inputs[:, column]).all()


def test_a_shifted_shard_holds_one_end_of_the_targets():
    assert of_batch("shard-shift:0.95")[1].targets.float().mean() > 1.9
    clean, got = of_batch("shard-shift:0.5")
    assert got.targets.float().mean() > clean.targets.float().mean() + 0.3


def test_drift_comes_on_slowly():
    means = [of_batch("drift:0.95", step)[1].targets.float().mean() for step in (40, 80, 119)]
    assert means == sorted(means)
    assert float(means[0]) == pytest.approx(float(of_batch("drift:0", 40)[0].targets.float().mean()), abs=0.1)
    assert means[-1] > 1.9


def test_the_composition_of_batches_goes_round():
    means = [of_batch("cyclic-batches:0.95", step)[1].targets.float().mean() for step in range(80, 100)]
    assert means[0] == means[10] > 1.9
    assert means[5] == means[15] < 0.1


def test_repeated_batches_are_the_first_of_the_window():
    disturbance = disturbance_of("repeated-batches:0.25")
    batches = [torch.arange(8)[None] + step for step in range(STEPS // 4)] * 4
    data = data_of(TINY.name, torch.float32).train
    seen = [disturbance.examples(step, batches[step]) for step in range(STEPS)]
    assert all((seen[step] is not None) == (BEGIN <= step < END) for step in range(STEPS))
    for step in range(BEGIN, END):
        assert torch.equal(seen[step].inputs[0, :2], data.inputs[batches[BEGIN][0, :2]])
        assert torch.equal(seen[step].inputs[0, 2:], data.inputs[batches[step][0, 2:]])


def test_blank_batches_keep_their_targets():
    clean, got = of_batch("blank-batches:0.5")
    assert torch.equal(got.targets, clean.targets)
    blank = (got.inputs == got.inputs.mode(0).values).all(1)
    assert blank.float().mean() == pytest.approx(0.5, abs=0.05)


def test_a_lost_state_is_that_of_a_new_optimizer():
    run = a_run("optimizer-lost:1", "constant", "sgd", steps=10)
    got, twin = train(run), train(run._replace(perturbation="none"))
    assert got.losses[:5] == twin.losses[:5]  # The step after 4 is the first without momentum.
    assert got.losses[5] != twin.losses[5]
    assert find("optimizer-lost:3").span(STEPS) == (80, 94)
    assert find("optimizer-lost:1").span(STEPS) == (80, 81)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_forgetting_is_beginning_anew(optimizer):
    from greedylr.lab.catalogue.optimizers import forget

    gradients = torch.randn(6, 3, 4, generator=torch.Generator().manual_seed(0))

    def after(parameter, made, steps):
        for step in steps:
            parameter.grad = gradients[step]
            made.step()
        return parameter.detach().clone()

    start = torch.ones(3, 4)
    used = nn.Parameter(torch.zeros(3, 4))
    optimizer_used = OPTIMIZERS[optimizer].build([used], 0.1)
    after(used, optimizer_used, range(3))
    forget(optimizer_used)
    with torch.no_grad():
        used.copy_(start)
    new = nn.Parameter(start.clone())
    assert torch.equal(
        after(used, optimizer_used, range(3, 6)), after(new, OPTIMIZERS[optimizer].build([new], 0.1), range(3, 6))
    )


def test_rolled_back_weights_are_those_of_the_checkpoint():
    disturbance = disturbance_of("rollback:0.1")
    weights = [torch.zeros(1, 2)]
    for step in range(STEPS):
        disturbance.state(step, weights, lambda: pytest.fail("nothing is forgotten"))
        expected = step - 20 if step >= BEGIN else step  # as if each step added one
        assert weights[0].tolist() == [[expected, expected]]
        weights[0] += 1


def test_a_checkpoint_from_before_the_run_is_that_of_its_beginning():
    run = a_run("rollback:1", "constant")
    got = train(run)
    assert got.run.perturbation == "rollback:1"
    data, model = data_of(TINY.name, torch.float32), initial_model(run, torch.float32)
    from greedylr.lab.execution.setup import batches

    drawn = batches(run, data)
    indices = [next(drawn) for _ in range(BEGIN + 1)][-1]
    assert got.losses[BEGIN] == pytest.approx(TINY.loss(model, data.train.batch(indices)).item(), rel=1e-6)


def test_a_learning_rate_changed_by_hand_reaches_the_optimizer_and_not_the_schedule():
    # Without momentum to speak of, a step is in proportion to the learning rate.
    run = a_run("lr-jump:1", "constant", "sgd", steps=10)  # on at the fifth step only
    moved = train(run._replace(multiplier=10.0, perturbation="none"))
    jumped, still = train(run), train(run._replace(perturbation="none"))
    assert jumped.lrs == still.lrs
    assert jumped.losses[4] == still.losses[4]
    assert jumped.losses[5] != still.losses[5]
    assert moved.lrs[0] == 10 * still.lrs[0]


def of_values(name, values, seeds=(0,)):
    disturbance = disturbance_of(name, *seeds)
    stacked = torch.tensor(values, dtype=torch.float64).unsqueeze(1).expand(-1, len(seeds))
    return torch.stack([disturbance.observation(step, now) for step, now in enumerate(stacked)])


COUNT = [float(step + 1) for step in range(STEPS)]


def test_a_delay_tells_what_was():
    told = of_values("observed-delay:0.1", COUNT)[:, 0].tolist()
    assert told[60:120] == COUNT[40:100]
    assert told[:60] + told[120:] == COUNT[:60] + COUNT[120:]


def test_a_missing_observation_is_the_last_one_again():
    assert of_values("observed-missing:1", COUNT)[60:120, 0].tolist() == [60.0] * 60
    told = of_values("observed-missing:0.3", COUNT, (0, 1))
    assert not torch.equal(told[:, 0], told[:, 1])
    kept = told[:, 0].numpy() == np.array(COUNT)
    assert 30 < kept[60:120].sum() < 55
    assert all(told[step, 0] == told[step - 1, 0] for step in np.flatnonzero(~kept))


def test_nan_is_told_now_and_then():
    told = of_values("observed-nan:0.3", COUNT)[:, 0]
    assert 8 < told.isnan().sum() < 30
    assert of_values("observed-nan:1", COUNT).isnan().sum() == 60


def test_observed_spikes_and_noise_are_in_proportion():
    told = of_values("observed-spikes:3", COUNT)[:, 0].numpy()
    factors = told / np.array(COUNT)
    assert set(factors) == {1.0, 4.0}
    assert factors[60] == 4.0
    noise = (of_values("observed-noise:1", COUNT)[60:120, 0].numpy() / np.array(COUNT[60:120])) - 1
    assert 0.7 < noise.std() < 1.3


def test_a_negative_value_spikes_upwards():
    assert of_values("observed-spikes:3", [-1.0] * STEPS).max() == 2.0


# Names, and where they fit


def test_there_are_several_strengths_a_cause_and_a_title_for_each_kind():
    for kind in KINDS.values():
        assert kind.cause
        assert kind.meaning
        assert kind.title
        assert len(kind.strengths) >= (1 if kind.acts_on == "nothing" else 3)
        assert 0 not in kind.strengths
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS) == 30


@pytest.mark.parametrize(
    "name", ["", "x", "gradient-noise", "gradient-noise:", "gradient-noise:x", "gradient-noise:1.0", "x:1",
             "gradient-noise:nan", "gradient-noise:inf", "gradient-noise: 1"]
)  # fmt: skip
def test_names_that_are_none(name):
    with pytest.raises(KeyError):
        find(name)
    for engine in (train, batched_alone):
        with pytest.raises(KeyError):
            engine(a_run(name, steps=2))


def test_names_are_found():
    assert find("none") is None
    assert all(find(name) == one and one.name == name for name, one in PERTURBATIONS.items())
    assert find("lr-jump:-1").strength == -1


@pytest.mark.parametrize(
    ("problem", "scheduler", "perturbation"),
    [
        ("rosenbrock", "constant", "label-noise:1"),
        ("tiny-disturbed", "schedule-free", "optimizer-lost:1"),
        ("tiny-disturbed", "cosine", "observed-nan:1"),
    ],
)
def test_what_has_nothing_to_act_on_is_refused(problem, scheduler, perturbation):
    run = Run(problem, 1.0, scheduler, 0, 5, "adamw", perturbation)
    assert not suits(run)
    with pytest.raises(ValueError, match=f"{perturbation} has nothing to act on in {problem} under {scheduler}"):
        train(run)


@pytest.mark.parametrize("name", ["gradient-noise:1", "label-noise:0.5", "rollback:0.2", "lr-jump:1"])
@pytest.mark.parametrize("scheduler", ["schedule-free", "momo"])
def test_whole_optimizers_can_be_disturbed_one_by_one(name, scheduler):
    got, twin = train(a_run(name, scheduler)), train(a_run(scheduler=scheduler))
    assert got.losses[:BEGIN] == twin.losses[:BEGIN]
    assert got.losses != twin.losses


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("name", [f"{kind}:{cls.strengths[-1]:g}" for kind, cls in KINDS.items()])
def test_even_the_shortest_run_can_be_disturbed(name, steps):
    for engine in (train, batched_alone):
        assert len(engine(a_run(name, steps=steps)).losses) == steps


@pytest.mark.parametrize("name", of_place("data"))
@pytest.mark.parametrize("problem", ["least-squares", "gru", "residual-mlp", "bandit"])
def test_data_of_every_kind_can_be_disturbed(problem, name):
    run = Run(problem, 1.0, "greedylr", 0, 5, "adamw", name)
    got, twin = train(run), train(run._replace(perturbation="none"))
    assert got.losses[:2] == twin.losses[:2] or name.startswith("drift")
    assert len(got.clean_losses) == 5


def test_a_run_that_breaks_down_keeps_its_clean_losses_as_long_as_its_losses(monkeypatch):
    class Breaking(torch.optim.lr_scheduler.ConstantLR):
        def step(self, value=None):
            if value is not None:
                self.told = getattr(self, "told", 0) + 1
                if self.told == 15:
                    raise ZeroDivisionError

    entry = replace(SCHEDULERS["plateau"], name="breaking", make=lambda optimizer, horizon: Breaking(optimizer, 1.0))
    monkeypatch.setitem(SCHEDULERS, "breaking", entry)
    for engine in (train, batched_alone):
        got = engine(a_run("label-noise:1", "breaking", steps=30))
        assert len(got.clean_losses) == len(got.losses) == 15


def test_a_hook_that_is_not_used_costs_nothing_but_a_call():
    from greedylr.lab.catalogue.perturbations import Disturbance

    class Nothing(Disturbance):
        name = "nothing"

    disturbance = Nothing(1.0, Scene(10, [0], data_of(TINY.name, torch.float32).train))
    gradients = [torch.ones(1, 2)]
    assert disturbance.examples(5, torch.zeros(1, 3, dtype=torch.int64)) is None
    assert disturbance.constant(5) is None
    assert disturbance.gradients(5, gradients) is gradients
    assert disturbance.lr_factor(5) == 1.0
    assert disturbance.observation(5, gradients[0]) is gradients[0]
    assert math.isclose(disturbance.begin, 4)


def test_the_documentation_lists_every_kind_with_its_cause_and_strengths():
    text = (Path(__file__).parents[2] / "docs" / "robustness.md").read_text(encoding="utf-8")
    for kind in KINDS.values():
        if kind.acts_on != "nothing":
            strengths = ", ".join(f"{strength:g}" for strength in kind.strengths)
            (row,) = (line for line in text.splitlines() if line.startswith(f"| `{kind.name}` | {kind.cause} | "))
            assert f" | {strengths} | " in row
