"""Every load restores a state that the rule can go on from for ever, or raises ValueError."""

import copy
import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greedylr.control import checkpoint, families, rule
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig
from greedylr.control.paper.peer import is_peer_state

NAN, INF = math.nan, math.inf
SLOPES = [1e-3, NAN, 0.3, 1e5, 0.0, INF, 1e-300, -1.0, 1e308, NAN, 2.0]

CONFIGS = [
    DefaultConfig(),
    DefaultConfig(decade_steps=20, window=5),
    DefaultConfig(warmup_steps=0, window=5, mode="max", min_scale=[0.1, 0.0], max_scale=[2.0, 3.0]),
    DefaultConfig(total_steps=120),
    DefaultConfig(total_steps=60, warmup_steps=0),
    PaperConfig(),
    PaperConfig.core(0.5),
    PaperConfig(mode="max", patience=2, threshold=0.1, threshold_mode="rel", cooldown=3, warmup=2, reset_start=2),
    PaperConfig(patience=1, smooth=True, window_size=5, min_lr=[0.01, 0.02], max_lr=0.4, reset_start=3, eps=0.0),
]


def mixed(r, steps):
    losses = [r.choice([0.0, 2.0, -3.0, 1e6]) + r.gauss(0, 1) * r.choice([0, 0.1, 1e3]) for _ in range(steps)]
    odd = [NAN, INF, -INF, 1e308, -1e308, 1.7976931348623157e308, 1e200, 5e-324, 0.0]
    return [r.choice(odd) if r.random() < 0.1 else loss for loss in losses]


def goes_on(config, state, losses):
    for number, loss in enumerate(losses):
        lrs = rule.observe(config, state, loss, SLOPES[number % len(SLOPES)]).lr_after
        assert all(0 <= lr < INF for lr in lrs)
    return checkpoint.save(config, state)


def saved_after(config, seed, steps):
    r = random.Random(seed)
    state = rule.start(config, [0.1, 0.3])
    return goes_on(config, state, mixed(r, steps))


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_every_state_that_the_rule_makes_can_be_loaded(config):
    for seed in range(6):
        r = random.Random(seed)
        state = rule.start(config, [0.1, 0.3])
        for loss in mixed(r, 150):
            saved = json.loads(json.dumps(checkpoint.save(config, state), allow_nan=False))
            again = checkpoint.load(saved, families.family_of(config).name)
            assert again == (config, state)
            rule.observe(config, state, loss)


ODD = [
    None, True, False, -1, 0, 1, 3, 10**400, -(10**400), 2**53 + 1, 0.5, -0.5, 1e308, -1e308, 1e-320, NAN, INF, -INF,
    "", "inf", "-inf", "nan", "0.5", "min", "max", "default", b"x", [], [0.1], [0.1, 0.3], [NAN, 0.1], [1e308, 1e308],
    [True, 0.1], ["a"], [[0.1], [0.1]], [1.0] * 50, {}, {"a": 1}, (), ..., 1j, {1, 2},
]  # fmt: skip


def mutate(data, draw):
    """One entry, at any depth, is another, gone, or new."""
    inner = data
    while True:
        name = draw(st.sampled_from(sorted(inner, key=repr) or ["empty"]))
        if name not in inner:
            return
        if not isinstance(inner[name], dict) or draw(st.integers(0, 9)) == 0:
            break
        inner = inner[name]
    kind = draw(st.integers(0, 19))
    if kind == 0:
        del inner[name]
    elif kind == 1:
        inner[draw(st.sampled_from(["new", 3, None]))] = 1
    else:
        inner[name] = draw(st.sampled_from(ODD) | st.floats() | st.integers(-3, 200))


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_a_damaged_state_is_refused_or_goes_on(config):
    states = [saved_after(config, seed, steps) for seed, steps in enumerate((0, 1, 7, 30, 100))]
    outcomes = set()

    @settings(max_examples=250, derandomize=True, deadline=None, database=None)
    @given(st.data())
    def load(data):
        saved = copy.deepcopy(data.draw(st.sampled_from(states)))
        for _ in range(data.draw(st.integers(1, 2))):
            mutate(saved, data.draw)
        try:
            loaded = checkpoint.load(saved, families.family_of(config).name)
        except ValueError:
            outcomes.add("refused")
            return
        outcomes.add("loaded")
        goes_on(*loaded, mixed(random.Random(0), 300))

    load()
    assert outcomes == {"refused", "loaded"}


@pytest.mark.parametrize("odd", [*ODD, [], "state", 3, [1, 2]], ids=repr)
@pytest.mark.parametrize("family", ["default", "paper"])
def test_anything_else_is_a_value_error(odd, family):
    nested = []
    for _ in range(5000):
        nested = [nested]
    config = DefaultConfig() if family == "default" else PaperConfig()
    good = checkpoint.save(config, rule.start(config, [0.1]))
    wrong = [odd, nested, {**good, "config": odd}, {**good, "state": odd}, {**good, "config": nested}]
    wrong += [{**good, "family": odd}] if odd != family else []
    wrong += [{**good, "state": {**good["state"], "losses": nested}}, {odd: 1} if isinstance(odd, str) else {3: 1}]
    for data in wrong:
        with pytest.raises(ValueError, match=r"state|must be|cannot restore"):
            checkpoint.load(data, family)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("noise", -1, r"noise in the saved state must be finite and at least 0, got -1"),
        ("initial_lrs", [1e308], "an initial learning rate times max_scale must be finite, got 1e"),
        ("climbed", -1, "climbed in the saved state must be from 0 to seen"),
        ("seen", -5, "seen in the saved state must be from 0 to 9007199254740992, got -5"),
        ("weight", 0.0, "weight in the saved state must be 0 before the climb, above 0 and at most 1 then, got 0"),
        ("scale", 1e4, r"scale in the saved state must be from 1e-05 to 1000.0, got 10000.0"),
        ("losses", [1.0], "losses in the saved state must be empty while climbing"),
        ("losses", [1.0] * 50, "losses in the saved state must be fewer than window_length=50"),
        ("ceiling", "inf", "ceiling in the saved state must be finite, got inf"),
        ("stop", 10**9, "stop in the saved state must be from 0 to 1, got 1000000000"),
        ("spike_step", 10**9, "spike_step in the saved state must be from -1 to step=3"),
        ("slope", -0.5, "slope in the saved state must be finite and at least 0, got -0.5"),
        ("least_polyak", -0.5, "least_polyak in the saved state must be at least 0, or -1.0, got -0.5"),
        ("variance", -0.5, "variance in the saved state must be at least 0, or -1.0, got -0.5"),
        ("total", True, "total must be a number, got True"),
        ("fell", 1, "fell must be True or False, got 1"),
    ],
)
def test_the_entry_and_what_would_be_valid_are_named(name, value, message):
    config = DefaultConfig(decade_steps=100)
    state = rule.start(config, [0.1])
    for loss in (3.0, 2.9, 2.8):
        rule.observe(config, state, loss)
    saved = checkpoint.save(config, state)
    saved["state"][name] = value
    with pytest.raises(ValueError, match=message):
        checkpoint.load(saved, "default")


# States of transformers.


def peer_state(smooth):
    data = {
        "factor": 0.9, "min_lrs": [1e-3, 1e-3], "max_lrs": [1.0, 2.0], "patience": 3, "verbose": False, "cooldown": 2,
        "warmup": 1, "cooldown_counter": 0, "warmup_counter": 1, "mode": "min", "threshold": 1e-6,
        "threshold_mode": "abs", "best": 2.0, "num_bad_epochs": 0, "num_good_epochs": 2, "eps": 1e-8, "last_epoch": 9,
        "smooth": smooth, "window_size": 5, "reset_start": 500, "reset_start_original": 500, "_last_lr": [0.1, 0.2],
        "_init_lrs": [0.1, 0.2],
    }  # fmt: skip
    if smooth:
        data["_streaming_avg"] = {"window_size": 5, "values": [3.0, 2.0, NAN], "sum": 5.0}
    return data


@pytest.mark.parametrize("smooth", [False, True])
def test_damaged_states_of_transformers_are_refused_or_go_on(smooth):
    good = peer_state(smooth)
    assert is_peer_state(good)
    goes_on(*checkpoint.load(good, "paper"), mixed(random.Random(0), 100))
    loaded = 0
    for name in good:
        gone = {key: value for key, value in good.items() if key != name}
        variants = [gone, *({**good, name: odd} for odd in ODD)]
        if name == "_streaming_avg":
            variants += [{**good, name: {**good[name], "values": odd}} for odd in ODD]
            variants += [{**good, name: {**good[name], "sum": odd}} for odd in ODD]
        for number, wrong in enumerate(variants):
            if number == 0 and name in ("verbose",):
                continue  # which nobody needs
            if number == 0:
                with pytest.raises(ValueError, match=rf"lacks the entry '{name}'"):
                    checkpoint.load(wrong, "paper")
                continue
            try:
                config, state = checkpoint.load(wrong, "paper")
            except ValueError:
                continue
            loaded += 1
            goes_on(config, state, mixed(random.Random(1), 60))
    assert loaded > 20


# The core rule has no upper bound.


def test_the_core_rule_stays_finite_and_loads_its_own_state():
    config = PaperConfig.core(0.5)
    state = rule.start(config, [0.1, 3.0])
    actions = [rule.observe(config, state, -float(step)).action.name for step in range(1200)]
    assert state.lrs == (1.7976931348623157e308,) * 2
    assert actions[-1] == "AT_MAX"
    assert checkpoint.load(checkpoint.save(config, state), "paper") == (config, state)
    assert rule.observe(config, state, 0.0).lr_after == (1.7976931348623157e308 / 2,) * 2
