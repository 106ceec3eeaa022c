"""What is marked, or found, as a disruption is nothing that a finding compares with."""

import numpy as np
import pytest
import torch

from greedylr import Action, GreedyLR
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.findings import Kind
from greedylr.pulse.diagnosis.health import examine
from greedylr.pulse.diagnosis.reading import read
from greedylr.pulse.report.readiness import facts


def noise(n, seed=1):
    return np.random.default_rng(seed).standard_normal(n)


def around(level, steps=2000, width=0.02):
    return level * (1 + width * noise(steps))


def made(record, losses, marks=(), validations=(), actions=None, name="run"):
    """Losses as they are, marks before steps, validations by step, and actions with what they multiply by."""

    def play(script, recorder):
        for step, loss in enumerate(losses, 1):
            if step in marks:
                recorder.mark("disruption")
            script.step(loss, *(actions or {}).get(step, ()))
            if step in dict(validations):
                recorder.log(val_loss=dict(validations)[step])

    return record(play, name=name)


def kinds(trace):
    return {finding.kind for finding in examine(trace)}


def overfitted(steps=2000, best=900):
    """Validations that are best at a step, and rise from then on."""
    return {step: 1 + (0.5 if step < best else 0.001 * (step - best)) for step in range(50, steps + 1, 50)}


@pytest.mark.parametrize("end", [0.018, 0.054])
def test_both_losses_got_worse_that_is_no_overfitting(record, end):
    losses = around(0.018)
    losses[920:950] = 1.3
    losses[950:] = around(0.054)[950:] + 0.4 * np.exp(-np.arange(1050) / 40)
    if end == 0.018:
        losses[1300:] = around(0.018)[1300:]
    assert Kind.OVERFITTING not in kinds(made(record, losses, {921}, overfitted()))


def test_nor_is_it_after_a_disruption_that_nobody_marked(record):
    losses = around(0.5)
    losses[902:925] = 8.0
    losses[925:1100] += 3 * np.exp(-np.arange(175) / 60)
    found = kinds(made(record, losses, (), overfitted()))
    assert Kind.OVERFITTING not in found
    assert Kind.DISRUPTION in found


def test_a_run_that_overfits_does_so_with_a_disruption_too(record):
    losses = 1 + np.exp(-np.arange(2000) / 700) + 0.02 * noise(2000)
    losses[1200:1220] = 8.0
    assert Kind.OVERFITTING in kinds(made(record, losses, {1201}, overfitted()))
    # One that never came all the way back is over where a validation after it is the best.
    losses = around(0.2)
    losses[300:] = 0.4 + np.exp(-np.arange(1700) / 700) + 0.02 * noise(1700)
    assert Kind.OVERFITTING in kinds(made(record, losses, {301}, overfitted(), name="later"))


def test_a_best_within_a_disruption_is_no_best(record):
    losses = around(1.0)
    losses[500:600] = 0.05 + 0.001 * noise(100)  # labels that are all the same
    misled = {Kind.DIVERGENCE, Kind.LEVEL_SHIFT, Kind.LOSS_SCALE, Kind.PLATEAU}
    assert not kinds(made(record, losses, {501})) & misled
    assert kinds(made(record, losses, name="unmarked")) & misled


def test_an_end_within_a_disruption_is_no_end(record):
    losses = 0.2 + np.exp(-np.arange(1500) / 300) + 0.01 * noise(1500)
    losses[1440:] = 3.0 + 0.1 * noise(60)
    assert Kind.DIVERGENCE not in kinds(made(record, losses, {1441}))
    assert Kind.DIVERGENCE in kinds(made(record, losses, name="unmarked"))


def test_what_never_comes_back_after_a_mark_is_not_the_learning_rates_fault(record):
    losses = 0.2 + np.exp(-np.arange(2000) / 300) + 0.01 * noise(2000)
    losses[1000:] = 1.5 + 0.05 * noise(1000)
    found = kinds(made(record, losses, {1001}))
    assert Kind.NO_RECOVERY in found
    assert Kind.DIVERGENCE not in found


@pytest.mark.parametrize(("value", "width"), [(5.0, 0.1), (1.25, 0.1)])
def test_a_long_disruption_that_was_marked_is_no_other_level_or_scale(record, value, width):
    losses = around(1.0, width=0.1)
    losses[700:1300] = around(value, width=width)[700:1300]
    jumps = {Kind.LEVEL_SHIFT, Kind.LOSS_SCALE, Kind.NO_RECOVERY}
    assert not kinds(made(record, losses, {701})) & jumps
    assert kinds(made(record, losses, name="unmarked")) & jumps


def test_moves_within_a_disruption_are_not_the_runs(record):
    losses = around(1.0)
    losses[500:620] = 4.0
    up, down = (Action.RAISED, 200.0), (Action.CUT, 1 / 200)
    marked = {501}
    cases = {
        Kind.SINKING: ({510: up, 600: down}, dict.fromkeys((510, 530, 550), (Action.AT_MIN,))),
        Kind.AT_BOUND: (dict.fromkeys((510, 530, 550), (Action.AT_MAX,)),),
        Kind.OSCILLATING: ({step: (up if step % 20 else down) for step in range(510, 620, 10)},),
    }
    for kind, several in cases.items():
        for number, actions in enumerate(several):
            assert kind not in kinds(made(record, losses, marked, actions=actions, name=f"{kind.name}{number}"))
            calm = made(record, around(1.0), actions=actions, name=f"{kind.name}{number} calm")
            assert kind in kinds(calm)


def test_gain_that_was_the_end_of_a_disruption_is_no_gain(record):
    losses = around(1.0)
    losses[100:160] -= 0.4
    assert Kind.PLATEAU not in kinds(made(record, losses, {101}))
    assert Kind.PLATEAU in kinds(made(record, losses, name="unmarked"))


def test_a_run_that_ends_where_it_began_but_for_a_disruption_has_not_failed(record):
    losses = 0.2 + np.exp(-np.arange(1500) / 300) + 0.01 * noise(1500)
    losses[1460:] = 3.0
    (reading,) = read([made(record, losses, {1461}).path])
    assert not facts(reading).failed
    (reading,) = read([made(record, losses, name="unmarked").path])
    assert facts(reading).failed


@pytest.mark.parametrize(
    ("seed", "lr", "examples", "decay"), [(1, 3e-3, 1400, 0.01), (1, 1e-2, 1400, 0.01), (0, 3e-3, 700, 0.5)]
)
def test_random_labels_are_not_overfitting(tmp_path, planted, seed, lr, examples, decay):
    """A small network that reads digits, and thirty steps of random labels, marked."""
    torch.manual_seed(seed)
    inputs, labels = planted.digits()
    val_x, val_y = inputs[1400:], labels[1400:]
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    scheduler = GreedyLR(optimizer, warmup_steps=0, max_scale=1.0)
    batches = torch.Generator().manual_seed(seed)
    loss_of = torch.nn.functional.cross_entropy
    with Recorder(tmp_path / "run", scheduler) as recorder:
        for step in range(1, 901):
            rows = torch.randint(0, examples, (32,), generator=batches)
            y = labels[rows]
            if step == 600:
                recorder.mark("disruption")
            if 600 <= step < 630:
                y = torch.randint(0, 10, (32,), generator=batches)
            loss = loss_of(model(inputs[rows]), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step(loss)
            if step % 25 == 0:
                with torch.no_grad():
                    recorder.log(val_loss=loss_of(model(val_x), val_y))
    assert Kind.OVERFITTING not in kinds(Trace.load(tmp_path / "run"))
