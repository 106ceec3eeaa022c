"""Composition: known shares, known sources, a rule that it misleads, and the option that puts that right."""

import inspect
import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import signal

from greedylr import Action, DefaultConfig, GreedyLR
from greedylr.control.decision import Decision
from greedylr.control.levels import Levels
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.composition import explain


def mixed(of_domain, of_length=0.0, noise=1.0, steps=4000, seed=0, block=1):
    """Losses of which each batch's domain and length make a known part."""

    def play(script, recorder):
        r = np.random.default_rng(seed)
        domains = np.repeat(r.integers(0, 3, steps // block + 1), block)[:steps]
        lengths = r.integers(1, 513, steps)
        losses = 5 - np.arange(steps) / steps + of_domain * (domains - 1) + of_length * lengths / 512
        losses += noise * r.standard_normal(steps)
        for loss, domain, length in zip(losses.tolist(), domains.tolist(), lengths.tolist()):
            script.step(loss, composition={"domain": "abc"[domain], "length": length, "shard": 7})

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


STEPS = 2000
DECAY = np.exp(-3 * np.arange(STEPS) / STEPS)


def smooth(r, autocorrelation):
    scale = np.sqrt(1 - autocorrelation**2)
    return signal.lfilter([scale], [1, -autocorrelation], r.standard_normal(STEPS + 200))[200:]


def changing_mix(r):
    return np.array(["a", "b"], dtype=object)[
        (r.random(STEPS) < 0.5 * np.linspace(1, 0, STEPS) ** 2 + 0.01).astype(int)
    ]


# Losses, and a column that has nothing to do with them.
NOTHING = {
    "both decay": lambda r: (DECAY * r.standard_normal(STEPS), DECAY * r.standard_normal(STEPS)),
    "the mix changes": lambda r: (DECAY * r.standard_normal(STEPS), changing_mix(r)),
    "smooth": lambda r: (smooth(r, 0.9), smooth(r, 0.9)),
}


@pytest.mark.parametrize("runs", [pytest.param(30, id="few"), pytest.param(120, id="many", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", NOTHING)
def test_chance_is_as_seldom_as_it_is_said_to_be(record, kind, runs):
    """Also where the losses, and what they are made of, move more at first than at last."""
    trace = record(mixed(0.0, steps=STEPS))
    significant = 0
    for seed in range(runs):
        losses, column = NOTHING[kind](np.random.default_rng(seed))
        significant += explain(replace(trace, losses=losses, composition={"x": column})).p_value < 0.05
    assert significant <= (0.1 if runs > 100 else 0.12) * runs


@pytest.mark.parametrize("decays", ["neither", "noise", "both"])
def test_a_part_of_the_noise_is_found_be_it_large_or_small(record, decays):
    r = np.random.default_rng(0)
    domains = r.integers(0, 2, STEPS)
    effect, noise = (DECAY if decays == "both" else 1.0), (1.0 if decays == "neither" else DECAY)
    trace = record(mixed(0.0, steps=STEPS))
    losses = 2 * effect * domains + noise * r.standard_normal(STEPS)
    found = explain(replace(trace, losses=losses, composition={"domain": np.array(["a", "b"], dtype=object)[domains]}))
    share = np.mean((effect / noise) ** 2 / (1 + (effect / noise) ** 2))
    assert found.explained == pytest.approx(share, abs=0.05)


def test_what_explains_nothing_is_not_called_significant(record):
    trace = record(mixed(0.0, steps=STEPS))
    found = replace(explain(trace), p_value=0.005)
    assert replace(found, explained=0.004).sentence == (
        "Composition explains less than 1% of the loss's movement: the loss means what it says."
    )
    assert "p = 0.005" in replace(found, explained=0.02).sentence


def test_a_number_is_not_advised_as_a_domain(record):
    """With level_by, every number would be a domain of its own, and the rule blind."""
    found = explain(record(mixed(0.0, of_length=4.0)))
    assert found.much
    assert "level_by" not in found.sentence
    assert "'length' most: stratify the batches by it" in found.sentence


def test_a_long_label_does_not_make_all_of_them_long(record):
    trace = record(mixed(0.5, steps=STEPS))
    labels = trace.composition["domain"].copy()
    labels[7] = 100_000 * "x"
    spiked = [Decision(step, 9.0, Action.SPIKE, (0.1,), (0.1,), {}) for step in (8, 9)]
    tracemalloc.start()
    found = explain(replace(trace, composition={"domain": labels}, decisions=spiked))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.explained == pytest.approx(1 / 7, abs=0.06)
    assert most < 100e6


@pytest.mark.parametrize("large", [1e308, 1e-308])
def test_no_size_of_a_number_or_a_loss_breaks_it(record, large):
    trace = record(mixed(0.0, of_length=4.0, steps=STEPS))
    plain = explain(trace)
    lengths = large / 512 * trace.composition["length"]
    found = explain(replace(trace, composition={**trace.composition, "length": lengths}))
    assert found.explained == pytest.approx(plain.explained, abs=1e-3)
    found = explain(replace(trace, losses=large / 20 * trace.losses))
    assert found.explained == pytest.approx(plain.explained, abs=1e-3)


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
            script.step(9.0 if spiked else 1.0, Action.SPIKE if spiked else Action.GATHERING, composition=batch)

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
                        composition={"domain": domain if rests_on_domain else "ab"[step % 2]},
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
    scheduler = GreedyLR(optimizer, level_by=level_by, decade_steps=100, config=DefaultConfig(polyak=math.inf))
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
            scheduler.step(loss, composition={"domain": "hard" if hard else "easy"})
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
        one.step(float(loss), composition={"domain": "ab"[number // 7 % 2]})
    unsubscribe()
    return decisions


def test_resuming_equals_not_stopping():
    losses = np.random.default_rng(0).standard_normal(400) + np.arange(400) // 7 % 2
    through = stepped(scheduler(level_by="domain"), losses)
    first = scheduler(level_by="domain")
    before = stepped(first, losses[:150])
    saved = json.loads(json.dumps(first.state_dict()))
    second = scheduler(level_by="domain")
    second.load_state_dict(saved)
    assert before + stepped(second, losses[150:], first=150) == through


def plainly(losses, domains):
    """The arithmetic as the docstring has it."""
    known, aside, common, unit, out = {}, {}, 0.0, 0.0, []

    def deviation(name):
        level, variance, _ = known[name]
        return max(np.sqrt(variance), abs(level) / 100)

    def scale(name):
        return unit / deviation(name) if unit > 0 and deviation(name) > 0 else 1

    def move(name, level, variance, count):
        before = (known[name][0], deviation(name), scale(name)) if name in known else None
        known[name] = [level, variance, count]
        share = count / sum(n for _, _, n in known.values())
        if before is None:
            return (level if len(aside) == 1 else common), (unit if unit > 0 else deviation(name))
        ratio = deviation(name) / before[1] if before[1] > 0 and unit > 0 else 0
        return common + share * (level - before[0]) * before[2], (
            unit * ratio**share if ratio else unit or deviation(name)
        )

    for loss, name in zip(losses, domains):
        if name not in aside and len(aside) == 1 and not known:
            common = np.median(*aside.values())
        held = aside.setdefault(name, [])
        alone = len(aside) == 1
        if name in known:
            level, variance, count = known[name]
            off = loss - level
            out.append(loss if alone else common + off * scale(name))
            if abs(off) <= 6 * deviation(name):
                held.clear()
                weight = 1 / min(count + 1, 50)
                variance += weight * (off**2 * (1 - weight) - variance)
                common, unit = move(name, level + weight * off, variance, count + 1)
                continue
        else:
            off = loss - np.median(held) if len(held) >= 3 else 0
            most = unit if known else np.inf
            out.append(loss if alone else common + min(max(off, -most), most))
        held.append(loss)
        if len(held) == 10:
            level = np.median(held)
            variance = 2.28 * np.mean(np.sort((np.array(held) - level) ** 2)[:8])
            common, unit = move(name, level, variance, known.get(name, (0, 0, 0))[2] + 10)
            held.clear()
    return out


@pytest.mark.parametrize("names", [1, 2, 40])
def test_the_arithmetic_is_that_of_the_docstring(names):
    r = np.random.default_rng(0)
    domains = [str(x) for x in r.integers(0, names, 3000)]
    losses = (5 + r.standard_normal(3000)) * 10.0 ** r.integers(-2, 3, names)[np.array(domains, int)]
    losses[1000] *= 1e12
    levels = Levels("domain")
    out = [levels.correct(loss, {"domain": name}) for loss, name in zip(losses.tolist(), domains)]
    assert out == pytest.approx(plainly(losses.tolist(), domains), rel=1e-6)


def test_levels_resume_to_the_last_digit():
    r = np.random.default_rng(0)
    losses, domains = r.standard_normal(3000).tolist(), [str(x) for x in r.integers(0, 40, 3000)]
    through, first = Levels("domain"), Levels("domain")
    want = [through.correct(*one) for one in ((loss, {"domain": name}) for loss, name in zip(losses, domains))]
    for loss, name in zip(losses[:1500], domains):
        first.correct(loss, {"domain": name})
    second = Levels.of(json.loads(json.dumps(first.state_dict(), sort_keys=True)))
    got = [second.correct(loss, {"domain": name}) for loss, name in zip(losses[1500:], domains[1500:])]
    assert got == want[1500:]
    assert second.state_dict() == through.state_dict()


@pytest.mark.parametrize("size", [10.0, 1e200])
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("domains", [1, 4])
def test_one_outlier_is_a_spike_and_nothing_else(size, mode, domains):
    sign = 1 if mode == "min" else -1
    for seed in range(20):
        r = np.random.default_rng(seed)
        one = scheduler(warmup_steps=0, level_by="domain", mode=mode)
        actions = []
        one.subscribe(lambda decision, actions=actions: actions.append(decision.action))
        for step in range(600):
            loss = 2 + 0.5 * (step % domains) + r.normal(0, 0.1)
            one.step(sign * loss * (size if step == 300 else 1), composition={"domain": str(step % domains)})
        # The first window is of levels that were not known yet.
        assert [at for at, action in enumerate(actions) if action is Action.SPIKE and at >= 150] == [300]
        assert Action.EXPLOSION not in actions
        assert np.isfinite(one._levels.correct(2.0, {"domain": "0"}))


@pytest.mark.parametrize("at", [0, 1, 2, 9, 10])
def test_an_outlier_among_the_first_losses_of_a_domain_does_not_stay(at):
    r = np.random.default_rng(0)
    late, first = Levels("domain"), []
    for step in range(800):
        name = "a" if step % 2 or step < 100 else "b"
        loss = (2 if name == "a" else 5) + r.normal(0, 0.1)
        number = sum(1 for one in first if one == "b")
        first.append(name)
        corrected = late.correct(loss * (1e6 if name == "b" and number == at else 1), {"domain": name})
        if step > 200:
            assert corrected == pytest.approx(2, abs=0.7)


def test_a_domain_whose_level_jumps_is_followed():
    r = np.random.default_rng(0)
    levels, out = Levels("domain"), []
    for step in range(4000):
        loss = 2 + step % 4 + r.normal(0, 0.1) + (3 if step % 4 == 0 and step > 2000 else 0)
        out.append(levels.correct(loss, {"domain": str(step % 4)}))
    # By its share of the steps, in units of its deviation, which is that of the others here, as ten losses know it.
    assert np.mean(out[-400:]) == pytest.approx(np.mean(out[1600:2000]) + 3 / 4, rel=0.15)
    assert max(out[2041:]) < np.mean(out[-400:]) + 1  # no outlier any more after the tenth


def actions_of(losses, **settings):
    one, actions = scheduler(warmup_steps=0, level_by="domain", **settings), []
    one.subscribe(lambda decision: actions.append(decision.action))
    for loss, name in losses:
        one.step(loss, composition={"domain": name})
    return actions


@pytest.mark.parametrize("hit", [{300, 304}, {300, 304, 308, 312, 316}, {300, 305, 307, 313, 318}])
@pytest.mark.parametrize("size", [10.0, -10.0, 1e200])
def test_outliers_that_come_again_make_no_explosion(hit, size):
    """In a row of their domain, or of several: none of them may change the units in which the others are seen."""
    for seed in range(5):
        r = np.random.default_rng(seed)
        losses = [(2 + 0.5 * (step % 4) + r.normal(0, 0.1)) * (size if step in hit else 1) for step in range(600)]
        actions = actions_of([(loss, str(step % 4)) for step, loss in enumerate(losses)])
        assert Action.EXPLOSION not in actions
        assert {at for at, action in enumerate(actions) if action is Action.SPIKE} == (hit if size > 0 else set())


@pytest.mark.parametrize("turns", [1, 100])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_domain_of_another_order_is_no_disturbance(turns, scale):
    for seed in range(5, 10):
        r = np.random.default_rng(seed)
        names = ["z" if step >= 300 and step // turns % 4 == 3 else str(step % 3) for step in range(1200)]
        losses = [(2 + r.normal(0, 0.1)) * (scale if name == "z" else 1) for name in names]
        actions = actions_of(zip(losses, names))
        assert Action.EXPLOSION not in actions
        assert actions.count(Action.SPIKE) <= 1  # ten losses may take a domain for calmer than it is
        assert sum(action in (Action.CUT, Action.RAISED) for action in actions) <= 6  # as of noise


def test_losses_that_are_rounded_have_a_deviation_too():
    r = np.random.default_rng(0)
    calm = [float(torch.tensor(2 + r.normal(0, 0.003), dtype=torch.bfloat16)) for _ in range(600)]
    losses = [(calm[step], "a") if step % 2 else (3 + r.normal(0, 0.3), "b") for step in range(600)]
    assert not {Action.SPIKE, Action.EXPLOSION} & set(actions_of(losses))


def test_no_finite_loss_makes_anything_infinite():
    r = np.random.default_rng(0)
    levels = Levels("domain")
    for step in range(20_000):
        loss = float(r.choice([0.0, 1.0, -1.0])) * 10.0 ** float(r.integers(-320, 309)) * (1 if step % 900 else 1.79)
        assert np.isfinite(levels.correct(loss, {"domain": "abc"[step // 40 % 3]}))
    state = levels.state_dict()
    assert np.isfinite([*state["levels"], *state["variances"], state["common"], state["spread"]]).all()
    assert Levels.of(state).state_dict() == state


def test_the_entries_of_a_state_do_not_depend_on_what_was_seen():
    fresh, trained = scheduler(level_by="domain"), scheduler(level_by="domain")
    stepped(trained, np.random.default_rng(0).standard_normal(100))

    def keys(tree, path=()):
        if not isinstance(tree, dict):
            return {path}
        return {path}.union(*(keys(value, (*path, name)) for name, value in tree.items()))

    assert keys(fresh.state_dict()) == keys(trained.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_checkpoint_brings_the_levels_back(tmp_path):
    import torch.distributed.checkpoint as dcp

    if "no_dist" not in inspect.signature(dcp.save).parameters:
        pytest.skip("this version of torch saves these from several processes only")
    trained, fresh = scheduler(level_by="domain"), scheduler(level_by="domain")
    losses = np.random.default_rng(0).standard_normal(200) + np.arange(200) // 7 % 2
    stepped(trained, losses[:100])
    dcp.save({"scheduler": trained.state_dict()}, checkpoint_id=tmp_path, no_dist=True)
    state = {"scheduler": fresh.state_dict()}
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    fresh.load_state_dict(state["scheduler"])
    assert fresh.state_dict() == trained.state_dict()
    assert stepped(fresh, losses[100:], 100) == stepped(trained, losses[100:], 100)


@pytest.mark.parametrize("entry", ["by", "names", "levels", "variances", "counts", "aside", "common", "spread"])
@pytest.mark.parametrize("bad", [None, "x", -1, float("nan"), [], [None], [-1.0, -1.0], {}])
def test_damaged_levels_are_refused(entry, bad):
    trained = scheduler(level_by="domain")
    stepped(trained, [1.0] * 30)
    state = trained.state_dict()
    state["levels"][entry] = bad
    before = scheduler(level_by="domain")
    kept = before.state_dict()
    if (entry, bad) in [("common", -1), ("levels", [-1.0, -1.0]), ("by", "x")]:
        return  # These may be.
    with pytest.raises(ValueError, match="level"):
        before.load_state_dict(state)
    assert before.state_dict() == kept


@pytest.mark.parametrize(
    "number", [0.5, float("nan"), np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.array(0.5)]
)
def test_a_measure_is_no_domain(number):
    with pytest.raises(TypeError, match=r"level_by='domain' must hold the name of a domain.* got .*put a measure into"):
        scheduler(level_by="domain").step(1.0, composition={"domain": number})


@pytest.mark.parametrize("name", [3, 3.0, np.int64(3), torch.tensor(3), True, None, "0.5"])
def test_labels_and_whole_numbers_are_domains(name):
    scheduler(level_by="domain").step(1.0, composition={"domain": name})


def test_a_thousand_domains_are_enough():
    levels = Levels("length")
    for number in range(1000):
        levels.correct(1.0, {"length": number})
    levels.correct(1.0, {"length": 7})
    with pytest.raises(
        ValueError, match=r"level_by='length' has more than 1,000 domains, '1000' is the next: it looks"
    ):
        levels.correct(1.0, {"length": 1000})


def test_with_one_domain_it_changes_nothing_to_speak_of():
    levels = Levels("domain")
    losses = 3 + np.random.default_rng(0).standard_normal(1000)
    out = [levels.correct(loss, {"domain": "only"}) for loss in losses.tolist()]
    assert np.corrcoef(out, losses)[0, 1] > 0.98


@pytest.mark.parametrize("batch", [None, {}, {"other": 1}])
def test_a_batch_without_its_domain_is_an_error(batch):
    with pytest.raises(ValueError, match="level_by='domain' needs step"):
        scheduler(level_by="domain").step(1.0, composition=batch)


@pytest.mark.parametrize("name", ["", 3])
def test_a_column_must_have_a_name(name):
    with pytest.raises(ValueError, match="level_by must be the name"):
        scheduler(level_by=name)


def test_the_mean_over_ranks_belongs_to_no_domain(monkeypatch):
    from greedylr.torch import distributed

    monkeypatch.setattr(distributed, "is_active", lambda: True)
    with pytest.raises(ValueError, match="level_by='domain' is for one process"):
        scheduler(level_by="domain").step(1.0, composition={"domain": "web"})
