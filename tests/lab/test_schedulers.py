"""Every entry of the registry does what its note says."""

import math
from itertools import pairwise

import pytest
import torch

from greedylr.lab.catalogue.optimizers import OPTIMIZERS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.runs import Run

STEPS = 100
RAMP = [step / 10 for step in range(1, 11)]


def lrs_of(name, steps=STEPS, optimizer=torch.optim.AdamW, observe=lambda step: 1.0):
    """The learning rate of each step, as a share of the initial one."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    optimizer = optimizer([parameter], lr=0.5)
    scheduler = SCHEDULERS[name].build(optimizer, steps)
    lrs = []
    for step in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        scheduler.step(*[observe(step)] if SCHEDULERS[name].kind == "feedback" else [])
    return lrs


def rest(shape):
    """A warmup, and a shape over the share of the rest that is done."""
    return pytest.approx(RAMP + [shape(step / 90) for step in range(90)])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("constant-warmup", lambda done: 1.0),
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),
        ("polynomial", lambda done: (1 - done) ** 2),
        ("exponential", lambda done: 0.01**done),
        ("inverse-sqrt", lambda done: 1 / math.sqrt(1 + 9 * done)),
        ("wsd", lambda done: min(1.0, (1 - done) * 90 / 20)),
    ],
)
def test_after_the_warmup_each_schedule_has_its_shape(name, shape):
    assert lrs_of(name) == rest(shape)


def test_restarts_come_twice_as_late_each_time():
    lrs = lrs_of("cosine-restarts")
    assert lrs[:10] == pytest.approx(RAMP)
    assert [step for step in range(10, STEPS) if lrs[step] == pytest.approx(1.0)] == [10, 10 + 13, 10 + 13 + 26]
    assert lrs[-1] < 0.01


def test_one_cycle_peaks_at_the_initial_learning_rate():
    lrs = lrs_of("one-cycle")
    assert max(lrs) == pytest.approx(1.0)
    assert lrs.index(max(lrs)) == 29
    assert lrs[-1] < 1e-5


def test_greedylr_is_told_the_number_of_steps_and_open_ended_is_not():
    told, open_ended = (lrs_of(name, observe=lambda step: 1.0 - step / 1e4) for name in ("greedylr", "greedylr-open"))
    assert (told[0], open_ended[0]) == (math.sqrt(1 / 10), math.sqrt(1 / 20))  # the warmup
    assert max(told) == told[10] == 1.0
    assert told[-1] == pytest.approx(1 / 90)
    assert open_ended[-1] == 1.0


def test_greedylr_climbs_where_it_is_asked_to():
    lrs = lrs_of("greedylr-climb", observe=lambda step: 1.0 - step / 1e4)
    assert lrs[0] == 0.05
    assert lrs[20] == pytest.approx(0.5)  # tenfold in a fifth of the steps
    assert max(lrs) > 1
    assert lrs[-1] < max(lrs) / 20


@pytest.mark.parametrize(("name", "heard"), [("greedylr", True), ("greedylr-open", True), ("greedylr-loss", False)])
def test_which_greedylr_hears_the_gradient(name, heard):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert SCHEDULERS[name].build(optimizer, STEPS).config.hears_slope == heard


def test_plateau_waits_for_a_tenth_of_the_steps():
    lrs = lrs_of("plateau", observe=lambda step: 1.0)
    assert lrs[:12] == [1.0] * 12
    assert lrs[12] == pytest.approx(0.1)


@pytest.mark.parametrize("name", [name for name, entry in SCHEDULERS.items() if entry.kind == "feedback"])
def test_feedback_raises_and_cuts_the_learning_rate(name):
    name = f"{name}:warmup_steps=0,window=10" if name == "greedylr-open" else name  # else there is little to see yet
    worse = lrs_of(name, observe=lambda step: 1.0 + step)
    assert any(after < before for before, after in pairwise(worse))
    better = lrs_of(name, observe=lambda step: 1.0 - step / STEPS)
    if name in ("plateau", "greedylr", "greedylr-validated", "greedylr-loss"):
        assert max(better) == 1  # By the losses alone these are never raised.
    else:
        assert max(better) > 4 * better[0] or max(better) > 1


@pytest.mark.parametrize(("name", "smooth"), [("transformers-greedylr-smooth", True), ("transformers-greedylr", False)])
def test_the_published_rule_has_bounds_that_follow_the_learning_rate(name, smooth):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-5)
    scheduler = SCHEDULERS[name].build(optimizer, STEPS)
    assert scheduler.min_lrs == pytest.approx([1e-8])
    assert scheduler.max_lrs == pytest.approx([1e-2])
    assert scheduler.smooth is smooth


def test_this_package_agrees_with_the_published_rule():
    def loss(step):
        return math.cos(step / 7) / (1 + step / 30)

    assert lrs_of("paper", observe=loss) == lrs_of("transformers-greedylr-smooth", observe=loss)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_every_scheduler_trains_with_every_optimizer_that_it_suits(name, optimizer, capsys):
    if not SCHEDULERS[name].suits(optimizer):
        assert SCHEDULERS[name].kind == "optimizer"
        return
    result = train(Run("digits", 1.0, name, 0, 12, optimizer))
    assert result.failure is None
    assert len(set(result.losses)) == 12
    assert capsys.readouterr() == ("", "")


def test_schedule_free_is_judged_by_its_averaged_weights(monkeypatch):
    judged = train(Run("digits", 1.0, "schedule-free", 0, 40)).validation_losses
    monkeypatch.setattr("schedulefree.AdamWScheduleFree.eval", lambda self: None)
    monkeypatch.setattr("schedulefree.AdamWScheduleFree.train", lambda self: None)
    with pytest.raises(Exception, match="train mode"):
        train(Run("digits", 1.0, "schedule-free", 0, 40))
    assert judged[-1] < judged[0]


def test_prodigy_does_not_depend_on_the_multiplier():
    first, second = (train(Run("digits", multiplier, "prodigy", 0, 10)) for multiplier in (0.1, 10.0))
    assert first.losses == second.losses


def test_salsa_searches_on_the_batch_of_the_step(capsys):
    found, constant = (train(Run("mlp", 0.01, name, 0, 60, "sgd")) for name in ("salsa", "constant"))
    assert found.losses[0] == constant.losses[0]  # The same weights and examples,
    assert found.lrs[0] == pytest.approx(10 * constant.lrs[0])  # and the same step, of a momentum that is an average.
    assert found.lrs[-1] > 10 * found.lrs[0]
    assert found.final_loss < 0.9 * constant.final_loss
    assert train(Run("mlp", 0.01, "salsa", 0, 60, "sgd")).losses == found.losses
    assert capsys.readouterr() == ("", "")


def test_entries_say_how_they_are_set_up():
    assert all(entry.note and entry.title for entry in SCHEDULERS.values())
    assert len({entry.title for entry in SCHEDULERS.values()}) == len(SCHEDULERS)
    assert all(name == entry.name for name, entry in SCHEDULERS.items())
    assert all((entry.kind == "optimizer") == bool(entry.stands_in) for entry in SCHEDULERS.values())


def test_settings_may_follow_a_name():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    entry = SCHEDULERS["paper:factor=0.5,smooth=False"]
    made = entry.build(optimizer, 100, "max")
    assert (made.config.factor, made.config.smooth, made.config.mode) == (0.5, False, "max")
    assert entry.name == "paper:factor=0.5,smooth=False"
    assert entry.title == "GreedyLR.paper, factor=0.5, smooth=False"
    assert SCHEDULERS["transformers-greedylr:patience=3"].build(optimizer, 100).patience == 3
    assert SCHEDULERS["greedylr:total_steps=None,window=7"].build(optimizer, 100).config.total_steps is None
    assert "paper:factor=0.5" in SCHEDULERS
    assert "paper:factor=0.5" not in list(SCHEDULERS)


@pytest.mark.parametrize(
    "name",
    [
        *("cosine:factor=0.5", "other:factor=0.5", "paper:", "paper:factor", "paper:factor=", "paper:=0.5"),
        *("paper:factor=0.50", "paper:smooth=False,factor=0.5", "paper:factor=0.5,factor=0.6", "paper:factor=0.5,"),
    ],
)
def test_what_is_no_name_with_settings_is_unknown(name):
    assert name not in SCHEDULERS
    with pytest.raises(KeyError):
        SCHEDULERS[name]


def test_a_setting_that_the_scheduler_does_not_know_is_said_when_it_is_made():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(TypeError, match=r"no argument 'fctor' \(did you mean factor\?\)"):
        SCHEDULERS["paper:fctor=0.5"].build(optimizer, 100)


def test_the_forgetful_variant_is_out_of_the_trap_after_500_observations():
    def loss(step):  # A lucky start, then a loss that falls, but never as low.
        return 0.0 if step < 20 else 2.0 - step / 1000

    forgetful, smooth = (
        lrs_of(f"transformers-greedylr{variant}", steps=600, observe=loss) for variant in ("-forgetful", "-smooth")
    )
    assert forgetful[:500] == smooth[:500]
    assert smooth[499] < 0.5
    assert smooth[599] <= smooth[499], "in the trap for good"
    assert forgetful[505] == forgetful[500], "it leaves the learning rate as it is"
    assert forgetful[599] > forgetful[500]
