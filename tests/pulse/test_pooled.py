"""Many moves judged together: seldom decided where they do nothing, decided where they do something, and said so."""

from dataclasses import replace

import numpy as np
import pytest

from greedylr import DefaultConfig, GreedyLR
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.pooled import LONGEST, Pooled, pool
from greedylr.pulse.report import words

FAMILIES = {
    "default": {"warmup_steps": 0, "config": DefaultConfig(window=20)},
    "paper": {"patience": 5, "min_lr": 1e-3, "smooth": True, "window_size": 20, "factor": 0.9},
}


@pytest.fixture
def trained(scheduled, tmp_path, monkeypatch):
    """Makes records of losses that fall, have noise, and stand the higher the higher the learning rate is."""

    def train(family, seed, floor=0.0, noise=0.1, alike=0.0, steps=2000, mode="min"):
        scheduler = (
            scheduled(**FAMILIES[family], mode=mode)
            if family == "default"
            else GreedyLR.paper(scheduled().optimizer, **FAMILIES[family])
        )
        random, wave, above = np.random.default_rng(seed), 0.0, floor * 0.1
        folder = tmp_path / f"{family}-{seed}-{floor}-{alike}-{mode}"
        with Recorder(folder, scheduler):
            for step in range(steps):
                above += (floor * scheduler.optimizer.param_groups[0]["lr"] - above) / 8
                wave = alike * wave + np.sqrt(1 - alike**2) * random.standard_normal()
                loss = 0.5 + 2.5 * np.exp(-step / 600) + above + noise * wave
                scheduler.step(loss if mode == "min" else -loss)
        return Trace.load(folder)

    return train


def whole(judged):
    return {one.kind: one for one in judged if one.phase is None}


@pytest.mark.parametrize("alike", [0.0, 0.7])
@pytest.mark.parametrize("family", FAMILIES)
def test_moves_that_do_nothing_are_seldom_decided_upon(trained, family, alike):
    judged = [one for seed in range(10) for one in whole(pool(trained(family, seed, alike=alike))).values()]
    assert len(judged) >= 10
    assert sum(one.decided for one in judged) <= 2
    deviations = np.array([one.effect / one.standard_error for one in judged])
    assert abs(deviations.mean()) < 0.6
    assert 0.5 < deviations.std() < 1.4


def test_what_raises_do_is_seen_and_has_its_sign(trained):
    judged = [whole(pool(trained("default", seed, floor=6.0, noise=0.03)))["raises"] for seed in range(6)]
    assert sum(one.decided for one in judged) >= 4
    assert all(one.effect > 0 for one in judged)


def test_a_reward_is_judged_as_the_loss_that_it_is_not(trained):
    loss, reward = (whole(pool(trained("default", 3, floor=6.0, mode=mode))) for mode in ("min", "max"))
    assert reward["raises"] == pytest.approx(loss["raises"], nan_ok=True)


def test_thirds_are_parts_of_the_whole(trained):
    judged = pool(trained("paper", 1))
    for kind, one in whole(judged).items():
        parts = [other.moves for other in judged if other.kind == kind and other.phase is not None]
        assert all(10 <= moves < one.moves for moves in parts)
        assert sum(parts) <= one.moves


def test_the_same_record_has_the_same_verdict(trained):
    trace = trained("paper", 2)
    assert pool(trace) == pool(trace)
    assert pool(trace) != pool(trace, seed=1)


def test_what_cannot_be_played_again_has_none(trained):
    trace = trained("paper", 0)
    assert pool(trace)
    assert pool(replace(trace, config={"mode": "min"})) == []
    assert pool(replace(trace, config={**trace.config, "unheard_of": 1})) == []
    assert pool(replace(trace, first_lrs=np.array([np.nan]))) == []
    assert pool(replace(trace, decisions=[])) == []
    gap = np.r_[0:100, 200 : len(trace.steps)]
    assert pool(replace(trace, steps=trace.steps[gap], losses=trace.losses[gap], lrs=trace.lrs[gap])) == []
    many = np.arange(1, LONGEST + 2)
    assert pool(replace(trace, steps=many, losses=np.ones(len(many)), lrs=np.ones((len(many), 1)))) == []


def test_steps_that_a_single_move_needs():
    # An error of 0.01 for 25 moves is 0.05 for one, a fall of 0.1 and a raise of a tenth an effect of 0.01.
    one = Pooled("raises", None, 25, -0.001, 0.01, 0.9, 0.1, 117)
    assert pytest.approx(one.steps, rel=0.01) == 20 * (2.8 * 0.05 / 0.01) ** (2 / 3)


@pytest.mark.parametrize(
    ("judged", "said"),
    [
        (Pooled("raises", None, 7, 0.02, 0.005, 0.01, 0.1, None), "fell 20 % slower than it would have [10, 30]."),
        (
            Pooled("cuts", None, 7, -0.02, 0.005, 0.01, 0.0, None),
            "0.02 lower than it would have [0.0102, 0.0298].",
        ),
        (
            Pooled("cuts", None, 7, 0.02, 0.05, 0.7, 0.0, None),
            "0.02 higher than it would have [-0.078, 0.118] may",
        ),
    ],
)
def test_it_is_said(judged, said):
    assert said in words.pooled(judged)
