"""Every finding: a made-up trace that has it, and ones that come near and must not."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import signal

from greedylr import Action
from greedylr.pulse import Trace
from greedylr.pulse.diagnosis.findings import ADVICE, Kind
from greedylr.pulse.diagnosis.health import examine

R = np.random.default_rng(0)


def falling(n=2000, noise=0.1):
    """A run in order: no finding but, where it is long, that it flattens."""
    return 0.5 + 3 * np.exp(-np.arange(n) / 800) + noise * np.random.default_rng(1).standard_normal(n)


def fast(steps=1500):
    """A run that comes down to a hundredth within sixty steps, its noise with it."""
    level = 0.02 + 1.98 / (1 + np.exp((np.arange(steps) - 200) / 7))
    return level * (1 + 0.3 * np.random.default_rng(4).standard_normal(steps))


def flat():
    noise = 0.02 * np.random.default_rng(5).standard_normal(6000)
    return np.concatenate([falling(noise=0.02), 0.74 + noise])


def changed(change, losses=None):
    """A course in which something happened at step 1208."""
    losses = falling() if losses is None else losses
    losses[1207:] = change(losses[1207:])
    return course(losses)


def for_a_while(value, steps=10):
    def change(losses):
        losses[:steps] += value
        return losses

    return change


def course(losses):
    """A rule that never moves, and calls what it must: not finite, a spike, an explosion."""

    def play(script, recorder):
        spikes = 0
        for number, loss in enumerate(losses):
            before = np.asarray(losses[max(number - 40, 0) : number])
            before = before[np.isfinite(before)] if np.isfinite(before).any() else np.zeros(1)
            over = number > 40 and loss > np.median(before) + 8 * np.std(before)
            spikes = spikes + 1 if over else 0
            action = Action.GATHERING if not over else Action.SPIKE if spikes == 1 else Action.EXPLOSION
            script.step(loss, action if math.isfinite(loss) else Action.NON_FINITE)

    return play


def kinds(trace):
    return {finding.kind for finding in examine(trace)}


def only(trace, kind):
    found = [finding for finding in examine(trace) if finding.kind is kind]
    assert found, list(examine(trace))
    return found[0]


def test_a_run_in_order_has_no_finding(record):
    assert examine(record(course(falling()))) == []
    assert examine(record(course([]), name="empty")) == []
    assert examine(record(course([1.0]), name="one")) == []


def test_every_finding_has_a_page_with_its_picture_and_its_advice():
    docs = Path(__file__).parents[2] / "docs"
    overview = (docs / "findings.md").read_text(encoding="utf-8")
    for kind in Kind:
        name, title = kind.name.lower().replace("_", "-"), kind.value[0].upper() + kind.value[1:]
        page = (docs / "findings" / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {title}\n")
        assert f"\n## What to do\n\n{ADVICE[kind]}\n" in page
        assert f"({name}.svg)" in page
        assert (docs / "findings" / f"{name}.svg").is_file()
        assert f"[{title}](findings/{name}.md)" in overview


def test_every_kind_has_its_advice():
    assert set(ADVICE) == set(Kind)
    assert all(advice.endswith(".") for advice in ADVICE.values())


def test_non_finite(record):
    losses = falling()
    losses[500] = math.nan
    losses[520] = math.inf
    trace = record(course(losses))
    assert kinds(trace) == {Kind.NON_FINITE}
    finding = only(trace, Kind.NON_FINITE)
    assert (finding.first, finding.last) == (501, 521)


def test_the_end_in_nan_is_divergence(record):
    losses = falling()
    losses[1500:] = math.nan
    assert only(record(course(losses)), Kind.DIVERGENCE).first == 1501


@pytest.mark.parametrize(("end", "diverged"), [(4.5, True), (2.5, True), (1.2, False)])
def test_divergence(record, end, diverged):
    losses = falling()
    losses[1000:] += np.linspace(0, end, 1000)
    assert (Kind.DIVERGENCE in kinds(record(course(losses)))) == diverged


def validated(rises, falls):
    def play(script, recorder):
        losses = falling() if falls else np.concatenate([falling()[:800], np.full(1200, 1.7)])
        for step, loss in enumerate(losses):
            script.step(loss)
            if step % 100 == 0:
                better = 2 - step / 1000
                recorder.log(val_loss=better if step < 800 or not rises else 1.2 + (step - 800) / 1000)

    return play


@pytest.mark.parametrize(("rises", "falls", "lies"), [(True, True, True), (True, False, False), (False, True, False)])
def test_overfitting(record, rises, falls, lies):
    trace = record(validated(rises, falls))
    assert (Kind.OVERFITTING in kinds(trace)) == lies
    if lies:
        assert only(trace, Kind.OVERFITTING).first == 801


def test_validation_that_is_no_loss_is_not_called_overfitting(record):
    def play(script, recorder):
        for step, loss in enumerate(falling()):
            script.step(loss)
            if step % 100 == 0:
                recorder.log(val_accuracy=step / 2000)

    assert Kind.OVERFITTING not in kinds(record(play))


@pytest.mark.parametrize("jump", [0.3, 1.0, 5.0])
def test_level_shift(record, jump):
    losses = falling()
    losses[1207:] += jump
    trace = record(course(losses))
    assert kinds(trace) - {Kind.DIVERGENCE} == {Kind.LEVEL_SHIFT}
    assert abs(only(trace, Kind.LEVEL_SHIFT).first - 1208) <= 2


def smoothly(autocorrelation, seed, n=4000):
    """A run in order, of which one batch is much like the one before."""
    noise = np.random.default_rng(seed).standard_normal(n + 500)
    scale = math.sqrt(1 - autocorrelation**2)
    return falling(n, noise=0.0) + 0.05 * signal.lfilter([scale], [1, -autocorrelation], noise)[500:]


@pytest.mark.parametrize(("autocorrelation", "most"), [(0.8, 0), (0.9, 1), (0.99, 2)])
def test_smooth_noise_jumps_to_no_other_level(record, autocorrelation, most):
    trace = record(course(np.full(4000, 1.0)))
    found = []
    for seed in range(25):
        losses = smoothly(autocorrelation, seed)
        found += [one.kind for one in examine(replace(trace, losses=losses)) if one.kind in JUMPS]
    assert found.count(Kind.LEVEL_SHIFT) <= most
    assert len(found) <= most + 1


JUMPS = {Kind.LEVEL_SHIFT, Kind.LOSS_SCALE, Kind.NO_RECOVERY, Kind.DISRUPTION}


@pytest.mark.parametrize("autocorrelation", [0.9, 0.99])
def test_a_jump_is_seen_through_smooth_noise(record, autocorrelation):
    losses = smoothly(autocorrelation, seed=0, n=2000)
    losses[1207:] += 1.0
    assert abs(only(record(course(losses)), Kind.LEVEL_SHIFT).first - 1208) <= 5


@pytest.mark.parametrize("factor", [8.0, 1 / 8])
def test_loss_scale(record, factor):
    losses = falling(noise=0.03)
    losses[1207:] *= factor
    trace = record(course(losses))
    assert Kind.LOSS_SCALE in kinds(trace)
    assert Kind.LEVEL_SHIFT not in kinds(trace)
    assert abs(only(trace, Kind.LOSS_SCALE).first - 1208) <= 2


def test_spikes_without_recovery(record):
    losses = falling() + 3
    losses[1207:] += 2 + np.abs(np.random.default_rng(3).standard_normal(793))
    trace = record(course(losses))
    assert Kind.NO_RECOVERY in kinds(trace)
    assert abs(only(trace, Kind.NO_RECOVERY).first - 1208) <= 5


def test_a_disruption_that_recovers(record):
    losses = falling()
    losses[1207:1217] += 5
    trace = record(course(losses))
    assert kinds(trace) == {Kind.DISRUPTION}
    assert only(trace, Kind.DISRUPTION).first == 1208


def test_one_bad_batch_is_no_finding(record):
    losses = falling()
    losses[1207] += 5
    assert examine(record(course(losses))) == []


def stuck(action, factor, times=200):
    """A rule that moves at twenty windows, and is stuck at a bound from then on."""

    def play(script, recorder):
        for number in range(times):
            for _ in range(19):
                script.step(2 + 0.1 * R.standard_normal())
            at_bound = number >= 20
            held = Action.AT_MAX if action is Action.RAISED else Action.AT_MIN
            script.step(2.0, held if at_bound else action, 1.0 if at_bound else factor)

    return play


def test_sinking_and_bound(record):
    assert Kind.SINKING in kinds(record(stuck(Action.CUT, 0.9)))
    assert Kind.SINKING in kinds(record(stuck(Action.CUT, 0.5, 20), name="far"))
    up = record(stuck(Action.RAISED, 1.1), name="up")
    assert Kind.AT_BOUND in kinds(up)
    assert Kind.SINKING not in kinds(up)
    assert not kinds(record(stuck(Action.CUT, 0.9, 22), name="little")) & {Kind.SINKING, Kind.AT_BOUND}


def test_annealing_is_no_sinking(record):
    trace = record(losses=falling(), total_steps=2000)
    assert trace.lrs[-1, 0] < 0.01 * trace.lrs.max()
    assert trace.phases[-1].name == "annealing"
    assert Kind.SINKING not in kinds(trace)


def moving(directions):
    def play(script, recorder):
        for raised in directions:
            for _ in range(19):
                script.step(2 + 0.1 * R.standard_normal())
            script.step(2.0, Action.RAISED if raised else Action.CUT, 1.1 if raised else 1 / 1.1)

    return play


def test_oscillating(record):
    trace = record(moving([True, False] * 10))
    assert Kind.OSCILLATING in kinds(trace)
    assert Kind.OSCILLATING not in kinds(record(moving([True, True, False] * 10), name="climbing"))


def test_what_noise_moves_in_a_long_run_is_no_oscillation(record):
    """Here the windows of findings are ten times as long as those of the rule."""
    losses = 1 + 0.1 * np.random.default_rng(0).standard_normal(400_000)
    trace = record(losses=losses.tolist())
    assert len(trace.moves) > 200
    assert Kind.OSCILLATING not in kinds(trace)


def test_plateau(record):
    trace = record(course(flat()))
    assert only(trace, Kind.PLATEAU).first > 1500
    assert Kind.PLATEAU not in kinds(record(course(np.linspace(5, 1, 8000) + 0.1 * R.standard_normal(8000)), name="on"))


@pytest.mark.parametrize(("noise", "plain"), [(0.1, True), (3.0, False)])
def test_a_slope_that_noise_would_hide_is_no_plateau(record, noise, plain):
    losses = 0.5 + 3 * np.exp(-np.arange(4000) / 300) + noise * np.random.default_rng(2).standard_normal(4000)
    assert (Kind.PLATEAU in kinds(record(course(losses)))) == plain


@pytest.fixture
def looks_always(monkeypatch):
    """The recorder looks at the optimizer at every step."""
    from greedylr.pulse.recording import recorder

    monkeypatch.setattr(recorder, "WRITE_EVERY", 0.0)


def somebody_else(sets):
    def play(script, recorder):
        for step in range(10):
            script.step(1.0)
            script.optimizer.param_groups[0]["lr"] = sets if step > 3 else 0.1

    return play


def test_somebody_else_at_the_learning_rate(record, looks_always):
    finding = only(record(somebody_else(0.3)), Kind.LR_IGNORED)
    assert finding.first == 6
    assert "found 0.3 in the optimizer where 0.1 had been written" in finding.numbers


def test_failures(record, tmp_path, scheduled):
    from greedylr.pulse import Recorder

    def block():
        scheduler = scheduled()
        with Recorder(tmp_path / "failed", scheduler):
            scheduler.step(1.0)
            raise MemoryError("too large")

    with pytest.raises(MemoryError):
        block()
    finding = only(Trace.load(tmp_path / "failed"), Kind.FAILED)
    assert finding.numbers == "MemoryError: too large, out of memory"
    assert finding.serious


def test_a_loss_that_falls_fast_has_no_other_scale(record):
    """Its noise falls with it."""
    assert kinds(record(course(fast()))) == {Kind.PLATEAU}


@pytest.mark.parametrize("cut", [True, False])
def test_where_the_learning_rate_is_cut_the_loss_may_fall_at_once(record, cut):
    def play(script, recorder):
        losses = 2 + 0.2 * np.random.default_rng(0).standard_normal(1200)
        losses[700:] /= 8
        for step, loss in enumerate(losses, start=1):
            script.step(loss, *((Action.CUT, 1 / 8) if cut and step == 700 else ()))

    assert (Kind.LOSS_SCALE in kinds(record(play))) != cut


def test_data_by_turns_are_no_divergence(record):
    """A run may end with the hard ones."""
    losses = falling(noise=0.05)
    losses[np.arange(2000) // 40 % 2 == 1] += 2.5
    assert Kind.DIVERGENCE not in kinds(record(course(losses)))


def test_a_level_that_does_not_last_is_no_shift(record):
    """A line through the steep fall before would have gone below zero."""
    losses = 2 * np.exp(-np.arange(800) / 100) * (1 + 0.2 * np.random.default_rng(0).standard_normal(800))
    losses[300:380] *= 3
    assert Kind.LEVEL_SHIFT not in kinds(record(course(losses)))


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_the_scale_of_losses_with_long_tails(record, seed):
    """The largest are far above the new level, as they were above the old one, and no disruption."""
    losses = 0.1 * np.exp(1.6 * np.random.default_rng(seed).standard_normal(1400))
    assert kinds(record(changed(lambda losses: 64 * losses, losses))) == {Kind.LOSS_SCALE}


def test_one_disruption_does_not_hide_the_next(record):
    losses = falling()
    losses[1207:1217] += 5
    losses[1307:1317] += 5
    found = [(one.kind, one.first) for one in examine(record(course(losses)))]
    assert found == [(Kind.DISRUPTION, 1208), (Kind.DISRUPTION, 1308)]


@pytest.mark.parametrize("seed", range(5))
def test_hard_batches_now_and_then_are_no_disruption(record, seed):
    r = np.random.default_rng(seed)
    losses = 0.1 * np.exp(r.standard_normal(3000))
    assert not kinds(record(course(losses))) & {Kind.DISRUPTION, Kind.NO_RECOVERY}


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_other_shapes_is_no_finding(record, seed):
    r = np.random.default_rng(seed)
    for name, noise in {"heavy": r.standard_t(4, 3000), "skewed": r.exponential(1, 3000)}.items():
        losses = 0.5 + 3 * np.exp(-np.arange(3000) / 1200) + 0.1 * noise
        found = kinds(record(course(losses), name=f"{name}{seed}"))
        assert found == set(), found


def fails(script, recorder):
    course(falling())(script, recorder)
    recorder.fail(RuntimeError("no"))


def noisier(losses):
    return losses + 2 + np.abs(np.random.default_rng(3).standard_normal(len(losses)))


EXAMPLES = {
    Kind.FAILED: (fails, course(falling())),
    Kind.NON_FINITE: (changed(for_a_while(math.nan, 1)), changed(for_a_while(1e30, 1))),
    Kind.DIVERGENCE: (
        changed(lambda losses: losses + np.linspace(0, 4, len(losses))),
        changed(lambda losses: losses + np.linspace(0, 1, len(losses))),
    ),
    Kind.OVERFITTING: (validated(rises=True, falls=True), validated(rises=True, falls=False)),
    Kind.LR_IGNORED: (somebody_else(0.3), somebody_else(torch.tensor(0.1))),
    Kind.LEVEL_SHIFT: (changed(lambda losses: losses + 1), changed(for_a_while(1, 200))),
    Kind.LOSS_SCALE: (changed(lambda losses: 8 * losses, falling(noise=0.03)), course(fast())),
    Kind.NO_RECOVERY: (changed(noisier, falling() + 3), changed(for_a_while(5))),
    Kind.DISRUPTION: (changed(for_a_while(5, 3)), changed(for_a_while(5, 2))),
    Kind.SINKING: (stuck(Action.CUT, 0.9), stuck(Action.CUT, 0.9, 22)),
    Kind.AT_BOUND: (stuck(Action.RAISED, 1.1), stuck(Action.RAISED, 1.1, 22)),
    Kind.OSCILLATING: (moving([True, False] * 10), moving([True, True, False] * 10)),
    Kind.PLATEAU: (course(flat()), course(np.linspace(5, 1, 8000) + flat() - 0.74)),
}
"""A trace that has it, and one that comes near."""


@pytest.mark.parametrize("kind", Kind)
def test_every_finding_has_a_trace_that_has_it_and_one_that_must_not(record, looks_always, kind):
    has, near = EXAMPLES[kind]
    assert kind in kinds(record(has, name="has"))
    assert kind not in kinds(record(near, name="near"))
