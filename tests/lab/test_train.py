"""Runs are paired, repeatable, and never see what they are judged by."""

import math
from dataclasses import replace

import pytest
import torch

from greedylr import Action, Decision
from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.problems import PROBLEMS, Data, DataError, Examples, Problem
from greedylr.lab.catalogue.schedulers import SCHEDULERS, Scheduler
from greedylr.lab.execution.engines import assign, batched
from greedylr.lab.execution.engines.batched import train_batched
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.setup import StoppedError
from greedylr.lab.report.demo import PROBLEMS as DEMO_PROBLEMS
from greedylr.lab.results import is_notable
from greedylr.lab.runs import Run

SCHEDULER_NAMES = sorted(SCHEDULERS)
OPTIMIZER_OF = {name: "adamw" if SCHEDULERS[name].suits("adamw") else "sgd" for name in SCHEDULER_NAMES}
OF_EACH_KIND = {"greedylr", "greedylr-open", "paper", "plateau", "adalrs", "cosine", "constant", "schedule-free"}


class Diary:
    """A tiny problem that writes down what its models start with and are shown."""

    def __init__(self):
        self.weights, self.trained_on, self.judged_by = [], [], []

    def problem(self):
        # Each example is its own number, so that one can tell which were seen.
        train = Examples(torch.arange(40.0).reshape(40, 1), torch.arange(40) % 3)
        validation = Examples(torch.arange(100.0, 110.0).reshape(10, 1), torch.arange(10) % 3)
        return Problem("diary", "Diary", 0.01, 8, 4, lambda: Data(train, validation), self.model, lrs={"sgd": 0.01})

    def model(self):
        model = torch.nn.Linear(1, 3)
        self.weights.append(model.weight.detach().clone())
        self.trained_on.append([])
        self.judged_by.append([])

        def write(module, inputs):
            (self.trained_on if module.training else self.judged_by)[-1].append(inputs[0].flatten().tolist())

        model.register_forward_pre_hook(write)
        return model


@pytest.fixture
def diary(monkeypatch):
    diary = Diary()
    monkeypatch.setitem(PROBLEMS, "diary", diary.problem())
    return diary


def test_runs_that_differ_in_the_scheduler_share_weights_and_batches(diary):
    for name in SCHEDULER_NAMES:
        train(Run("diary", 1.0, name, 7, 8, OPTIMIZER_OF[name]))
    assert all(torch.equal(weights, diary.weights[0]) for weights in diary.weights)
    assert all(batches == diary.trained_on[0] for batches in diary.trained_on)
    assert len(diary.trained_on[0]) == 8
    assert {len(batch) for batch in diary.trained_on[0]} == {4}


def test_runs_that_differ_in_the_learning_rate_share_weights_and_batches(diary):
    for multiplier in (0.1, 10.0):
        train(Run("diary", multiplier, "constant", 7, 8))
    assert torch.equal(*diary.weights)
    assert diary.trained_on[0] == diary.trained_on[1]


def test_other_seeds_give_other_weights_and_batches(diary):
    for seed in (1, 2):
        train(Run("diary", 1.0, "greedylr", seed, 8))
    assert not torch.equal(*diary.weights)
    assert diary.trained_on[0] != diary.trained_on[1]


def test_validation_examples_are_never_trained_on(diary):
    train(Run("diary", 1.0, "greedylr", 0, 8))
    assert {number for batch in diary.trained_on[0] for number in batch} <= set(range(40))
    assert {number for batch in diary.judged_by[0] for number in batch} == set(range(100, 110))


def test_validating_changes_nothing(diary, monkeypatch):
    often = train(Run("diary", 1.0, "greedylr", 0, 40))
    monkeypatch.setattr("greedylr.lab.runs.VALIDATIONS", 1)
    once = train(Run("diary", 1.0, "greedylr", 0, 40))
    assert len(often.validation_losses) > len(once.validation_losses) == 2
    assert (often.losses, often.final_loss) == (once.losses, once.final_loss)


@pytest.mark.parametrize("problem", sorted(name for name in PROBLEMS if PROBLEMS[name].kind != "architecture"))
def test_a_run_is_repeatable_whatever_ran_before(problem):
    try:
        PROBLEMS[problem].load()
    except DataError as error:
        pytest.skip(str(error))
    run = Run(problem, 1.0, "greedylr", 3, 6)
    first = train(run)
    torch.manual_seed(99)
    train(run._replace(seed=4))
    state = torch.get_rng_state()
    assert train(run) == first
    assert torch.equal(torch.get_rng_state(), state), "the global generator was touched"


@pytest.mark.parametrize("problem", sorted(DEMO_PROBLEMS))
@pytest.mark.parametrize(
    "scheduler",
    [pytest.param(name, marks=() if name in OF_EACH_KIND else pytest.mark.slow) for name in SCHEDULER_NAMES],
)
def test_both_problems_of_the_demo_learn_under_every_scheduler(problem, scheduler):
    result = train(Run(problem, 1.0, scheduler, 0, 40, OPTIMIZER_OF[scheduler]))
    assert len(result.losses) == len(result.lrs) == 40
    assert result.validation_steps == [0, 10, 20, 30, 40]
    assert result.final_loss < result.validation_losses[0]
    assert not result.diverged


@pytest.mark.parametrize(("scheduler", "moves"), [("transformers-greedylr", True), ("adalrs", False)])
def test_moves_are_kept_of_who_moves_for_the_loss_alone(scheduler, moves):
    result = train(Run("digits", 1.0, scheduler, 0, 60))
    assert len(set(result.lrs)) > 1
    assert bool(result.decisions) == moves
    assert bool(train_batched([result.run])[0].decisions) == moves


def test_non_finite_losses_are_kept_and_count_as_divergence(monkeypatch):
    monkeypatch.setitem(PROBLEMS, "digits", replace(PROBLEMS["digits"], lr=1e30))
    result = train(Run("digits", 1.0, "greedylr", 0, 10))
    assert not math.isfinite(result.losses[-1])
    assert result.diverged
    assert len(result.losses) == 10
    assert result == train(Run("digits", 1.0, "greedylr", 0, 10)), "NaN equals itself"


class Breaking(torch.optim.lr_scheduler.ConstantLR):
    """Breaks down after the twelfth step."""

    error = ZeroDivisionError("division by zero")

    def step(self, *ignored):
        super().step()
        if self.last_epoch > 12:
            raise self.error


def broken(monkeypatch, error):
    monkeypatch.setattr(Breaking, "error", error)
    entry = Scheduler("breaking", "", "", lambda optimizer, horizon: Breaking(optimizer, 1.0))
    monkeypatch.setitem(SCHEDULERS, "breaking", entry)
    return train(Run("digits", 1.0, "breaking", 0, 30))


def test_a_run_that_breaks_down_is_a_result_with_a_reason(monkeypatch):
    result = broken(monkeypatch, ZeroDivisionError("division by zero"))
    assert result.failure == "ZeroDivisionError: division by zero"
    assert len(result.losses) == len(result.lrs) == 13
    assert result.validation_steps == [0, 10]
    assert math.isnan(result.final_loss)
    assert result.diverged
    assert result.metric is None


@pytest.mark.parametrize("error", [OSError("disk full"), ModuleNotFoundError("no momo"), MemoryError(), TypeError()])
def test_what_says_nothing_about_the_run_is_raised(monkeypatch, error):
    with pytest.raises(type(error)):
        broken(monkeypatch, error)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_every_optimizer_trains_with_the_learning_rate_tuned_for_it(optimizer):
    result = train(Run("digits", 0.5, "constant", 0, 40, optimizer))
    assert result.lrs[0] == 0.5 * PROBLEMS["digits"].lrs[optimizer]
    assert not result.diverged
    assert 0 < result.metric <= 1


def test_the_scheduler_is_told_what_the_problem_observes(monkeypatch):
    told = []

    class Listening(torch.optim.lr_scheduler.ConstantLR):
        def step(self, value=None):
            told.append(value)

    def make(optimizer, horizon):
        assert horizon.mode == "max"
        return Listening(optimizer, 1.0)

    monkeypatch.setitem(SCHEDULERS, "listening", Scheduler("listening", "", "", make, kind="feedback"))
    result = train(Run("bandit", 1.0, "listening", 0, 5))
    rewards = told[1:]  # torch steps a scheduler once while it is made
    assert len(rewards) == 5
    assert all(0 <= reward <= 1 for reward in rewards)
    assert rewards != result.losses


@pytest.mark.parametrize("unknown", [{"problem": "x"}, {"scheduler": "x"}, {"optimizer": "x"}, {"perturbation": "x"}])
def test_unknown_names_are_errors(unknown):
    with pytest.raises(KeyError, match="x"):
        train(Run("digits", 1.0, "constant", 0, 1)._replace(**unknown))


def test_every_raise_cut_and_spike_is_notable_and_nothing_else_is():
    def decision(action, before, after):
        return Decision(5, 1.5, action, (before,), (after,), {"mean": 2.0})

    assert is_notable(decision(Action.RAISED, 0.1, 0.2))
    assert is_notable(decision(Action.SPIKE, 0.1, 0.1))
    cuts = {Action.CUT, Action.BACKED_OFF, Action.EXPLOSION, Action.NON_FINITE, Action.VALIDATION_ROSE}
    for action in cuts:
        assert is_notable(decision(action, 0.2, 0.1))
        assert not is_notable(decision(action, 0.1, 0.1))
    for action in set(Action) - {Action.RAISED, Action.SPIKE} - cuts:
        assert not is_notable(decision(action, 0.1, 0.2))


def test_decisions_stand_at_the_step_and_learning_rate_they_were_decided_at():
    result = train(Run("digits", 0.1, "core", 0, 120))
    assert {one.action for one in result.decisions} >= {Action.RAISED, Action.CUT}
    for one in result.decisions:
        assert result.lrs[one.step - 1] == one.lr_before[0]
        assert result.losses[one.step - 1] == one.loss
        assert one.step == 120 or result.lrs[one.step] == one.lr_after[0]


def test_a_run_stops_when_asked_to(diary):
    answers = iter([False, False, True])
    with pytest.raises(StoppedError):
        train(Run("diary", 1.0, "constant", 0, 8), stopped=lambda: next(answers))
    assert len(diary.trained_on[0]) == 2


def test_cosine_is_a_linear_warmup_and_then_a_cosine_to_zero(diary):
    lrs = train(Run("diary", 1.0, "cosine", 0, 100)).lrs
    assert lrs[:10] == pytest.approx([0.001 * step for step in range(1, 11)])
    assert lrs[10:] == pytest.approx([0.005 * (1 + math.cos(math.pi * step / 90)) for step in range(90)])


def test_a_long_run_is_validated_twenty_times_and_at_its_end(diary):
    result = train(Run("diary", 1.0, "constant", 0, 390))
    assert result.validation_steps == [*range(0, 381, 20), 390]


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
def test_even_the_shortest_run_works(diary, scheduler, steps):
    assert len(train(Run("diary", 1.0, scheduler, 0, steps, OPTIMIZER_OF[scheduler])).losses) == steps


def _with_dropout(**options):
    return replace(
        PROBLEMS["digits"],
        name="dropped",
        model=lambda: torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(64, 32),
            torch.nn.BatchNorm1d(32),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(32, 10),
        ),
        stackable=False,
        **options,
    )


def test_models_may_have_dropout_and_running_statistics(monkeypatch):
    monkeypatch.setitem(PROBLEMS, "dropped", _with_dropout())
    run = Run("dropped", 1.0, "constant", 3, 40)
    assert not batched.supports(run)
    assert [engine.name for engine in assign([run])] == ["pool"]
    before = torch.get_rng_state()
    first = train(run)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)  # Whatever else draws numbers.
    assert train(run) == first
    assert first.final_loss < 0.5 * first.validation_losses[0]
    # Runs that differ in the scheduler drop the same units.
    assert train(run._replace(scheduler="cosine")).losses[0] == first.losses[0]
    other = train(run._replace(seed=4))
    assert other.losses[0] != first.losses[0]
