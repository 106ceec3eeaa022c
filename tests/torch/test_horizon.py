"""The length of a run: moved while it is under way, over, too short, and said in the words of other schedulers."""

import copy
import json
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ChainedScheduler, LinearLR, SequentialLR

from greedylr import Action, GreedyLR
from greedylr.control import rule
from greedylr.control.default.config import DefaultConfig


def sgd(lr=0.1):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def lr_of(scheduler):
    return scheduler.optimizer.param_groups[0]["lr"]


def losses(count, start=0):
    return [2.0 + 0.1 * ((7 * step) % 5) - step / 1000 for step in range(start, start + count)]


def feed(scheduler, values):
    for loss in values:
        scheduler.step(loss)
    return lr_of(scheduler)


# The annealing alone moves the learning rate.
SETTINGS = {"warmup_steps": 0, "anneal": 0.4, "config": DefaultConfig(window=5, significance=1e9)}


def test_another_length_counts_at_once_and_is_told_once():
    scheduler = GreedyLR(sgd(), total_steps=40, **SETTINGS)
    decisions = []
    feed(scheduler, losses(40))
    assert lr_of(scheduler) == pytest.approx(1e-6)
    scheduler.subscribe(decisions.append)
    scheduler.set_total_steps(120)
    assert lr_of(scheduler) == 0.1
    feed(scheduler, losses(80, 40))
    assert [decision.action for decision in decisions].count(Action.HORIZON) == 1
    assert decisions[0].action is Action.HORIZON
    assert decisions[0].evidence == {"total_steps": 120.0, "previous_total_steps": 40.0}
    # As that of a run which was to be of that length from the start.
    straight = GreedyLR(sgd(), total_steps=120, **SETTINGS)
    feed(straight, losses(120))
    assert lr_of(scheduler) == lr_of(straight) == pytest.approx(1e-6)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize(("first", "then"), [(40, 120), (120, 60), (None, 80), (40, None)])
def test_after_a_move_the_learning_rates_are_those_of_the_new_length(first, then, watched):
    moved, straight = GreedyLR(sgd(), total_steps=first, **SETTINGS), GreedyLR(sgd(), total_steps=then, **SETTINGS)
    if watched:
        moved.subscribe(lambda decision: None)
    feed(moved, losses(35))
    feed(straight, losses(35))
    moved.set_total_steps(then)
    for loss in losses(25, 35):
        assert feed(moved, [loss]) == feed(straight, [loss])


def test_what_annealing_made_of_the_losses_is_no_measure_for_what_follows():
    """Down at the floor the loss is calm; with the learning rate back it is noisier: that is no explosion."""
    scheduler = GreedyLR(sgd(), total_steps=60, warmup_steps=0, config=DefaultConfig(window=10))
    seen = []
    scheduler.subscribe(lambda decision: seen.append(decision.action))
    feed(scheduler, [1.0 + 0.001 * (step % 3) for step in range(60)])
    scheduler.set_total_steps(200)
    feed(scheduler, [1.2 + 0.1 * (step % 3) for step in range(40)])
    assert not {Action.EXPLOSION, Action.SPIKE, Action.CUT} & set(seen)


@given(st.integers(1, 80), st.integers(1, 60), st.integers(1, 120), st.booleans())
def test_a_moved_horizon_survives_a_checkpoint_anywhere(at, first, then, later):
    config = DefaultConfig(total_steps=first)
    state = rule.start(config, [0.1])
    for loss in losses(at):
        rule.observe(config, state, loss)
    config = rule.set_horizon(config, state, then)
    if later:
        rule.observe(config, state, 2.0)
    optimizer = sgd()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        straight = GreedyLR(sgd(), warmup_steps=0)
        straight._config, straight._state = config, state
        resumed = GreedyLR(optimizer)
        resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
        for loss in losses(100, at):
            ours, theirs = rule.observe(config, state, loss), None
            resumed.step(loss)
            theirs = lr_of(resumed)
            assert theirs == ours.lr_after[0]
            assert 0 < theirs <= 100.0


@pytest.mark.parametrize("longer", [120, 30])
def test_a_resumed_run_has_the_length_that_its_scheduler_was_given(longer):
    saved = GreedyLR(sgd(), total_steps=40, **SETTINGS)
    feed(saved, losses(20))
    resumed = GreedyLR(sgd(), total_steps=longer, **SETTINGS)
    with pytest.warns(
        UserWarning, match=f"total_steps={longer}, as given to this scheduler, counts in place of the saved"
    ):
        resumed.load_state_dict(saved.state_dict())
    decisions = []
    resumed.subscribe(decisions.append)
    straight = GreedyLR(sgd(), total_steps=longer, **SETTINGS)
    feed(straight, losses(20))
    for loss in losses(10, 20):
        assert feed(resumed, [loss]) == feed(straight, [loss])
    assert decisions[0].action is Action.HORIZON
    assert resumed.config.total_steps == longer


def test_a_resumed_run_without_a_length_of_its_own_keeps_the_saved_one_and_an_equal_one_is_no_news():
    saved = GreedyLR(sgd(), total_steps=40)
    feed(saved, losses(20))
    for settings in ({}, {"total_steps": 40}):
        resumed = GreedyLR(sgd(), **settings)
        resumed.load_state_dict(saved.state_dict())
        assert resumed.config == saved.config
        assert feed(resumed, losses(20, 20)) == feed(copy.deepcopy(saved), losses(20, 20))
        assert resumed.state_dict()["state"]["moved_from"] == -1.0


def test_settings_that_a_load_replaces_are_said():
    saved = GreedyLR(sgd(), max_scale=1.0, level_by="domain").state_dict()
    resumed = GreedyLR(sgd())
    with pytest.warns(UserWarning, match=r"max_scale=1\.0 in place of 1000\.0, level_by='domain' in place of None"):
        resumed.load_state_dict(saved)


def test_a_run_that_is_over_is_said_once():
    scheduler = GreedyLR(sgd(), total_steps=30)
    seen = []
    scheduler.subscribe(lambda decision: seen.append(decision.action))
    feed(scheduler, losses(30))
    with pytest.warns(UserWarning, match="total_steps=30 are over, and this is step 31.*not epochs") as told:
        feed(scheduler, losses(10, 30))
    assert len(told) == 1
    assert seen[29:] == [Action.ANNEALING] + [Action.OVER] * 10
    scheduler.set_total_steps(35)
    with pytest.warns(UserWarning, match="total_steps=35 are over"):
        feed(scheduler, losses(2, 40))


@pytest.mark.parametrize("settings", [{"total_steps": 5}, {"total_steps": 30, "warmup_steps": 0}])
def test_a_length_that_may_be_one_in_epochs_is_said(settings):
    with pytest.warns(UserWarning, match="a very short run, .* not epochs"):
        GreedyLR(sgd(), **settings)


@pytest.mark.parametrize("settings", [{"total_steps": 40}, {"total_steps": 5, "anneal": 1.0}, {}])
def test_another_length_is_not(settings):
    GreedyLR(sgd(), **settings)


def test_the_shortest_length_that_is_advised_is_enough():
    climb = {"decade_steps": 10, "anneal": 0.4}
    with pytest.warns(UserWarning, match="From 15 steps on"):
        GreedyLR(sgd(), total_steps=5, **climb)
    GreedyLR(sgd(), total_steps=15, **climb)
    with pytest.warns(UserWarning, match="leaves no room"):
        GreedyLR(sgd(), total_steps=14, **climb)


def test_the_published_algorithm_has_no_length():
    with pytest.raises(TypeError, match="does not know the length of a run"):
        GreedyLR.paper(sgd()).set_total_steps(10)
    for bad, error in ((0, ValueError), (1.5, TypeError)):
        scheduler = GreedyLR(sgd())
        with pytest.raises(error, match="total_steps must be an integer of at least 1"):
            scheduler.set_total_steps(bad)
        assert scheduler.config.total_steps is None


@pytest.mark.parametrize(
    ("build", "name", "message"),
    [
        (
            GreedyLR,
            "patience",
            r"patience' \(it belongs to the published algorithm: GreedyLR.paper\(optimizer, patience=",
        ),
        (GreedyLR, "min_lr", "write min_scale=..., a multiple of the initial one, or GreedyLR.paper"),
        (GreedyLR, "max_lr", "write max_scale="),
        (GreedyLR, "T_max", "write total_steps="),
        (GreedyLR, "num_warmup_steps", "write warmup_steps="),
        (GreedyLR, "last_epoch", "load its state_dict"),
        (GreedyLR, "totalsteps", "did you mean total_steps"),
        (GreedyLR, "nothing_like_it", "it takes total_steps, mode"),
        (GreedyLR.paper, "minimum_lr", "did you mean min_lr"),
        (GreedyLR.paper, "total_steps", "GreedyLR.paper has no argument 'total_steps'"),
        (GreedyLR.core, "patience", "GreedyLR.core has no argument 'patience'"),
    ],
)
def test_arguments_of_other_schedulers_are_answered_with_ours(build, name, message):
    with pytest.raises(TypeError, match=message):
        build(sgd(), **{name: 1})


def test_inside_other_schedulers():
    scheduler = GreedyLR(sgd())
    with pytest.raises(AttributeError, match=r"its last_epoch cannot be set\. SequentialLR and ChainedScheduler"):
        SequentialLR(scheduler.optimizer, [LinearLR(scheduler.optimizer), scheduler], milestones=[3])
    with pytest.raises(AttributeError, match="load its state_dict"):
        scheduler.last_epoch = 9
    chained = ChainedScheduler([scheduler], optimizer=scheduler.optimizer)
    with pytest.raises(TypeError, match="needs the loss"):
        chained.step()


class Adafactor(torch.optim.SGD):
    """As transformers' with relative_step=True."""

    def __init__(self):
        super().__init__([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        self.param_groups[0]["lr"] = None


def test_an_optimizer_that_sets_its_own_learning_rate_is_refused():
    for build in (GreedyLR, GreedyLR.paper):
        with pytest.raises(ValueError, match=r"is None, so the optimizer sets its own \(Adafactor"):
            build(Adafactor())


def test_a_copy_made_right_after_a_group_joined_gives_it_its_learning_rate():
    for build in (GreedyLR, GreedyLR.paper):
        scheduler = build(sgd())
        scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.03})
        twin = copy.deepcopy(scheduler)
        scheduler.step(2.0)
        twin.step(2.0)
        assert twin.get_last_lr() == scheduler.get_last_lr()


def test_a_group_that_is_gone_is_an_error_everywhere():
    for build in (GreedyLR, GreedyLR.paper):
        scheduler = build(sgd())
        scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.03})
        scheduler.step(2.0)
        del scheduler.optimizer.param_groups[1]
        for do in (lambda s=scheduler: s.step(1.0), scheduler.state_dict, lambda s=scheduler: copy.deepcopy(s)):
            with pytest.raises(ValueError, match="lost parameter groups: 2 before, 1 now"):
                do()


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (torch.zeros((), device="meta"), ValueError),
        (torch.zeros(2), ValueError),
        (torch.tensor(1j), ValueError),
        ("2.0", TypeError),
        (None, TypeError),
        ([1.0], TypeError),
    ],
)
def test_a_loss_that_is_refused_leaves_everything_as_it_was(bad, error):
    scheduler, reference = GreedyLR(sgd(), decade_steps=10), GreedyLR(sgd(), decade_steps=10)
    feed(scheduler, losses(5))
    feed(reference, losses(5))
    before = scheduler.state_dict()
    with pytest.raises(error):
        scheduler.step(bad)
    assert scheduler.state_dict() == before
    assert feed(scheduler, losses(20, 5)) == feed(reference, losses(20, 5))


def test_complex_numbers_of_numpy_are_refused():
    np = pytest.importorskip("numpy")
    for bad in (np.complex128(1 + 1j), np.array(1 + 1j)):
        with pytest.raises(TypeError, match="loss must be a float or a tensor"):
            GreedyLR(sgd()).step(bad)


class Spread(torch.Tensor):
    """As a DTensor, whose local value is not the loss."""

    def full_tensor(self):
        return torch.tensor(3.0)


def test_a_loss_that_is_spread_over_a_mesh_is_gathered():
    scheduler, seen = GreedyLR(sgd()), []
    scheduler.subscribe(lambda decision: seen.append(decision.loss))
    scheduler.step(torch.tensor(1.0).as_subclass(Spread))
    assert seen == [3.0]
