"""Composition: known shares, known sources, a rule that it misleads, and the option that puts that right."""

import json

import numpy as np
import pytest
import torch

from greedylr import Action, GreedyLR
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.composition import explain
from greedylr.torch.levels import Levels


def mixed(of_domain, of_length=0.0, noise=1.0, steps=4000, seed=0, block=1):
    """Losses of which each batch's domain and length make a known part."""

    def play(script, recorder):
        r = np.random.default_rng(seed)
        domains = np.repeat(r.integers(0, 3, steps // block + 1), block)[:steps]
        lengths = r.integers(1, 513, steps)
        losses = 5 - np.arange(steps) / steps + of_domain * (domains - 1) + of_length * lengths / 512
        losses += noise * r.standard_normal(steps)
        for loss, domain, length in zip(losses.tolist(), domains.tolist(), lengths.tolist()):
            script.step(loss, batch={"domain": "abc"[domain], "length": length, "shard": 7})

    return play


@pytest.mark.parametrize("of_domain", [0.5, 1.0, 2.0])
def test_the_share_explained_is_the_share_that_was_put_in(record, of_domain):
    found = explain(record(mixed(of_domain)))
    variance = of_domain**2 * 2 / 3
    assert found.explained == pytest.approx(variance / (variance + 1), abs=0.05)
    assert found.p_value <= 0.01
    assert found.much == (found.explained >= 0.1)
    assert found.by_column["domain"] > 0.9 * found.explained
    assert abs(found.by_column["length"]) < 0.02
    assert "level_by='domain'" in found.sentence


def test_numbers_count_as_well(record):
    found = explain(record(mixed(0.0, of_length=4.0)))
    assert found.by_column["length"] == pytest.approx((16 / 12) / (16 / 12 + 1), abs=0.05)


def test_nothing_is_found_where_nothing_is(record):
    results = [explain(record(mixed(0.0, seed=seed, block=10), name=str(seed))) for seed in range(10)]
    assert all(found.explained < 0.01 for found in results)
    assert sum(found.p_value < 0.05 for found in results) <= 3
    assert "the loss means what it says" in results[0].sentence


def test_without_columns_or_with_few_steps_there_is_nothing_to_say(record):
    assert explain(record(lambda script, recorder: [script.step(1.0) for _ in range(300)])) is None
    assert explain(record(mixed(1.0, steps=100), name="short")) is None


def test_spikes_are_traced_to_their_domain_and_band(record):
    def play(script, recorder):
        r = np.random.default_rng(0)
        for _ in range(3000):
            domain, length = "abcd"[int(r.integers(4))], int(r.integers(1, 1001))
            spiked = domain == "b" and length > 700 and r.random() < 0.2
            batch = {"domain": domain, "length": length}
            script.step(9.0 if spiked else 1.0, Action.SPIKE if spiked else Action.GATHERING, batch=batch)

    found = explain(record(play))
    assert {source.column for source in found.sources} == {"domain", "length"}
    assert next(source for source in found.sources if source.column == "domain").value == "b"
    assert next(source for source in found.sources if source.column == "length").value.endswith("1000")


def test_moves_that_composition_made_are_told_apart(record):
    def play(rests_on_domain):
        def run(script, recorder):
            r = np.random.default_rng(0)
            for block in range(40):
                domain = "ab"[block % 2]
                for step in range(20):
                    loss = 2.0 + (domain == "b") + 0.1 * r.standard_normal()
                    at_end = step == 19 and block > 1
                    action = (Action.CUT if domain == "b" else Action.RAISED) if at_end else Action.GATHERING
                    script.step(
                        loss,
                        action,
                        0.9 if at_end else 1.0,
                        batch={"domain": domain if rests_on_domain else "ab"[step % 2]},
                    )

        return run

    found = explain(record(play(True)))
    assert found.moves == 38
    assert found.moves_explained == 38
    found = explain(record(play(False), name="other"))
    assert found.moves_explained == 0


# The option of the scheduler.


def two_domains(level_by, path, seed=0, steps=4000):
    """Regression on two domains that come in turns, 90 steps each: a hard one, with noisy labels, and an easy one."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = GreedyLR(optimizer, level_by=level_by)
    truth = torch.randn(8, generator=generator)
    with Recorder(path, scheduler):
        for step in range(steps):
            hard = step // 90 % 2 == 0
            x = torch.randn(32, 8, generator=generator)
            y = x @ truth + (2.0 if hard else 0.2) * torch.randn(32, generator=generator)
            loss = (model(x)[:, 0] - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step(loss, batch={"domain": "hard" if hard else "easy"})
    return Trace.load(path)


def test_the_plain_rule_is_misled_and_the_corrected_one_is_not(tmp_path):
    plain, corrected = two_domains(None, tmp_path / "plain"), two_domains("domain", tmp_path / "corrected")
    misled = explain(plain)
    assert misled.much
    assert misled.moves_explained > 0.5 * misled.moves > 5
    # Both were trained on the same batches; what the rule then did:
    assert len(corrected.moves) < 0.5 * len(plain.moves)
    assert explain(corrected).moves_explained < 0.3 * misled.moves_explained
    # Observers are told the loss that was given.
    assert corrected.losses[:5] == pytest.approx(plain.losses[:5])


def test_improvement_comes_through():
    levels = Levels("domain")
    r = np.random.default_rng(0)
    out = []
    for step in range(4000):
        domain = "ab"[step // 100 % 2]
        loss = (5.0 if domain == "a" else 1.0) * (2 - step / 4000) + 0.01 * r.standard_normal()
        out.append(levels.correct(loss, {"domain": domain}))
    assert np.mean(out[-400:]) < np.mean(out[:400]) - 1.5
    blocks = np.array(out).reshape(40, 100).mean(axis=1)
    assert np.max(np.abs(np.diff(blocks))) < 0.3  # where the loss itself jumps by 4 and more


def test_what_is_not_finite_is_passed_on_and_forgotten():
    levels = Levels("domain")
    levels.correct(2.0, {"domain": "a"})
    before = json.dumps(levels.state_dict())
    assert levels.correct(float("inf"), {"domain": "a"}) == float("inf")
    assert json.dumps(levels.state_dict()) == before


def scheduler(**settings):
    return GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), **settings)


def stepped(one, losses, first=0):
    decisions = []
    unsubscribe = one.subscribe(decisions.append)
    for number, loss in enumerate(losses, start=first):
        one.step(float(loss), batch={"domain": "ab"[number // 7 % 2]})
    unsubscribe()
    return decisions


def test_resuming_equals_not_stopping():
    losses = np.random.default_rng(0).standard_normal(400) + np.arange(400) // 7 % 2
    through = stepped(scheduler(level_by="domain"), losses)
    first = scheduler(level_by="domain")
    before = stepped(first, losses[:150])
    saved = json.loads(json.dumps(first.state_dict()))
    second = scheduler()
    second.load_state_dict(saved)
    assert before + stepped(second, losses[150:], first=150) == through


def test_with_one_domain_it_changes_nothing_to_speak_of():
    levels = Levels("domain")
    losses = 3 + np.random.default_rng(0).standard_normal(1000)
    out = [levels.correct(loss, {"domain": "only"}) for loss in losses.tolist()]
    assert np.corrcoef(out, losses)[0, 1] > 0.98


@pytest.mark.parametrize("batch", [None, {}, {"other": 1}])
def test_a_batch_without_its_domain_is_an_error(batch):
    with pytest.raises(ValueError, match="level_by='domain' needs step"):
        scheduler(level_by="domain").step(1.0, batch=batch)


@pytest.mark.parametrize("name", ["", 3])
def test_a_column_must_have_a_name(name):
    with pytest.raises(ValueError, match="level_by must be the name"):
        scheduler(level_by=name)


def test_the_mean_over_ranks_belongs_to_no_domain(monkeypatch):
    from greedylr.torch import distributed

    monkeypatch.setattr(distributed, "is_active", lambda: True)
    with pytest.raises(ValueError, match="level_by='domain' is for one process"):
        scheduler(level_by="domain").step(1.0, batch={"domain": "web"})
