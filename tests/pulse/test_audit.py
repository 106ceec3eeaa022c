"""The audit on losses whose truth is known."""

import math
import time

import numpy as np
import pytest

from greedylr import Action
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.audit import Verdict, audit

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


def test_of_a_straight_line_nothing_can_be_said(record):
    shares = audit(record(moved(lambda number, step: -0.01))).shares
    assert shares.undecidable > 0.85 * MOVES


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
        from dataclasses import replace

        script.config = replace(script.config, mode="max")
        recorder.watch(script)
        moved(lambda number, step: 0.002 * number)(script, recorder)

    result = audit(record(play))
    assert result.shares.confirmed > 0.6 * MOVES
    assert result.moves[-2].actual > result.moves[-2].predicted


def test_the_probe_is_the_judge_where_there_is_one(record):
    # The loss says that each move was wrong, by composition say; the fixed batch knows better.
    def probe(level, step):
        return -((step / 1000) ** 2)

    result = audit(record(moved(wrong, probe=probe)))
    assert {one.judge for one in result.moves} == {"probe_loss"}
    assert result.shares.refuted == 0
    assert result.shares.confirmed > 0.8 * MOVES


CLIMBS = {
    # What the loss does in a step, given the learning rate, what it has been raised by, and whether it was ever too high.
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
        scheduler = scheduled(total_steps=1000)
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
