"""GreedyLR.paper and transformers.optimization.GreedyLR have the same learning rates, exactly, at every step."""

import math
import random
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from greedylr import Action, GreedyLR

Peer = getattr(pytest.importorskip("transformers.optimization"), "GreedyLR", None)
if Peer is None:
    pytest.skip("this version of transformers has no GreedyLR", allow_module_level=True)

# A state of transformers brings its settings, which are not those that these schedulers were given.
pytestmark = pytest.mark.filterwarnings("ignore:the loaded state has other settings")


def sgd(lrs):
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs], lr=0.1)


def paper(lrs, **settings):
    with warnings.catch_warnings():
        # An initial learning rate outside the bounds: the peer takes it without a word.
        warnings.simplefilter("ignore", UserWarning)
        return GreedyLR.paper(sgd(lrs), **settings)


def lrs_of(scheduler):
    return [group["lr"] for group in scheduler.optimizer.param_groups]


@st.composite
def settings_of(draw, groups):
    def bound(values):
        return draw(
            st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), min_size=groups, max_size=groups))
        )

    return {
        "mode": draw(st.sampled_from(["min", "max"])),
        "factor": draw(st.one_of(st.sampled_from([0.95, 0.5]), st.floats(0.05, 0.995))),
        "patience": draw(st.integers(0, 6)),
        "threshold": draw(st.sampled_from([0.0, 1e-6, 1e-3, 0.05, 0.3])),
        "threshold_mode": draw(st.sampled_from(["abs", "rel"])),
        "cooldown": draw(st.integers(0, 4)),
        "warmup": draw(st.integers(0, 4)),
        "min_lr": bound([0.0, 1e-6, 1e-3, 0.05]),
        "max_lr": bound([0.06, 0.2, 1.0, 10.0]),
        "eps": draw(st.sampled_from([0.0, 1e-8, 1e-3])),
        "smooth": draw(st.booleans()),
        "window_size": draw(st.integers(1, 60)),
        "reset_start": draw(st.sampled_from([1, 2, 3, 10, 500])),
    }


initial_lrs = st.lists(st.sampled_from([0.1, 0.05, 2e-5, 1e-7, 1.0, 30.0]), min_size=1, max_size=3)


def loss_sequence(seed, length, positive):
    """Constant, noisy, spiky, improving and worsening stretches, with values that come again."""
    r = random.Random(seed)
    losses, level = [], r.choice([1.0, 2.5, 100.0, 1e-3])
    while len(losses) < length:
        slope, noise, spikes = (
            r.choice([0, 0.01, -0.01, 0.1, -0.1]),
            r.choice([0, 0, 0.01, 0.5]),
            r.choice([0, 0, 0.05]),
        )
        rounding = r.choice([None, 1])
        for _ in range(r.randint(10, 80)):
            level *= 1 + slope * r.random()
            loss = level * (1 + noise * r.gauss(0, 1)) * (1 + 100 * (r.random() < spikes))
            loss = loss if rounding is None else round(loss, rounding)
            losses.append(max(abs(loss), 1e-9) if positive else loss - 1.0)
        # The peer's relative threshold is defective below zero; it is tested for itself.
        level = min(max(level, 1e-6), 1e6)
    return losses[:length]


cases = {
    "data": st.data(),
    "lrs": initial_lrs,
    "seed": st.integers(0, 2**32),
    "length": st.integers(50, 600),
}


def test_parity():
    steps, moves = 0, 0

    @settings(max_examples=800)
    @given(**cases)
    def lockstep(data, lrs, seed, length):
        nonlocal steps, moves
        arguments = data.draw(settings_of(len(lrs)))
        ours, peer = paper(lrs, **arguments), Peer(sgd(lrs), **arguments)
        for loss in loss_sequence(seed, length, positive=arguments["threshold_mode"] == "rel"):
            before = lrs_of(peer)
            ours.step(loss)
            peer.step(loss)
            assert lrs_of(ours) == lrs_of(peer)
            steps, moves = steps + 1, moves + (before != lrs_of(peer))
        assert ours.get_last_lr() == peer.get_last_lr()
        assert ours.last_epoch == peer.last_epoch

    lockstep()
    assert steps >= 100_000
    assert moves >= 10_000, "agreeing to do nothing is easy"


@settings(max_examples=60)
@given(**cases, watched=st.booleans(), as_tensor=st.booleans())
def test_parity_with_learning_rates_set_by_hand(data, lrs, seed, length, watched, as_tensor):
    arguments = data.draw(settings_of(len(lrs)))
    r = random.Random(seed)
    ours, peer = paper(lrs, **arguments), Peer(sgd(lrs), **arguments)
    if watched:
        ours.subscribe(lambda decision: None)
    for loss in loss_sequence(seed, length, positive=arguments["threshold_mode"] == "rel"):
        if r.random() < 0.05:
            group, lr = r.randrange(len(lrs)), r.choice([0.3, 1e-4, 0.05, 1, 0.0])
            ours.optimizer.param_groups[group]["lr"] = peer.optimizer.param_groups[group]["lr"] = lr
        ours.step(torch.tensor(loss, dtype=torch.float64) if as_tensor else loss)
        peer.step(loss)
        assert lrs_of(ours) == lrs_of(peer)
        if r.random() < 0.05:
            assert ours.get_last_lr() == peer.get_last_lr()


@settings(max_examples=100)
@given(**cases, other=st.data())
def test_checkpoints_carry_over(data, lrs, seed, length, other):
    """A state of the peer, saved at any step, goes on as the peer does, whatever the settings at construction."""
    arguments = data.draw(settings_of(len(lrs)))
    losses = loss_sequence(seed, length, positive=arguments["threshold_mode"] == "rel")
    cut = random.Random(seed).randrange(length)
    peer = Peer(sgd(lrs), **arguments)
    for loss in losses[:cut]:
        peer.step(loss)
    ours = paper([0.1] * len(lrs), **other.draw(settings_of(len(lrs))))
    ours.load_state_dict(peer.state_dict())
    assert lrs_of(ours) == lrs_of(peer)
    assert ours.last_epoch == peer.last_epoch == cut
    for name, value in arguments.items():
        # Bounds that all groups share are one bound again.
        same = isinstance(value, list) and len(set(value)) == 1
        value = value[0] if same else tuple(value) if isinstance(value, list) else value
        assert getattr(ours.config, name) == value
    for loss in losses[cut:]:
        ours.step(loss)
        peer.step(loss)
        assert lrs_of(ours) == lrs_of(peer)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("first", [True, False])
def test_a_poisoned_checkpoint_is_healed(mode, bad, first):
    """One loss that is not finite makes the peer cut for good; its checkpoint raises again here."""
    sign = 1 if mode == "min" else -1
    peer = Peer(sgd([0.1]), mode=mode, smooth=True, window_size=5, patience=2)
    for loss in [bad, 4.0, 3.9] if first else [4.0, 3.9, bad]:
        peer.step(sign * loss)
    saved = peer.state_dict()
    ours = GreedyLR.paper(sgd([0.1]))
    ours.load_state_dict(saved)
    seen = []
    ours.subscribe(seen.append)
    for step in range(40):
        peer.step(sign * (3.8 - 0.01 * step))
        ours.step(sign * (3.8 - 0.01 * step))
    assert all(math.isfinite(value) for decision in seen for value in decision.evidence.values())
    assert {decision.action for decision in seen} <= {Action.PATIENCE, Action.RAISED}
    assert ours.get_last_lr()[0] > 0.1
    if math.isnan(bad):
        assert peer.get_last_lr()[0] < 0.1


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_best_that_nothing_can_beat_is_healed(mode):
    sign = 1 if mode == "min" else -1
    peer = Peer(sgd([0.1]), mode=mode, patience=0)
    peer.step(sign * -math.inf)
    ours = GreedyLR.paper(sgd([0.1]))
    ours.load_state_dict(peer.state_dict())
    before = lrs_of(ours)
    for step in range(5):
        peer.step(sign * -step)
        ours.step(sign * -step)
    assert lrs_of(peer) < before < lrs_of(ours)


def test_settings_of_a_checkpoint_are_validated():
    """The peer accepts anything, so its checkpoint may hold anything."""
    saved = Peer(sgd([0.1]), patience=-5).state_dict()
    ours = GreedyLR.paper(sgd([0.1]))
    before = ours.state_dict()
    with pytest.raises(ValueError, match="patience must be an integer of at least 0, got -5"):
        ours.load_state_dict(saved)
    assert ours.state_dict() == before


def test_a_checkpoint_of_another_number_of_groups_is_rejected():
    ours = GreedyLR.paper(sgd([0.1]))
    with pytest.raises(ValueError, match="2 parameter groups, the optimizer has 1"):
        ours.load_state_dict(Peer(sgd([0.1, 0.2])).state_dict())


def test_a_checkpoint_of_the_peer_is_not_for_the_default_family():
    with pytest.raises(ValueError, match=r"load it into GreedyLR\.paper"):
        GreedyLR(sgd([0.1])).load_state_dict(Peer(sgd([0.1])).state_dict())


def test_groups_can_be_added_to_a_checkpoint_with_one_bound_for_all():
    peer = Peer(sgd([0.1, 0.1]), min_lr=[0.01, 0.01], max_lr=1.0)
    ours = GreedyLR.paper(sgd([0.1, 0.1]))
    ours.load_state_dict(peer.state_dict())
    assert (ours.config.min_lr, ours.config.max_lr) == (0.01, 1.0)
    ours.load_state_dict(Peer(sgd([0.1, 0.1]), min_lr=[0.01, 0.02]).state_dict())
    assert (ours.config.min_lr, ours.config.max_lr) == ((0.01, 0.02), 1.0)
