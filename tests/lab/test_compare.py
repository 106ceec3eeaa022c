"""compare: catalogue problems and the user's own training code alike, with errors that say what to do."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, ReduceLROnPlateau, StepLR

import greedylr
from greedylr.lab import compare
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.comparison import TrialError
from greedylr.lab.execution.reference_loop import train as train_run
from greedylr.lab.runs import Run

STEPS = 40


def train(trial, steps=STEPS, often=True, explode=False):
    """A straight line through noise; ``explode``: with the learning rate 1, the loss is NaN from the middle on."""
    torch.manual_seed(trial.seed)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.lr)
    trial.start(optimizer, steps=steps)
    for step, batch in enumerate(torch.randn(steps, 16, 4)):
        loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if explode and trial.lr == 1 and step > steps // 2:
            loss = loss * math.nan
        trial.step(loss)
        if often and step % 2:
            trial.validate(loss)
    trial.validate((model(torch.eye(4)) - 1).square().mean() * loss / loss)


@pytest.fixture(scope="module")
def compared():
    return compare(train, ("greedylr", "cosine", "constant"), lrs=(0.01, 0.1), seeds=2)


def test_a_function_is_called_for_every_scheduler_rate_and_seed(compared):
    runs = [result.run for result in compared.results]
    assert len(set(runs)) == 12
    assert runs[0] == Run("train", 0.01, "greedylr", 0, STEPS, "sgd", absolute=True)
    assert {run.multiplier for run in runs} == {0.01, 0.1}
    assert {run.seed for run in runs} == {0, 1}
    assert compared.schedulers == ("greedylr", "cosine", "constant")
    assert compared.fixed == ("cosine", "constant")


def test_losses_and_learning_rates_are_those_of_the_steps(compared):
    for result in compared.results:
        lrs = [result.run.multiplier] * STEPS
        if result.run.scheduler == "cosine":
            lrs = [result.run.multiplier * factor for factor in cosine()]
        if result.run.scheduler != "greedylr":
            assert result.lrs == pytest.approx(lrs)
        assert len(result.losses) == STEPS
        assert result.validation_steps == [0, *range(2, STEPS + 1, 2)]
        assert result.validation_losses[0] == result.losses[0]


def cosine():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = SCHEDULERS["cosine"].build(optimizer, STEPS)
    for _ in range(STEPS):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def test_a_feedback_scheduler_is_told_the_loss():
    heard = []

    class Listening(greedylr.GreedyLR):
        def step(self, loss):
            heard.append(loss)
            super().step(loss)

    made = compare(train, {"mine": lambda optimizer, steps: Listening(optimizer)}, lrs=[0.1], seeds=[7])
    (result,) = made.results
    assert heard == result.losses
    assert made.fixed == ()


def test_one_that_asks_for_it_hears_the_validation_loss():
    def rises(trial):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=trial.lr)
        trial.start(optimizer, steps=10)
        for validation in (3.0, 2.0, *[2.5] * 8):
            trial.step(1.0)
            trial.validate(validation)

    told = compare(rises, ("greedylr-validated", "greedylr"), lrs=[0.1], seeds=1)
    decided = {result.run.scheduler: [one.action.name for one in result.decisions] for result in told.results}
    # The last comes after the last step.
    assert decided == {"greedylr-validated": ["VALIDATION_ROSE"] * 7, "greedylr": []}


def test_schedulers_of_ones_own_stand_beside_the_labs():
    schedulers = {
        "plateau, impatient": lambda optimizer, steps: ReduceLROnPlateau(optimizer, patience=0),
        "stairs": lambda optimizer, steps: StepLR(optimizer, steps // 2),
        "reference": "cosine",
    }
    made = compare(train, schedulers, lrs=[0.1], seeds=1)
    assert made.schedulers == tuple(schedulers)
    assert made.fixed == ("stairs", "reference")
    stairs = next(result for result in made.results if result.run.scheduler == "stairs")
    assert stairs.lrs == pytest.approx([0.1] * (STEPS // 2) + [0.01] * (STEPS // 2))
    assert "plateau, impatient against each rival" in str(made.table())


def test_the_summary_is_that_of_the_lab(compared):
    summary = compared.summary
    assert summary.absolute
    assert {one.difference.stage for one in summary.comparisons} == {0.1, 0.5, 1.0}
    assert {one.difference.second for one in summary.comparisons} == {"cosine", "constant"}
    assert {one.best.scheduler for one in summary.regrets.values} <= {"cosine", "constant"}
    assert summary.steps


def test_stages_that_nobody_looked_at_are_not_compared():
    made = compare(lambda trial: train(trial, often=False), ("greedylr", "cosine"), lrs=[0.1], seeds=1)
    assert {one.difference.stage for one in made.summary.comparisons} == {1.0}
    assert made.summary.steps == ()


def test_a_loss_that_is_not_finite_is_a_failure_and_no_error():
    made = compare(lambda trial: train(trial, explode=True), ("greedylr", "constant"), lrs=[0.1, 1.0], seeds=2)
    assert {one.scheduler: one.failed for one in made.summary.failures} == {"greedylr": 2, "constant": 2}
    assert "2 of 2 failed" in str(made.table())


def test_who_meets_nan_may_give_up_early():
    def gives_up(trial):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trial.lr)
        trial.start(optimizer, steps=100)
        for loss in (2.0, 1.0, math.nan):
            optimizer.step()
            trial.step(loss)

    made = compare(gives_up, ("greedylr", "constant"), lrs=[0.1], seeds=1)
    assert [result.failure for result in made.results] == ["gave up after a loss of nan"] * 2
    assert all(one.failed == 1 for one in made.summary.failures)


def test_the_table_is_for_people(compared):
    text = str(compared.table())
    for part in ("train: validation loss after training", "GreedyLR", "cosine with warmup", "0.01", "±", "2"):
        assert part in text
    assert "\x1b" not in text


def test_the_page_and_the_plot_hold_every_scheduler(compared, tmp_path):
    file = compared.write(tmp_path / "out")
    assert file == tmp_path / "out" / "report.html"
    html = file.read_text(encoding="utf-8")
    assert "12 of 12 runs" in html
    assert "cosine with warmup" in html
    assert compared.write(tmp_path / "mine.html") == tmp_path / "mine.html"
    figure = compared.plot()
    assert [trace.name for trace in figure.data] == ["GreedyLR", "cosine with warmup", "constant"]
    assert list(figure.data[0].x) == [0.01, 0.1]


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    compare(train, ("constant",), lrs=[0.1], seeds=1)
    assert torch.rand(1) == wanted


def broken(body):
    """A training function that does one thing wrong."""

    def function(trial):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trial.lr)
        body(trial, optimizer)

    return function


def steps(trial, optimizer, count, announced=2):
    trial.start(optimizer, steps=announced)
    for _ in range(count):
        optimizer.step()
        trial.step(1.0)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (lambda trial, optimizer: None, "trial.start was not called"),
        (lambda trial, optimizer: trial.step(1.0), "trial.start was not called"),
        (lambda trial, optimizer: trial.validate(1.0), "trial.start was not called"),
        (lambda trial, optimizer: steps(trial, optimizer, 0), "trial.step was never called"),
        (lambda trial, optimizer: steps(trial, optimizer, 1), "trial.step was called 1 time, but start was told of 2"),
        (lambda trial, optimizer: steps(trial, optimizer, 3), "more often than the 2 times"),
        (lambda trial, optimizer: steps(trial, optimizer, 2), "trial.validate was not called after the last step"),
        (lambda trial, optimizer: steps(trial, optimizer, 0, 0), "steps must be a whole number of at least 1, got 0"),
        *(
            (lambda trial, optimizer, steps=steps: trial.start(optimizer, steps), "steps must be a whole number")
            for steps in (30.5, True, math.nan, "30", None, [30])
        ),
        (lambda trial, optimizer: (trial.start(optimizer, 2), trial.step(np.zeros(2))), "a loss must be a number"),
        (lambda trial, optimizer: [trial.start(optimizer, 2) for _ in range(2)], "trial.start was called twice"),
        (
            lambda trial, optimizer: trial.start(torch.optim.SGD([torch.zeros(1)], lr=0.5), 2),
            "learning rate is 0.5; build it with lr=trial.lr, 0.1",
        ),
        (lambda trial, optimizer: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_with_a_training_function_is_said_with_the_trial(body, said):
    with pytest.raises(TrialError, match=r"constant at lr 0.1, seed 4: ") as error:
        compare(broken(body), ("constant",), lrs=[0.1], seeds=[4])
    assert said in str(error.value)
    assert error.value.__cause__ is not None


def test_a_training_that_begins_with_nan_is_no_trial():
    def train(trial):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trial.lr)
        trial.start(optimizer, 1)
        optimizer.step()
        trial.step(math.nan)
        trial.validate(1.0)

    with pytest.raises(TrialError, match="the loss before the first step is nan"):
        compare(train, ("constant",), lrs=[0.1], seeds=1)


def test_trials_that_do_not_start_alike_are_not_compared():
    calls = iter(range(10))

    def unseeded(trial):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trial.lr)
        trial.start(optimizer, 1)
        optimizer.step()
        trial.step(1.0 + next(calls))
        trial.validate(0.5)

    with pytest.raises(TrialError, match=r"constant and cosine at lr 0.1, seed 0: .* seed all that is random"):
        compare(unseeded, ("constant", "cosine"), lrs=[0.1], seeds=1)


def test_trials_of_different_lengths_are_not_compared():
    lengths = iter((10, 20))
    with pytest.raises(TrialError, match="same steps and optimizer"):
        compare(lambda trial: train(trial, next(lengths)), ("constant", "cosine"), lrs=[0.1], seeds=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"training": train}, "lrs must be given"),
        ({"training": train, "lrs": []}, "lrs must be a list of positive"),
        ({"training": train, "lrs": [0.1, 0.1]}, "lrs must be a list of positive finite numbers that differ"),
        ({"training": train, "lrs": [0.0]}, "lrs must be a list of positive"),
        ({"training": train, "lrs": [0.1], "seeds": 0}, "seeds must be"),
        ({"training": train, "lrs": [0.1], "seeds": [1, 1]}, "seeds must be"),
        ({"training": train, "lrs": [0.1], "optimizer": "sgd"}, "optimizer is for problems"),
        ({"training": train, "lrs": [0.1], "jobs": 2}, "jobs is for problems"),
        ({"training": train, "lrs": [0.1], "schedulers": ("momo",)}, "momo is a whole optimizer"),
        ({"training": train, "lrs": [0.1], "schedulers": ()}, "schedulers must name at least one"),
        ({"training": train, "lrs": [0.1], "schedulers": ("cosine", "cosine")}, "each be named once"),
        ({"training": train, "lrs": [0.1], "schedulers": ("cosinus",)}, "there is no 'cosinus'; there are greedylr"),
        ({"training": train, "lrs": [0.1], "schedulers": {"cosine": ExponentialLR}}, "call your own something else"),
        ({"training": train, "lrs": [0.1], "schedulers": {"cosine": "linear"}}, "the name of another one than linear"),
        ({"training": "digit"}, "there is no problem 'digit'"),
        ({"training": train, "lrs": 0.1}, "lrs must be a list of positive"),
        ({"training": train, "lrs": [True]}, "lrs must be a list of positive"),
        ({"training": train, "lrs": [0.1], "seeds": -1}, "seeds must be"),
        ({"training": train, "lrs": [0.1], "seeds": [-1]}, "seeds must be"),
        ({"training": train, "lrs": [0.1], "seeds": [0.5]}, "seeds must be"),
        ({"training": train, "lrs": [0.1], "seeds": "3"}, "seeds must be"),
        ({"training": "digits", "jobs": 0}, "jobs must be a number of cores"),
        ({"training": ()}, "training must name a problem"),
        ({"training": "digits", "optimizer": "lion"}, "there is no optimizer 'lion'"),
        ({"training": "digits", "schedulers": ("prodigy",), "optimizer": "sgd"}, "prodigy cannot be used with sgd"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        compare(**arguments)


def test_problems_of_the_catalogue_are_trained_as_the_lab_trains_them():
    before = dict(SCHEDULERS)
    own = {"cosine": "cosine", "stairs": lambda optimizer, steps: StepLR(optimizer, steps // 2)}
    made = compare("quadratic-100", own, seeds=[0, 5], lrs=[0.01], optimizer="sgd", jobs=1)
    assert before == SCHEDULERS
    assert [result.run[:4] for result in made.results] == [
        ("quadratic-100", 0.01, name, seed) for seed in (0, 5) for name in own
    ]
    assert made.fixed == ("cosine", "stairs")
    assert made.summary.absolute
    first, stairs = made.results[:2]
    assert first.lrs[first.run.steps // 10] == pytest.approx(0.01)
    assert stairs.lrs[-1] == pytest.approx(0.001)
    assert stairs.losses[0] == pytest.approx(first.losses[0])


def test_settings_may_follow_the_name_of_a_scheduler():
    made = compare("rosenbrock", ("paper", "paper:factor=0.5", "cosine"), seeds=1, jobs=1)
    assert made.schedulers == ("paper", "paper:factor=0.5", "cosine")
    usual, bold, _ = made.results
    assert usual.lrs != bold.lrs
    alone = train_run(bold.run)
    assert [one.step for one in bold.decisions] == [one.step for one in alone.decisions]
    assert "GreedyLR.paper, factor=0.5" in str(made.table())


def test_without_learning_rates_each_problem_is_trained_at_its_good_one():
    made = compare(("quadratic-100", "rosenbrock"), ("constant",), seeds=1, jobs=1)
    assert not made.summary.absolute
    assert [result.run.multiplier for result in made.results] == [1.0, 1.0]
    (one,) = (result for result in made.results if result.run.problem == "quadratic-100")
    assert one.final_loss == pytest.approx(train_run(one.run).final_loss, rel=1e-3)
    assert "1×" in str(made.table())


@pytest.mark.parametrize("seeds", [np.int64(2), np.arange(2), [np.int32(0), np.int64(1)], torch.arange(2), range(2)])
def test_numbers_may_be_those_of_other_libraries(seeds):
    lrs = (np.float32(0.5), torch.tensor(0.25), Fraction(1, 8))
    made = compare(train, ("constant",), seeds=seeds, lrs=lrs)
    assert [result.run[:4] for result in made.results] == [
        ("train", lr, "constant", seed) for seed in (0, 1) for lr in (0.5, 0.25, 0.125)
    ]
    assert {type(number) for result in made.results for number in (result.run.seed, result.run.steps)} == {int}


@pytest.mark.parametrize("loss", [np.float32(0.5), np.array(0.5), np.array([0.5]), torch.tensor([0.5]), 0.5])
def test_losses_may_be_those_of_other_libraries(loss):
    def train(trial):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=trial.lr)
        trial.start(optimizer, np.int64(1))
        optimizer.step()
        trial.step(loss)
        trial.validate(loss)

    (result,) = compare(train, ("constant",), seeds=1, lrs=[0.1]).results
    assert result.losses == result.validation_losses[1:] == [0.5]


class Wrapped:
    """A cosine in the user's own clothes; remembers what it was given."""

    def __init__(self, optimizer, steps):
        self.inner = CosineAnnealingLR(optimizer, steps)
        self.heard = []


class AnyArguments(Wrapped):
    def step(self, *args, **kwargs):
        self.heard += [*args, *kwargs.values()]
        self.inner.step(*args)


class Optional(Wrapped):
    def step(self, current_step=None):
        self.heard += [] if current_step is None else [current_step]
        self.inner.step(current_step)


class MetricsAndEpoch(Wrapped):
    def step(self, metrics=None, epoch=None):
        assert isinstance(metrics, float)
        self.heard += [] if epoch is None else [epoch]
        self.inner.step(epoch)


class EpochAndMetrics(Wrapped):
    def step(self, epoch=None, *, metric=None):
        assert isinstance(metric, float)
        self.heard += [] if epoch is None else [epoch]
        self.inner.step(epoch)


class Time(LambdaLR):
    def __init__(self, optimizer, steps):
        self.heard = []
        super().__init__(optimizer, lambda t: (1 + math.cos(math.pi * t / steps)) / 2)

    def step(self, t=None):
        self.heard += [] if t is None else [t]
        super().step(t)


@pytest.mark.parametrize("kind", [AnyArguments, Optional, MetricsAndEpoch, EpochAndMetrics, Time])
def test_a_fixed_schedule_never_takes_the_loss_for_the_time(kind):
    kept = []

    def make(optimizer, steps):
        kept.append(kind(optimizer, steps))
        return kept[-1]

    own, catalogue = (compare(training, {"mine": make}, lrs=[0.1], seeds=1) for training in (train, "quadratic-100"))
    for made in (own, catalogue):
        (result,) = made.results
        ratios = [lr / result.lrs[0] for lr in result.lrs]
        steps = len(ratios)
        assert ratios == pytest.approx([(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)], abs=1e-12)
    assert not any(one.heard for one in kept)


SCRIPT = """
from greedylr.lab import compare
compared = compare("quadratic-100", ("greedylr", "constant"), seeds=2, jobs=1)
print("runs:", len(compared.results))
"""


def test_a_script_needs_no_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    assert made.stdout == "runs: 4\n"
    assert made.stderr == ""


def test_compare_is_there_only_when_it_is_asked_for():
    import greedylr.lab

    assert greedylr.lab.compare is compare
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = greedylr.lab.nothing_of_that_name
