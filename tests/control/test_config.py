"""Settings are validated where they are given, and each of them does something."""

import copy
import dataclasses
import json
import math
import pickle
import random
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest
import torch

from greedylr.control import plain, rule
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig
from greedylr.control.settings import bounds_of, check_groups

NAN, INF = math.nan, math.inf
# No integer: wrong kinds, and what int() would quietly accept.
NO_INTEGER = [2.0, NAN, INF, True, "3", None, [3]]
NO_NUMBER = [True, "0.5", None, [0.5], 1j]

# By argument: values that are outside its range, values that are of another kind, values at the ends that are valid.
DEFAULT = {
    "mode": (["Min", "", None, 1], [], ["min", "max"]),
    "start_scale": ([0, 0.0, -0.1, 1.0000001, 2, NAN, INF], NO_NUMBER, [1e-12, 0.5, 1, 1.0]),
    "warmup_steps": ([-1, -5], [x for x in NO_INTEGER if x is not None], [None, 0, 1, 10**6]),
    "polyak": ([0, 0.0, -1, NAN, -INF], NO_NUMBER, [1e-12, 1e12, INF]),
    "headroom": ([0.99, 0, -1, NAN, INF], NO_NUMBER, [1, 1e12]),
    "catch_up_steps": ([-1, -5], [x for x in NO_INTEGER if x is not None], [None, 0, 1, 10**6]),
    "decade_steps": ([-1, -5], NO_INTEGER, [0, 1, 10**6]),
    "objection": ([-1e-9, NAN, INF, -INF], NO_NUMBER, [0, 0.0, 100.0]),
    "back_off": ([1, 1.0, 0.5, 0, -2, NAN, INF], NO_NUMBER, [1 + 1e-12, 1e12]),
    "window": ([1, 0, -5], [x for x in NO_INTEGER if x is not None], [None, 2, 10**6]),
    "significance": ([-1e-9, NAN, INF, -INF], NO_NUMBER, [0, 0.0, 100.0]),
    "factor": ([0, 0.0, 1, 1.0, -1, 1.5, NAN, INF], NO_NUMBER, [1e-12, 0.7, 1 - 1e-12]),
    "reflex_factor": ([0, 0.0, 1, 1.0, -0.5, 1.5, NAN, INF], NO_NUMBER, [1e-12, 1 - 1e-12]),
    "spike": ([0, 0.0, -1, NAN, INF], NO_NUMBER, [1e-12, 1e12]),
    "min_scale": (
        [-1e-9, 1.1, NAN, INF, [], [0.1, NAN], (0.1, 2)],
        [True, "0", None, [0.1, "1"], [None]],
        [0, 1, [0, 1]],
    ),
    "max_scale": ([0.9, 0, -1, NAN, INF, [], [2.0, 0.5]], [True, "2", None, [2, "1"]], [1, 1e9, [1, 2.0]]),
    "await_validation": ([], [0, 1, "yes", None], [True, False]),
    "total_steps": ([0, -1], [x for x in NO_INTEGER if x is not None], [None, 1]),
    "anneal": ([-0.1, 1.1, NAN, INF], NO_NUMBER, [0, 1, 0.5]),
}
PAPER = {
    "mode": (["Min", None], [], ["min", "max"]),
    "factor": ([0, 0.0, 1, 1.0, -1, 1.5, NAN, INF], NO_NUMBER, [1e-12, 1 - 1e-12]),
    "patience": ([-1, -5], NO_INTEGER, [0, 10**6]),
    "threshold": ([-1e-9, NAN, INF], NO_NUMBER, [0, 5.0]),
    "threshold_mode": (["relative", None, 1], [], ["abs", "rel"]),
    "cooldown": ([-1], NO_INTEGER, [0]),
    "warmup": ([-1], NO_INTEGER, [0]),
    "min_lr": ([-1, -1e-12, 1.1, NAN, INF, [], [0.1, NAN], [2.0, 0.0]], [True, "0", None, ["0"]], [0, 1.0, [0, 1]]),
    "max_lr": ([0, -1, 1e-4, NAN, [], [1.0, 1e-5]], [True, "1", None, ["1"]], [1e-3, INF, [1e-3, INF]]),
    "eps": ([-1e-12, NAN, INF], NO_NUMBER, [0, 1.0]),
    "smooth": ([], [0, 1, "yes", None], [True, False]),
    "window_size": ([0, -1], NO_INTEGER, [1]),
    "reset_start": ([0, -1], NO_INTEGER, [1]),
    "compare": (["last", None], [], ["best", "previous"]),
}


def cases(which):
    return [
        pytest.param(family, name, value, id=f"{family.__name__}-{name}={value!r}")
        for family, arguments in ((DefaultConfig, DEFAULT), (PaperConfig, PAPER))
        for name, values in arguments.items()
        for value in values[which]
    ]


@pytest.mark.parametrize(("family", "arguments"), [(DefaultConfig, DEFAULT), (PaperConfig, PAPER)])
def test_no_argument_is_forgotten_here(family, arguments):
    assert set(arguments) == {field.name for field in dataclasses.fields(family) if field.init}


@pytest.mark.parametrize(("family", "name", "value"), cases(0))
def test_out_of_range(family, name, value):
    with pytest.raises(ValueError) as caught:
        family(**{name: value})
    message = str(caught.value)
    # The argument, what is valid, and the value: that of the bad group if there is one per group.
    shown = [repr(value)] + ([repr(item) for item in value] if isinstance(value, (list, tuple)) else [])
    assert name in message
    assert " must be " in message
    assert any(text in message for text in shown)


@pytest.mark.parametrize(("family", "name", "value"), cases(1))
def test_of_another_kind(family, name, value):
    with pytest.raises(TypeError, match=rf"^{name} must be .*, got ") as caught:
        family(**{name: value})
    assert str(caught.value).split("got ")[-1] in repr(value)


@pytest.mark.parametrize(("family", "name", "value"), cases(2))
def test_ends_of_the_range(family, name, value):
    got = getattr(family(**{name: value}), name)
    assert got == (tuple(value) if isinstance(value, list) else value)


def test_what_depends_on_another_argument():
    with pytest.raises(ValueError, match=r"threshold must be .* < 1 \(relative\), got 1"):
        PaperConfig(threshold=1, threshold_mode="rel")
    with pytest.raises(ValueError, match=r"min_lr must be at most max_lr = 0.0001, group by group, got 0.001"):
        PaperConfig(max_lr=1e-4)
    with pytest.raises(ValueError, match=r"min_lr must be at most max_lr = \(1.0, 0.1\)"):
        PaperConfig(min_lr=[0.2, 0.2], max_lr=[1.0, 0.1])
    with pytest.raises(ValueError, match=r"min_lr and max_lr must be given for as many groups"):
        PaperConfig(min_lr=[0.1, 0.1], max_lr=[1.0, 1.0, 1.0])


DERIVED = {
    *("anneal_start", "decade", "window_length", "growth", "smoothing", "settled"),
    *("warmup", "memory", "catch_up", "catch_up_end", "hears_slope"),
    *("least_scale", "most_scale", "bounds_differ"),
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"decade": 0, "window_length": 50, "anneal_start": INF, "warmup": 20, "memory": 0.95}),
        ({}, {"catch_up": 10 ** (1 / 50), "catch_up_end": 500, "hears_slope": True}),
        ({"decade_steps": 100}, {"decade": 100, "smoothing": 0.92, "settled": 25, "warmup": 0, "catch_up": 1.0}),
        ({"total_steps": 1}, {"decade": 0, "window_length": 20, "anneal_start": 0, "warmup": 0, "catch_up": 10**0.1}),
        ({"total_steps": 2}, {"anneal_start": 0}),
        ({"total_steps": 2, "anneal": 0.4}, {"anneal_start": 1}),
        ({"total_steps": 1, "anneal": 0.4}, {"anneal_start": INF}),  # 0.4 of a step is none
        ({"total_steps": 2, "anneal": 0.0}, {"anneal_start": INF}),
        ({"total_steps": 2, "anneal": 1.0}, {"anneal_start": 0}),
        ({"anneal": 1.0}, {"anneal_start": INF}),
        ({"total_steps": 9}, {"warmup": 0}),
        ({"total_steps": 10}, {"warmup": 1}),
        ({"total_steps": 399}, {"memory": 0.75}),
        ({"total_steps": 800}, {"memory": 0.875, "catch_up": 10 ** (1 / 48), "catch_up_end": 320}),
        ({"total_steps": 1000}, {"warmup": 100, "window_length": 50, "anneal_start": 100}),
        ({"warmup_steps": 7, "catch_up_steps": 10}, {"warmup": 7, "catch_up": 10 ** (1 / 10), "catch_up_end": 500}),
        ({"catch_up_steps": 0}, {"catch_up": 1.0, "hears_slope": True}),
        ({"polyak": INF}, {"hears_slope": True}),
        ({"polyak": INF, "catch_up_steps": 0}, {"hears_slope": False}),
        ({"polyak": INF, "decade_steps": 9}, {"hears_slope": False}),
        ({"mode": "max"}, {"hears_slope": False}),
        ({"total_steps": 419}, {"window_length": 20}),
        ({"total_steps": 420}, {"window_length": 21}),
        ({"total_steps": 4019}, {"window_length": 200}),
        ({"decade_steps": 20_000}, {"window_length": 50, "smoothing": 1 - 1 / 2500}),
        ({"total_steps": 1000, "warmup_steps": 0, "window": 7}, {"decade": 0, "window_length": 7, "growth": 10.0}),
        ({"decade_steps": 1}, {"decade": 1, "growth": 10.0, "smoothing": 0.75, "settled": 8}),
        ({"decade_steps": 32}, {"growth": 10 ** (1 / 32), "smoothing": 0.75, "settled": 8}),
        ({"decade_steps": 33}, {"smoothing": 1 - 8 / 33, "settled": 9}),  # after 8.25 losses
        ({"decade_steps": 40}, {"smoothing": 0.8, "settled": 10}),
    ],
    ids=str,
)
def test_what_is_derived(settings, expected):
    config = DefaultConfig(**settings)
    assert {name: getattr(config, name) for name in expected} == pytest.approx(expected, rel=1e-15)
    assert type(config.settled) is type(config.decade) is type(config.window_length) is int


def test_what_is_derived_is_no_setting():
    """It is neither given nor compared nor shown, and follows when a setting is replaced."""
    assert {field.name for field in dataclasses.fields(DefaultConfig) if not field.init} == DERIVED
    config = DefaultConfig(total_steps=1000)
    for name in DERIVED:
        assert f"{name}=" not in repr(config)
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            DefaultConfig(**{name: 5})
    replaced = dataclasses.replace(config, total_steps=2000)
    assert replaced == DefaultConfig(total_steps=2000)
    assert (replaced.warmup, replaced.window_length, replaced.anneal_start) == (200, 100, 200)
    for copied in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert copied == config
        assert all(getattr(copied, name) == getattr(config, name) for name in DERIVED)


@pytest.mark.parametrize("name", ["bold_factor"])
def test_settings_that_are_gone_are_refused(name):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        DefaultConfig(**{name: 0.5})


@pytest.mark.parametrize("config", [DefaultConfig(min_scale=[0.1, 0.2]), PaperConfig(max_lr=[0.1, 0.2, 0.3])], ids=repr)
@pytest.mark.parametrize("groups", [1, 4])
def test_bounds_for_another_number_of_groups(config, groups):
    with pytest.raises(
        ValueError, match=rf"(min_scale|max_lr) has \d values, but the optimizer has {groups} parameter"
    ):
        rule.start(config, [0.1] * groups)
    check_groups(config, 2 if isinstance(config, DefaultConfig) else 3)


def test_bounds_of_groups():
    assert list(bounds_of(0.5, 2)) == [0.5, 0.5]
    assert list(bounds_of((0.5, 1.0), 2)) == [0.5, 1.0]


@pytest.mark.parametrize("family", [DefaultConfig, PaperConfig])
def test_frozen_to_the_bottom(family):
    bound = [1.0, 1.0]
    config = family(**({"min_scale": bound} if family is DefaultConfig else {"max_lr": bound}))
    bound[0] = 5.0
    assert 5.0 not in (getattr(config, "min_scale", None) or config.max_lr)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.factor = 0.5
    assert hash(config) == hash(dataclasses.replace(config))


def test_core():
    assert PaperConfig.core(0.5, "max") == PaperConfig(
        mode="max", factor=0.5, patience=0, threshold=0.0, min_lr=0.0, max_lr=INF, eps=0.0, compare="previous"
    )
    assert PaperConfig.core().factor == 0.95


@pytest.mark.parametrize("lr", [-1e-9, NAN, INF])
def test_learning_rates_that_are_none(lr):
    for config in (DefaultConfig(), PaperConfig()):
        with pytest.raises(ValueError, match=r"a learning rate must be a finite number of at least 0, got "):
            rule.start(config, [0.1, lr])
        with pytest.raises(ValueError, match=r"a learning rate must be a finite number of at least 0, got "):
            rule.add_group(config, rule.start(config, [0.1]), lr)
    with pytest.raises(ValueError, match="one learning rate per parameter group, got none"):
        rule.start(DefaultConfig(), [])


# Each setting, changed alone, changes what is done to the same losses; what another setting switches on comes first.
EFFECTS = [
    *[
        (DefaultConfig, {"warmup_steps": 0, "window": 20}, change)
        for change in (
            {"mode": "max"},
            {"decade_steps": 100},
            {"window": 10},
            {"window": None},
            {"significance": 1.0},
            {"factor": 0.8},
            {"reflex_factor": 0.7},
            {"spike": 60.0},
            {"min_scale": 0.9},
            {"max_scale": 1.1},
            {"await_validation": True},
            {"total_steps": 300},
        )
    ],
    (DefaultConfig, {"warmup_steps": 0}, {"warmup_steps": 5}),
    *[
        (DefaultConfig, {"warmup_steps": 0, "catch_up_steps": 20}, change)
        for change in ({"polyak": 0.1}, {"headroom": 1.0})
    ],
    (DefaultConfig, {"warmup_steps": 0, "catch_up_steps": 20, "headroom": 1.0}, {"catch_up_steps": 0}),
    (DefaultConfig, {"warmup_steps": 0, "total_steps": 300}, {"anneal": 0.5}),
    (DefaultConfig, {"warmup_steps": 0, "total_steps": 300}, {"anneal": 0.0}),
    *[
        (DefaultConfig, {"decade_steps": 30}, change)
        for change in (
            {"start_scale": 0.5},
            {"decade_steps": 31},
            {"objection": 30.0},
            {"back_off": 3.0},
            {"spike": 0.1},
            {"min_scale": 0.9},
            {"max_scale": 1.0},
            {"await_validation": True},
            {"total_steps": 300},
        )
    ],
    *[
        (PaperConfig, {"patience": 2, "min_lr": 0.05}, change)
        for change in (
            {"mode": "max"},
            {"factor": 0.8},
            {"patience": 3},
            {"threshold": 0.1},
            {"cooldown": 3},
            {"warmup": 3},
            {"min_lr": 0.06},
            {"max_lr": 0.11},
            {"eps": 0.0052},
            {"smooth": True},
            {"reset_start": 3},
            {"compare": "previous"},
        )
    ],
    (PaperConfig, {"patience": 2, "min_lr": 0.05, "threshold": 0.1}, {"threshold_mode": "rel"}),
    (PaperConfig, {"patience": 2, "min_lr": 0.05, "smooth": True}, {"window_size": 5}),
]


@pytest.mark.parametrize(("family", "base", "change"), EFFECTS, ids=str)
def test_every_setting_has_an_effect(family, base, change):
    r = random.Random(1)
    falling = [4.0 - 0.03 * step + r.gauss(0, 0.01) for step in range(85)]
    flat = [1.5 + r.gauss(0, 0.3) for step in range(200)]
    rising = [1.5 + 0.03 * step + r.gauss(0, 0.01) for step in range(400)]
    losses = [*falling, 10.0, 11.0, math.nan, *flat, *rising]
    if base.get("decade_steps", 0):  # a climb meets only what comes first
        losses = [*flat[:40], *rising]

    def trajectory(config):
        state = rule.start(config, [0.1])
        if "catch_up_steps" not in base:
            return [rule.observe(config, state, loss).lr_after for loss in losses]
        # A step promises half of the loss, at most: nothing to grow for, or to be held down.
        return [rule.observe(config, state, loss, max(loss, 1.0) / 2).lr_after for loss in losses]

    assert trajectory(family(**base)) != trajectory(family(**{**base, **change}))


def test_every_setting_is_in_the_test_above():
    for family in (DefaultConfig, PaperConfig):
        changed = {name for other, _, change in EFFECTS for name in change if other is family}
        assert changed == {field.name for field in dataclasses.fields(family) if field.init}


# Numbers of other libraries.


OTHERS = [
    numpy.float64, numpy.float32, numpy.array, torch.tensor, Fraction, lambda x: Decimal(str(x)), numpy.longdouble,
]  # fmt: skip


@pytest.mark.parametrize("of", OTHERS)
def test_real_numbers_of_others_are_settings(of):
    default = DefaultConfig(factor=of(0.5), spike=of(4.0), anneal=of(0.25), max_scale=of(2.0), min_scale=[of(0.5)])
    assert default == DefaultConfig(factor=0.5, spike=4.0, anneal=0.25, max_scale=2.0, min_scale=[0.5])
    paper = PaperConfig(factor=of(0.5), threshold=of(0.25), eps=of(0.0), min_lr=of(0.5), max_lr=(of(1.0), of(2.0)))
    assert paper == PaperConfig(factor=0.5, threshold=0.25, eps=0.0, min_lr=0.5, max_lr=(1.0, 2.0))
    for config in (default, paper):
        assert {type(value) for value in values_of(config)} <= {float, int, str, bool, type(None)}
        json.dumps(plain.to_dict(config), allow_nan=False)
    assert rule.start(DefaultConfig(warmup_steps=0), [of(0.5), of(0.25)]).lrs == (0.5, 0.25)
    assert {type(lr) for lr in rule.start(default, [of(0.5)]).lrs} == {float}


@pytest.mark.parametrize("of", [numpy.int64, numpy.uint8, numpy.array, torch.tensor])
def test_integers_of_others_are_settings(of):
    default = DefaultConfig(window=of(20), decade_steps=of(7), total_steps=of(100), objection=of(2))
    assert default == DefaultConfig(window=20, decade_steps=7, total_steps=100, objection=2)
    paper = PaperConfig(patience=of(3), cooldown=of(0), window_size=of(9), smooth=numpy.True_)
    assert paper == PaperConfig(patience=3, cooldown=0, window_size=9, smooth=True)
    for config in (default, paper):
        assert {type(value) for value in values_of(config)} <= {float, int, str, bool, type(None)}


@pytest.mark.parametrize("of", [numpy.array, torch.tensor, list, tuple])
def test_arrays_are_bounds(of):
    assert DefaultConfig(min_scale=of([0.5, 0.25])).min_scale == (0.5, 0.25)
    assert PaperConfig(max_lr=of([1.5, 2.5])).max_lr == (1.5, 2.5)
    assert {type(bound) for bound in DefaultConfig(max_scale=of([2.0, 3.0])).max_scale} == {float}


def values_of(config):
    values = [getattr(config, field.name) for field in dataclasses.fields(config)]
    return [item for value in values for item in (value if isinstance(value, tuple) else (value,))]


@pytest.mark.parametrize(
    "wrong",
    [
        *(True, numpy.True_, "0.5", numpy.str_("0.5"), numpy.array(True), torch.tensor(True), numpy.array("0.5")),
        *(0.5j, numpy.array(0.5j), torch.zeros((), device="meta"), numpy.zeros((2, 2)), None, ..., b"1"),
    ],
    ids=repr,
)
def test_what_is_no_number_is_refused(wrong):
    for build in (
        lambda: DefaultConfig(factor=wrong),
        lambda: DefaultConfig(max_scale=wrong),
        lambda: DefaultConfig(min_scale=[wrong]),
        lambda: PaperConfig(patience=wrong),
        lambda: PaperConfig(min_lr=[0.1, wrong]),
        lambda: rule.start(PaperConfig(), [wrong]),
    ):
        with pytest.raises(TypeError, match="must be"):
            build()


@pytest.mark.parametrize("huge", [10**400, -(10**400), Fraction(10**400), Decimal("1e400"), Decimal("sNaN")], ids=str)
def test_numbers_that_no_float_can_hold_are_refused(huge):
    builds = [lambda: DefaultConfig(spike=huge), lambda: DefaultConfig(max_scale=[huge]), lambda: PaperConfig(eps=huge)]
    builds.append(lambda: rule.start(PaperConfig(), [huge]))
    if isinstance(huge, int):
        builds += [lambda: DefaultConfig(total_steps=huge), lambda: PaperConfig(patience=huge)]
    for build in builds:
        with pytest.raises(ValueError, match="must be"):
            build()


def test_an_initial_learning_rate_has_room_for_the_climb():
    with pytest.raises(ValueError, match=r"times max_scale must be finite, got 1e\+308 times max_scale=1000.0"):
        rule.start(DefaultConfig(), [0.1, 1e308])
    assert rule.start(DefaultConfig(max_scale=[1e3, 1.0], warmup_steps=0), [0.1, 1e308]).lrs == (0.1, 1e308)


def test_losses_of_others_do_not_get_into_the_state():
    config = DefaultConfig(warmup_steps=0, window=9)
    state = rule.start(config, [0.1])
    for loss in (numpy.float32(0.5), torch.tensor(0.25), Fraction(1, 8)):
        assert type(rule.observe(config, state, loss).loss) is float
    assert state.losses == [0.5, 0.25, 0.125]
    assert {type(loss) for loss in state.losses} == {float}
