"""The audit on losses whose truth is known."""

import math
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from greedylr import Action, Decision
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.audit import PROBE, Verdict, audit, audits
from greedylr.pulse.record import Metric, Record
from greedylr.pulse.recording.storage import TROUBLE

MOVES = 60


def moved(effect, noise=0.01, kind=Action.RAISED, probe=None, seed=0):
    """A rule that moves every 100 steps; ``effect(step since the last move)`` is what the loss then does."""

    def play(script, recorder):
        r = np.random.default_rng(seed)
        level = 1000.0
        for step in range(100 * MOVES):
            level += effect(step // 100, step % 100)
            at_move = step % 100 == 99
            loss = level + noise * r.standard_normal()
            action = kind if at_move else Action.GATHERING
            factor = 1.0 if not at_move else 0.999 if kind is Action.CUT else 1.001
            script.step(loss, action, factor)
            if probe is not None and step % 5 == 0:
                recorder.log(probe_loss=probe(level, step))

    return play


def right(number, step):
    """The loss falls ever faster: each move was right."""
    return -0.002 * number


def wrong(number, step):
    """After each move the loss climbs, and only then falls again."""
    return 0.1 if step < 40 else -0.08


def turned(number, step):
    """The loss climbs before each move and falls after it: each cut was right."""
    return -0.1 if step < 40 else 0.08


def nothing(number, step):
    return 0.0


@pytest.mark.parametrize("kind", [Action.RAISED, Action.CUT])
def test_shares_are_as_they_must_be(record, kind):
    shares = {
        name: audit(record(moved(effect, kind=kind), name=name)).shares
        for name, effect in {"right": right, "wrong": wrong, "turned": turned, "noise": nothing}.items()
    }
    assert all(share.total == MOVES for share in shares.values())
    assert shares["right"].confirmed > 0.6 * MOVES
    assert shares["right"].refuted == 0
    assert shares["wrong"].refuted > 0.9 * MOVES
    assert shares["turned"].confirmed > 0.9 * MOVES
    assert shares["noise"].undecidable > 0.85 * MOVES


def busy(seed):
    """A run that moves often, some of whose losses are missing, not finite, or spikes; every third has a probe."""
    r = np.random.default_rng(seed)
    steps = np.flatnonzero(r.random(500) < 0.9) + 1
    losses = r.choice([1e-300, 1.0, 1e200]) * (5 - steps / 100 + r.choice([0.0, 0.1]) * r.standard_normal(len(steps)))
    losses[r.random(len(steps)) < 0.02] = math.nan
    kinds = [Action.RAISED, Action.CUT, Action.EXPLOSION, Action.SPIKE]
    moves = [
        Decision(int(step), float(loss), r.choice(kinds), (0.1,), (0.2,), {})
        for step, loss in zip(steps, losses)
        if r.random() < 0.2
    ]
    probed = np.sort(r.choice(steps, 60))  # Some twice.
    return Record(
        config={"span": int(r.choice([5, 20, 50]))},
        steps=steps,
        losses=losses,
        lrs=np.full((len(steps), 1), 0.1),
        first_lrs=np.array([0.1]),
        decisions=moves,
        metrics={PROBE: Metric(probed, 5 - probed / 100 + 0.1 * r.standard_normal(60))} if seed % 3 == 0 else {},
        composition={},
        marks=[],
    )


def test_moves_of_many_runs_are_judged_together_as_each_alone(one_move):
    records = [busy(seed) for seed in range(20)]
    together = audits(records)
    assert sum(len(one.moves) for one in together) > 1000
    verdicts = Counter()
    for record, judged in zip(records, together, strict=True):
        probed, usable = PROBE in record.metrics, np.isfinite(record.losses)
        usable &= ~np.isin(record.steps, [one.step for one in record.decisions if one.action in TROUBLE])
        steps, values = record.metrics[PROBE] if probed else (record.steps[usable], record.losses[usable])
        least = one_move.PROBES if probed else one_move.LOSSES
        assert [one.decision for one in judged.moves] == record.moves
        for one in judged.moves:
            known = one_move.compared(steps, values, one.decision.step, record.window, least)
            assert one[2:6] == pytest.approx(known or [math.nan] * 4, rel=1e-6, abs=0, nan_ok=True)
            assert (known is None) == math.isnan(one.p_value)
            verdicts[one.verdict] += 1
    assert {Verdict.TOO_FEW, Verdict.UNDECIDABLE, Verdict.CONFIRMED, Verdict.REFUTED} < verdicts.keys()


def test_of_a_straight_line_nothing_can_be_said(record):
    shares = audit(record(moved(lambda number, step: -0.01))).shares
    assert shares.undecidable > 0.85 * MOVES


def like_before(autocorrelation):
    return lambda r, n: signal.lfilter([math.sqrt(1 - autocorrelation**2)], [1, -autocorrelation], r.standard_normal(n))


def periodic(period, noise):
    return lambda r, n: np.sin(2 * np.pi * np.arange(n) / period) + noise * r.standard_normal(n)


PLACEBOS = {
    "white": (like_before(0.0), 0.05),
    "0.5": (like_before(0.5), 0.06),
    "0.8": (like_before(0.8), 0.06),
    "0.95": (like_before(0.95), 0.06),
    "period 80": (periodic(80, 0.1), 0.06),
    "period 80, noisy": (periodic(80, 1.0), 0.14),
    "period 160": (periodic(160, 0.1), 0.12),
    "period 160, noisy": (periodic(160, 1.0), 0.12),
}
"""Losses that no move changes, and how many moves in a hundred may be called right, and how many wrong."""


def test_moves_that_change_nothing_are_seldom_decided_upon(record):
    """Be the noise ever so smooth: one in twenty a side, and one in eight where slow waves hide in white noise."""
    r = np.random.default_rng(0)
    at = set((200 + np.cumsum(r.integers(60, 140, 300))).tolist())

    def play(script, recorder):
        for step in range(1, max(at) + 50):
            script.step(0.0, *((Action.RAISED, 1.001) if step in at else ()))

    trace = record(play)
    for name, (make, most) in PLACEBOS.items():
        losses = make(r, len(trace.steps))
        shares = audit(replace(trace, losses=losses)).shares
        assert shares.total == 300
        assert max(shares.confirmed, shares.refuted) <= most * shares.total, (name, shares)


def test_metrics_that_are_logged_several_times_at_a_step_prove_nothing(record):
    def play(script, recorder):
        for step in range(100):
            script.step(1.0, *((Action.CUT, 0.5) if step == 60 else ()))
            for _ in range(5 * (step in (50, 70))):
                recorder.log(probe_loss=2.0 + step)

    assert [one.verdict for one in audit(record(play)).moves] == [Verdict.TOO_FEW]


@pytest.mark.parametrize("large", [1e100, 1e200, 1e307])
def test_losses_whose_squares_are_too_large_are_judged_as_others(record, large):
    def verdicts(scale):
        def play(script, recorder):
            losses = np.random.default_rng(0).standard_normal(400)
            losses[200:] += 5
            for step, loss in enumerate(losses):
                script.step(scale * loss, *((Action.CUT, 0.5) if step % 100 == 99 else ()))

        return [one.verdict for one in audit(record(play, name=str(scale))).moves]

    assert verdicts(large) == verdicts(1.0)
    assert verdicts(large / 10)[1] is Verdict.REFUTED


@pytest.mark.parametrize("large", [1e100, 1e307])
def test_the_end_of_a_climb_of_such_losses_is_judged_too(record, large):
    def play(script, recorder):
        for step in range(200):
            evidence = {"mean": 2 * large, "lowest": large, "standard_error": 0.1 * large}
            ends = step == 150
            loss = large * (1 + 0.1 * math.sin(step))
            script.step(loss, Action.BACKED_OFF if ends else Action.GATHERING, 0.5 if ends else 1.0, **evidence)

    (one,) = audit(record(play)).moves
    assert one.verdict is Verdict.CAME_BACK


def test_the_end_of_a_climb_of_smooth_losses_is_seldom_decided_upon(tmp_path, scheduled):
    """What the rule takes for a rise is one, for a while; of white noise as many stay up for being chosen."""
    shorts = []
    for seed in range(30):
        losses = 5 + 0.3 * like_before(0.8)(np.random.default_rng(seed), 500)
        scheduler = scheduled(total_steps=500, decade_steps=100, anneal=0.4)
        with Recorder(tmp_path / str(seed), scheduler):
            for loss in losses.tolist():
                scheduler.step(loss)
        moves = audit(Trace.load(tmp_path / str(seed))).moves
        shorts += [one.verdict.short for one in moves if one.decision.action is Action.BACKED_OFF]
    assert len(shorts) > 20
    assert shorts.count("undecidable") > 0.7 * len(shorts)
    assert shorts.count("confirmed") < 0.1 * len(shorts)


def test_a_rule_that_believes_noise_learns_that_it_was_noise(record):
    """Windows of 20, two standard errors: what is chosen for being extreme goes back to the mean."""

    def play(script, recorder):
        losses = 2 + 0.3 * np.random.default_rng(2).standard_normal(20_000)
        error = 2 * 0.3 * np.sqrt(2 / 20)
        for step, loss in enumerate(losses, start=1):
            difference = 0.0
            if step % 20 == 0 and step >= 40:
                difference = losses[step - 20 : step].mean() - losses[step - 40 : step - 20].mean()
            action = Action.CUT if difference > error else Action.RAISED if difference < -error else Action.GATHERING
            script.step(loss, action, {Action.CUT: 0.9, Action.RAISED: 1 / 0.9}.get(action, 1.0))

    shares = audit(record(play)).shares
    assert shares.total > 20
    assert shares.undecidable > 0.75 * shares.total
    assert shares.confirmed < 0.1 * shares.total


def test_in_mode_max_higher_is_better(record):
    def play(script, recorder):
        script.config = replace(script.config, mode="max")
        recorder.watch(script)
        moved(lambda number, step: 0.002 * number)(script, recorder)

    result = audit(record(play))
    assert result.shares.confirmed > 0.6 * MOVES
    assert result.moves[-2].actual > result.moves[-2].predicted


def test_the_probe_is_the_judge_where_there_is_one(record):
    # The loss says that each move was wrong, by composition say; that of the fixed batch falls faster after each.
    def probe(level, step):
        return -float(np.interp(step, 100 * np.arange(MOVES + 1), np.arange(MOVES + 1) ** 2))

    result = audit(record(moved(wrong, probe=probe)))
    assert {one.judge for one in result.moves} == {"probe_loss"}
    assert result.shares.refuted == 0
    assert result.shares.confirmed > 0.8 * MOVES


CLIMBS = {
    # What the loss does in a step, given the learning rate, what it has been raised by, and if it was ever too high.
    "noise": lambda lr, raised, ever: raised,
    "comes back": lambda lr, raised, ever: 1.3 * raised + 0.02 if lr > 0.5 else 0.8 * raised,
    "stays up": lambda lr, raised, ever: min(raised + 0.02, 1.0) if ever else raised,
}


@pytest.mark.parametrize(
    ("kind", "seeds", "short"),
    [("noise", 150, "undecidable"), ("comes back", 30, "confirmed"), ("stays up", 15, "refuted")],
)
def test_the_end_of_a_climb_is_right_if_the_loss_had_risen_and_comes_back(tmp_path, scheduled, kind, seeds, short):
    """A rise that is noticed at once may be too small to be told from chance."""
    found = []
    for seed in range(seeds):
        r = np.random.default_rng(seed)
        scheduler = scheduled(total_steps=1000, decade_steps=200, anneal=0.4)
        raised, ever = 0.0, False
        with Recorder(tmp_path / str(seed), scheduler):
            for step in range(1000):
                lr = scheduler.optimizer.param_groups[0]["lr"]
                ever = ever or lr > 0.5
                raised = CLIMBS[kind](lr, raised, ever)
                fall = 0.0 if kind == "noise" else 0.002 * step
                scheduler.step(float(5 - fall + raised + 0.3 * r.standard_normal()))
        moves = audit(Trace.load(tmp_path / str(seed))).moves
        found += [one for one in moves if one.decision.action is Action.BACKED_OFF]
    assert len(found) > 10
    shorts = [one.verdict.short for one in found]
    if kind == "comes back":
        assert shorts.count("confirmed") > 0.3 * len(found)
        assert "refuted" not in shorts
    else:
        assert shorts.count(short) >= 0.85 * len(found)
        assert shorts.count("confirmed") < 0.1 * len(found)
    for one in found:
        evidence = one.decision.evidence
        assert one.predicted == pytest.approx((evidence["mean"] + evidence["lowest"]) / 2)


def test_a_probe_judges_the_end_of_a_climb_as_any_other_move(record):
    def play(script, recorder):
        for step in range(200):
            evidence = {"mean": 9.0, "lowest": 1.0, "standard_error": 0.1}
            ends = step == 100
            script.step(1.0, Action.BACKED_OFF if ends else Action.GATHERING, 0.5 if ends else 1.0, **evidence)
            recorder.log(probe_loss=2.0 if step <= 100 else 3.0)

    (one,) = audit(record(play)).moves
    assert one.verdict is Verdict.REFUTED
    assert one.predicted == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("after", "verdict"), [(1.0, Verdict.RECOVERED), (5.0, Verdict.NOT_RECOVERED), (math.nan, Verdict.NOT_RECOVERED)]
)
@pytest.mark.parametrize("trouble", [Action.EXPLOSION, Action.NON_FINITE])
def test_a_reflex_is_right_if_the_loss_comes_back(record, trouble, after, verdict):
    def play(script, recorder):
        for step in range(200):
            script.step(1.0 + 0.1 * math.sin(step))
        script.step(math.nan if trouble is Action.NON_FINITE else 50.0, trouble, 0.7)
        for step in range(50):
            script.step(after + 0.1 * math.sin(step), Action.GATHERING if after == after else Action.NON_FINITE)

    (one,) = audit(record(play)).moves
    assert one.verdict is verdict
    assert one.phase == "last third"


def test_too_few_losses_are_said_to_be_so(record):
    def play(script, recorder):
        script.step(1.0, Action.RAISED, 1.1)
        for _ in range(100):
            script.step(1.0)
        script.step(1.0, Action.RAISED, 1.1)

    result = audit(record(play))
    assert [one.verdict for one in result.moves] == [Verdict.TOO_FEW] * 2
    assert result.by_action()["RAISED"].undecidable == 2
    assert list(result.by_phase()) == ["first third", "last third"]


@pytest.mark.parametrize("level", [1e300, 1e-300, 0.0, -1e300])
def test_no_level_of_the_loss_breaks_it(record, level):
    def play(script, recorder):
        for step in range(300):
            at_move = step % 30 == 29
            script.step(
                level * (1 + 0.1 * math.sin(step)), Action.CUT if at_move else Action.GATHERING, 0.9 if at_move else 1.0
            )

    assert audit(record(play)).shares.total == 10


def test_a_run_without_moves_has_nothing_to_audit(record):
    assert audit(record(losses=[])).shares == (0, 0, 0)
    assert audit(record(losses=[1.0] * 50, name="flat")).shares == (0, 0, 0)


def test_ten_thousand_moves_take_seconds(record):
    def play(script, recorder):
        r = np.random.default_rng(0)
        for step, loss in enumerate(r.standard_normal(200_000)):
            at_move = step % 20 == 0
            script.step(loss, Action.CUT if at_move else Action.GATHERING, 0.99999 if at_move else 1.0)

    trace = record(play)
    begin = time.process_time()
    assert audit(trace).shares.total == 10_000
    assert time.process_time() - begin < 10
