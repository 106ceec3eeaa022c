"""What holds for the rule whatever the settings and the losses."""

import copy
import dataclasses
import itertools
import json
import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from greedylr.control import plain, rule
from greedylr.control.decision import Action
from greedylr.control.default.config import DefaultConfig
from greedylr.control.default.state import DefaultState
from greedylr.control.paper.config import PaperConfig
from greedylr.control.paper.state import PaperState
from greedylr.control.settings import bounds_of

finite = st.floats(allow_nan=False, allow_infinity=False)
ordinary = st.one_of(st.integers(-5, 5).map(float), st.floats(-100, 100), st.sampled_from([1e3, 50.0]))
any_loss = st.one_of(st.floats(), ordinary, ordinary, ordinary)
# Long enough for several of the short windows below.
any_losses = st.lists(any_loss, max_size=60)
NO_SLOPES = itertools.repeat(math.nan)
any_slopes = st.lists(st.one_of(st.floats(), st.floats(0, 10), st.floats(0, 10)), min_size=60, max_size=60)
initial_lrs = st.lists(st.sampled_from([0.1, 2e-5, 1.0, 0.0, 7e-9]), min_size=1, max_size=3)


@st.composite
def default_configs(draw, groups=1, **fixed):
    def bound(low, high):
        value = st.floats(low, high)
        return draw(st.one_of(value, st.lists(value, min_size=groups, max_size=groups)))

    arguments = {
        "mode": draw(st.sampled_from(["min", "max"])),
        "start_scale": draw(st.one_of(st.just(1.0), st.floats(1e-6, 1))),
        "warmup_steps": draw(st.one_of(st.just(0), st.integers(1, 10), st.none())),
        "polyak": draw(st.one_of(st.floats(0.1, 10), st.just(math.inf))),
        "headroom": draw(st.floats(1, 10)),
        "catch_up_steps": draw(st.one_of(st.just(0), st.integers(1, 10), st.none())),
        "decade_steps": draw(st.one_of(st.just(0), st.integers(1, 40))),
        "objection": draw(st.floats(0, 3)),
        "back_off": draw(st.floats(1.001, 50)),
        "window": draw(st.one_of(st.integers(2, 5), st.integers(2, 5), st.none())),
        "significance": draw(st.floats(0, 3)),
        "factor": draw(st.floats(0.01, 0.99)),
        "reflex_factor": draw(st.floats(0.01, 0.99)),
        "spike": draw(st.floats(0.1, 10)),
        "min_scale": bound(0, 1),
        "max_scale": bound(1, 50),
        "await_validation": draw(st.booleans()),
        "total_steps": draw(st.one_of(st.none(), st.integers(1, 60))),
        "anneal": draw(st.sampled_from([0.0, 0.2, 1.0])),
    }
    return DefaultConfig(**{**arguments, **fixed})


@st.composite
def paper_configs(draw, groups=1, **fixed):
    def bound(low, high):
        value = st.floats(low, high)
        return draw(st.one_of(value, st.lists(value, min_size=groups, max_size=groups)))

    arguments = {
        "mode": draw(st.sampled_from(["min", "max"])),
        "factor": draw(st.floats(0.01, 0.99)),
        "patience": draw(st.integers(0, 4)),
        "threshold": draw(st.floats(0, 0.9)),
        "threshold_mode": draw(st.sampled_from(["abs", "rel"])),
        "cooldown": draw(st.integers(0, 3)),
        "warmup": draw(st.integers(0, 3)),
        "min_lr": bound(0, 0.05),
        "max_lr": bound(0.05, 2),
        "eps": draw(st.sampled_from([0.0, 1e-8, 0.01])),
        "smooth": draw(st.booleans()),
        "window_size": draw(st.integers(1, 6)),
        "reset_start": draw(st.integers(1, 4)),
        "compare": draw(st.sampled_from(["best", "previous"])),
    }
    return PaperConfig(**{**arguments, **fixed})


def configs(groups=1, **fixed):
    return st.one_of(default_configs(groups, **fixed), paper_configs(groups, **fixed))


climbs = st.integers(1, 40).flatmap(
    lambda decade: default_configs(total_steps=None, decade_steps=decade, await_validation=False)
)


def comparable(decisions):
    """NaN is not equal to itself; its text is."""
    return [repr(decision) for decision in decisions]


def run(config, losses, lrs=(0.1,), slopes=NO_SLOPES):
    state = rule.start(config, lrs)
    return [rule.observe(config, state, loss, slope) for loss, slope in zip(losses, slopes)], state


@settings(max_examples=300)
@given(st.data(), initial_lrs, any_losses, any_slopes)
def test_learning_rates_stay_within_the_bounds(data, lrs, losses, slopes):
    config = data.draw(configs(len(lrs)))
    decisions, _ = run(config, losses, lrs, slopes)
    if isinstance(config, DefaultConfig):
        lows = [lr * low for lr, low in zip(lrs, bounds_of(config.min_scale, len(lrs)))]
        highs = [lr * high for lr, high in zip(lrs, bounds_of(config.max_scale, len(lrs)))]
    else:
        # A learning rate that starts outside stays between where it started and the bounds.
        lows = [min(lr, low) for lr, low in zip(lrs, bounds_of(config.min_lr, len(lrs)))]
        highs = [max(lr, high) for lr, high in zip(lrs, bounds_of(config.max_lr, len(lrs)))]
    for decision in decisions:
        assert all(low <= lr <= high for low, lr, high in zip(lows, decision.lr_after, highs))


@settings(max_examples=200)
@given(st.data(), any_losses, any_slopes, st.lists(st.lists(any_loss, max_size=2), min_size=60, max_size=60))
def test_nothing_rises_above_what_was_given_but_by_twice_at_a_validation_that_fell(data, losses, slopes, validations):
    config = data.draw(default_configs(await_validation=True))
    state, lowest, most = rule.start(config, [1.0]), math.inf, 1.0
    for loss, slope, told in zip(losses, slopes, validations):
        for validation in told:
            lower = validation if config.mode == "min" else -validation
            most = max(most, 2 * state.scale) if lower < lowest < math.inf else most
            lowest = min(lowest, lower) if math.isfinite(lower) else lowest
            rule.validate(config, state, validation)
        assert rule.observe(config, state, loss, slope).lr_after[0] <= most


@settings(max_examples=200)
@given(st.data(), initial_lrs, any_losses, any_slopes)
def test_replay_is_exact(data, lrs, losses, slopes):
    config = data.draw(configs(len(lrs)))
    (first, one), (second, other) = run(config, losses, lrs, slopes), run(config, losses, lrs, slopes)
    assert comparable(first) == comparable(second)
    assert one == other


@settings(max_examples=200)
@given(st.data(), initial_lrs, any_losses, any_losses, any_slopes)
def test_a_state_that_went_through_json_goes_on_exactly(data, lrs, before, after, slopes):
    config = data.draw(configs(len(lrs)))
    _, state = run(config, before, lrs, slopes)
    text = json.dumps([plain.to_dict(config), plain.to_dict(state)], allow_nan=False)
    saved_config, saved_state = json.loads(text)
    saved_config, saved_state = plain.from_dict(type(config), saved_config), plain.from_dict(type(state), saved_state)
    assert (saved_config, saved_state) == (config, state)
    for loss, slope in zip(after, slopes):
        go_on = repr(rule.observe(config, state, loss, slope))
        assert go_on == repr(rule.observe(saved_config, saved_state, loss, slope))
    assert saved_state == state


@settings(max_examples=200)
@given(st.data(), st.lists(st.one_of(st.floats(-1e30, 1e30), ordinary), max_size=60), st.integers(-60, 60))
def test_the_unit_of_the_loss_does_not_matter(data, losses, exponent):
    """The default family; exact for powers of two, whatever the losses (but for those that underflow)."""
    assume(all(loss == 0 or abs(loss) > 1e-60 for loss in losses))
    config, unit = data.draw(default_configs()), 2.0**exponent
    slopes = [slope for slope in data.draw(any_slopes) if slope == 0 or not abs(slope) <= 1e-60]
    slopes += [1.0] * len(losses)
    decisions, _ = run(config, losses, slopes=slopes)
    scaled, _ = run(config, [loss * unit for loss in losses], slopes=[slope * unit for slope in slopes])
    for one, other in zip(decisions, scaled):
        assert (one.action, one.lr_after) == (other.action, other.lr_after)
        units = {name: 1.0 if name == "polyak" else unit for name in one.evidence}  # a multiple, without a unit
        assert {name: value * units[name] for name, value in one.evidence.items()} == other.evidence


@settings(max_examples=100)
@given(default_configs(), st.integers(0, 2**32), st.floats(1e-6, 1e6))
def test_the_unit_of_the_loss_does_not_matter_by_any_factor(config, seed, unit):
    """The same for units that round: where nothing hangs on the last bit."""
    assume(config.significance > 1e-3)
    r = random.Random(seed)
    losses = [2 - 0.01 * step + r.gauss(0, 0.1) + 20 * r.random() * (r.random() < 0.02) for step in range(200)]
    decisions, _ = run(config, losses)
    scaled, _ = run(config, [loss * unit for loss in losses])
    assert [(d.action, d.lr_after) for d in decisions] == [(d.action, d.lr_after) for d in scaled]


@settings(max_examples=300)
@given(st.data(), initial_lrs, any_losses)
def test_a_reward_is_a_negative_loss(data, lrs, losses):
    config = data.draw(configs(len(lrs), mode="min"))
    decisions, _ = run(config, losses, lrs)
    mirrored, _ = run(dataclasses.replace(config, mode="max"), [-loss for loss in losses], lrs)
    for one, other in zip(decisions, mirrored):
        assert (one.action, one.lr_before, one.lr_after) == (other.action, other.lr_before, other.lr_after)
        assert one.evidence.keys() == other.evidence.keys()
        for name, value in one.evidence.items():
            expected = value if name in ("better", "worse", "standard_error") else -value
            assert other.evidence[name] == expected


def without(state, config, *, step_shift):
    """A state as data, less what a loss that is not finite may change: learning rates and the count of steps."""
    data = plain.to_dict(state)
    del data["lrs"]
    if isinstance(config, DefaultConfig):
        del data["scale"]
        data["seen"] -= step_shift
        # Steps are counted from the start; what matters is whether it was the last one.
        data["spike_step"] = state.spike_step == state.step
    else:
        data["step"] -= step_shift
    return data


@settings(max_examples=300)
@given(
    st.data(),
    any_losses,
    any_losses,
    st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=3),
)
def test_nothing_is_learnt_from_a_loss_that_is_not_finite(data, before, after, bad):
    """It costs its own cut: the rest of the state is that of the run without it, now and at every step after."""
    # A horizon and the warmup count every observation, a climb ends.
    kept = {"total_steps": None, "warmup_steps": 0, "decade_steps": 0}
    config = data.draw(st.one_of(default_configs(**kept), paper_configs(min_lr=0.0, eps=0.0)))
    # Bounds and resets depend on the learning rate, which the cut has changed: out of the way.
    wide = (
        {"min_scale": 0.0, "max_scale": 1e300, "await_validation": False}
        if isinstance(config, DefaultConfig)
        else {"max_lr": math.inf}
    )
    config = dataclasses.replace(config, **wide)
    before, after = (list(filter(math.isfinite, losses)) for losses in (before, after))
    _, clean = run(config, before)
    hit = copy.deepcopy(clean)
    factor = config.reflex_factor if isinstance(config, DefaultConfig) else config.factor
    for loss in bad:
        decision = rule.observe(config, hit, loss)
        assert decision.action is Action.NON_FINITE
        assert decision.lr_after[0] == pytest.approx(decision.lr_before[0] * factor, rel=1e-12)
        assert decision.evidence == {}
    shift = len(bad)
    assert without(hit, config, step_shift=shift) == without(clean, config, step_shift=0)
    for loss in after:
        one, other = rule.observe(config, hit, loss), rule.observe(config, clean, loss)
        assert (one.action, one.evidence) == (other.action, other.evidence)
        assert one.lr_after[0] == pytest.approx(other.lr_after[0] * factor**shift, rel=1e-9)
        assert without(hit, config, step_shift=shift) == without(clean, config, step_shift=0)


@settings(max_examples=300)
@given(climbs, any_losses, st.sampled_from([math.nan, math.inf, -math.inf]), any_losses)
def test_two_losses_that_are_not_finite_end_the_climb_and_enter_nothing(config, before, bad, after):
    """But for the count of the steps after one, and the scale and the end of the climb after two, nothing changes."""
    _, state = run(config, before)
    assume(state.climbing)
    in_a_row = state.spike_step == state.step > 0
    hit = copy.deepcopy(state)
    for second in (False, True):
        decision = rule.observe(config, hit, bad)
        assert (decision.action, decision.evidence) == (Action.NON_FINITE, {})
        assert hit.spike_step == hit.step
        assert hit.climbing == (not second and not in_a_row)
        if hit.climbing:
            assert (hit.scale, hit.lrs) == (state.scale, state.lrs)
        elif in_a_row:
            break
    least, most = state.scale / (2 * config.back_off), state.scale / config.back_off
    low, high = bounds_of(config.min_scale, 1)[0], bounds_of(config.max_scale, 1)[0]
    assert hit.scale == min(max(min(max(1.0, least), most), low), high)
    changed = {"lrs", "scale", "climbing", "seen", "stop", "spike_step"}
    one, other = plain.to_dict(state), plain.to_dict(hit)
    assert {name: one[name] for name in one.keys() - changed} == {name: other[name] for name in one.keys() - changed}
    # There is no other climb.
    for loss in after:
        assert rule.observe(config, hit, loss).action not in (Action.CLIMBING, Action.BACKED_OFF)


@settings(max_examples=300)
@given(st.data(), initial_lrs, any_losses)
def test_a_climb_grows_steadily_until_it_is_over(data, lrs, losses):
    """By the same factor at every loss, up to the bounds; once over, never again."""
    config = data.draw(default_configs(len(lrs), decade_steps=data.draw(st.integers(1, 40))))
    lows, highs = bounds_of(config.min_scale, len(lrs)), bounds_of(config.max_scale, len(lrs))
    highest = 1.0 if config.await_validation else max(highs)
    state = rule.start(config, lrs)
    assert state.climbing == (config.anneal_start > 0)
    for loss in losses:
        before, climbing, in_a_row = state.scale, state.climbing, state.spike_step == state.step
        action = rule.observe(config, state, loss).action
        assert not state.climbing or climbing
        if climbing and (action is Action.SPIKE or (action is Action.NON_FINITE and not in_a_row)):
            assert (state.scale, state.climbing) == (before, state.step < config.anneal_start)
        elif climbing and action not in (Action.BACKED_OFF, Action.NON_FINITE, Action.EXPLOSION):
            assert action in (Action.CLIMBING, Action.ANNEALING)
            assert state.scale == min(max(before * config.growth, min(lows)), highest)
            assert state.climbing == (state.step < config.anneal_start and state.scale != before)
        elif climbing:
            assert state.scale <= max(before / config.back_off, min(lows))
            assert not state.climbing
        else:
            assert action not in (Action.CLIMBING, Action.BACKED_OFF)


@settings(max_examples=200)
@given(st.data(), any_losses, any_slopes)
def test_no_state_ever_holds_what_is_not_a_number(data, losses, slopes):
    config = data.draw(configs())
    if isinstance(config, PaperConfig) and config.smooth:
        # The running sum is the published one, which overflows near the largest float.
        losses = [loss for loss in losses if not 1e306 < abs(loss) < math.inf]
    state = rule.start(config, [0.1])
    for loss, slope in zip(losses, slopes):
        decision = rule.observe(config, state, loss, slope)
        values = [getattr(state, field.name) for field in dataclasses.fields(state)] + [*decision.evidence.values()]
        assert not any(isinstance(value, float) and math.isnan(value) for value in values)
        assert all(map(math.isfinite, [*decision.lr_after, *state.losses]))
        if isinstance(config, DefaultConfig):
            assert math.isfinite(state.mean)
            assert math.isfinite(state.ceiling)
            assert 0 <= state.noise < math.inf
            assert math.isfinite(state.level)
            assert 0 <= state.slope < math.inf


@settings(max_examples=200)
@given(st.data(), any_losses, st.one_of(any_slopes, st.just([math.nan] * 60)))
def test_what_an_action_says_is_what_happened(data, losses, slopes):
    config = data.draw(configs())
    warmup = config.warmup if isinstance(config, DefaultConfig) else 0
    for decision in run(config, losses, slopes=slopes)[0]:
        (before,), (after,) = decision.lr_before, decision.lr_after
        known = not math.isnan(slopes[decision.step - 1]) and isinstance(config, DefaultConfig)
        if decision.action in (Action.GATHERING, Action.NOT_SIGNIFICANT, Action.AT_MAX, Action.AT_MIN):
            assert after == before
        elif known or (decision.action is Action.WARMING_UP and decision.step >= config.anneal_start):
            pass  # The limit moves as well, and so does the annealing in a run that is shorter than its warmup.
        elif decision.action is Action.RAISED:
            assert after > before or after == before == 0.0
            assert decision.raised
        elif decision.action is Action.CLIMBING:
            assert after >= before
        elif decision.action in (Action.CUT, Action.NON_FINITE, Action.EXPLOSION, Action.BACKED_OFF):
            assert after <= before
        elif decision.action not in (Action.RESET, Action.ANNEALING, Action.SPIKE):
            assert after == before or (after > before and warmup >= decision.step)
        names = ("CUT", "NON_FINITE", "EXPLOSION", "BACKED_OFF")
        assert decision.cut == (decision.action.name in names and after != before)
        assert decision.raised == (decision.action is Action.RAISED)


@pytest.mark.parametrize("config", [DefaultConfig(), PaperConfig(min_lr=0.0)], ids=repr)
def test_states_are_independent(config):
    _, state = run(config, [1.0, 2.0, 3.0])
    before = copy.deepcopy(state)
    other = plain.from_dict(type(state), plain.to_dict(state))
    for loss in range(100):
        rule.observe(config, other, loss)
    assert state == before


def test_plain_data_is_plain():
    """Numbers, strings, booleans, None, and lists of numbers; NumPy's float is turned into Python's."""
    numpy = pytest.importorskip("numpy")
    half = numpy.float64(0.5)
    for record in (
        DefaultConfig(factor=half, reflex_factor=half, min_scale=[half, 0], total_steps=9),
        PaperConfig(max_lr=(math.inf, half), min_lr=half, factor=half),
        DefaultState((half,), (0.5,), losses=[half]),
        PaperState((0.5,), (0.5,)),
    ):
        data = plain.to_dict(record)
        for value in data.values():
            values = value if type(value) is list else [value]
            assert {type(item) for item in values} <= {int, float, str, bool, type(None)}
        assert plain.from_dict(type(record), json.loads(json.dumps(data, allow_nan=False))) == record


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("lrs", value) for value in (["0.1"], [math.nan], [None], [[0.1]], 0.1, "inf", None, [True])],
        *[("initial_lrs", value) for value in (None, ["x"])],
        *[("losses", value) for value in (None, ["x"], "abc", [math.nan], 1.0)],
        *[("scale", value) for value in (None, "x", [1.0], math.nan, True)],
        *[("climbed", value) for value in (0.5, None, True, "1")],
        *[("climbing", value) for value in (0, None, "yes")],
    ],
)
def test_corrupt_data_is_rejected(name, value):
    data = {**plain.to_dict(rule.start(DefaultConfig(), [0.1])), name: value}
    with pytest.raises(ValueError, match=rf"cannot restore DefaultState: {name} must be "):
        plain.from_dict(DefaultState, data)


def test_incomplete_data_is_rejected():
    data = plain.to_dict(rule.start(DefaultConfig(), [0.1]))
    data["speed"] = data.pop("scale")
    with pytest.raises(ValueError, match=r"missing entries \['scale'\], unknown entries \['speed'\]"):
        plain.from_dict(DefaultState, data)
    # The derived settings are no part of what is saved.
    assert "growth" not in plain.to_dict(DefaultConfig())
    with pytest.raises(ValueError, match="cannot restore PaperState"):
        plain.from_dict(PaperState, data)
    with pytest.raises(ValueError, match="factor must be"):
        plain.from_dict(PaperConfig, {**plain.to_dict(PaperConfig()), "factor": 2.0})
