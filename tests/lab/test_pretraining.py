"""Weights that were trained before: made once, the same wherever they are made, and no run is disturbed by it."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from greedylr.lab.catalogue.problems import pretraining
from greedylr.lab.catalogue.problems.convex import LOGISTIC
from greedylr.lab.catalogue.problems.models import LowRank
from greedylr.lab.catalogue.problems.pretraining import Pretraining

MADE = Pretraining("logistic", partial(nn.Linear, 30, 2), LOGISTIC.load, lr=0.03, steps=20)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and nothing in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pretraining._kept.cache_clear()
    yield tmp_path / "greedylr" / "weights"
    pretraining._kept.cache_clear()


def same(one, two):
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_they_are_made_once_and_read_from_then_on(cache, monkeypatch):
    made = MADE.weights()
    assert [file.suffix for file in cache.iterdir()] == [".pt"]
    pretraining._kept.cache_clear()
    monkeypatch.setattr(torch.optim, "AdamW", lambda *_, **__: pytest.fail("made again"))
    assert same(MADE.weights(), made)


def test_they_have_learned():
    model, data = MADE.model(), MADE.load()
    torch.manual_seed(0)
    fresh = nn.functional.cross_entropy(nn.Linear(30, 2)(data.train.inputs), data.train.targets)
    model.load_state_dict(MADE.weights())
    assert nn.functional.cross_entropy(model(data.train.inputs), data.train.targets) < fresh / 2


def test_they_are_the_same_in_another_process_with_more_threads(cache, tmp_path):
    program = (
        "import torch; torch.set_num_threads(2); torch.manual_seed(7)\n"
        "from functools import partial\n"
        "from greedylr.lab.catalogue.problems.convex import LOGISTIC\n"
        "from greedylr.lab.catalogue.problems.pretraining import Pretraining\n"
        "Pretraining('logistic', partial(torch.nn.Linear, 30, 2), LOGISTIC.load, lr=0.03, steps=20).weights()"
    )
    mine = MADE.weights()
    (file,) = cache.iterdir()
    file.unlink()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert file.exists()
    pretraining._kept.cache_clear()
    assert same(MADE.weights(), mine)


def test_whoever_asks_draws_and_computes_as_before(cache):
    torch.manual_seed(3)
    expected = torch.rand(4)
    for _ in range(2):  # made, and read
        torch.manual_seed(3)
        MADE.weights()
        assert torch.equal(torch.rand(4), expected)
        pretraining._kept.cache_clear()


def test_each_asker_has_weights_of_its_own():
    MADE.weights()["weight"].zero_()
    assert MADE.weights()["weight"].abs().sum() > 0


def test_other_settings_are_other_weights(cache):
    MADE.weights()
    replace(MADE, steps=21).weights()
    replace(MADE, lr=0.01).weights()
    assert len(list(cache.iterdir())) == 3


def test_what_was_broken_off_leaves_nothing_that_is_taken_for_weights(cache, monkeypatch):
    def broken_off(weights, file):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", broken_off)
        with pytest.raises(KeyboardInterrupt):
            MADE.weights()
    assert not list(cache.glob("*.pt"))
    assert same(MADE.weights(), MADE.weights())


def test_adapters_alone_are_trained_and_begin_as_what_they_adapt():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Sequential(nn.ReLU(), nn.Linear(4, 3)))
    inputs = torch.randn(2, 5)
    expected, names = model(inputs), set(model.state_dict())
    adapted = LowRank.of(model, rank=2)
    assert torch.equal(adapted(inputs), expected)
    assert {name for name, _ in adapted.named_parameters()} == {"0.down", "0.up", "2.1.down", "2.1.up"}
    assert names <= set(adapted.state_dict())
    before = adapted.state_dict()["0.weight"].clone()
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(inputs).square().sum().backward()
        optimizer.step()
    assert torch.equal(adapted.state_dict()["0.weight"], before)
    assert not torch.allclose(adapted(inputs), expected)
