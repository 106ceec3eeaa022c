"""The batched rule makes the scalar rule's decisions, exactly, whatever the array library."""

import math
import random

import numpy
import pytest
import torch

from greedylr.control import batched, rule
from greedylr.control.decision import Action
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig

STEPS = 400


def sequence(seed: int) -> list[float]:
    """Losses with every kind of trouble: trends, noise, level shifts, spikes alone and in runs, NaN, infinities."""
    r = random.Random(seed)
    level, slope, noise = r.choice([0.0, 2.5, -3.0, 1e6]), r.uniform(-0.02, 0.02), r.choice([0.0, 0.01, 0.3])
    losses, trouble = [], 0
    for step in range(STEPS):
        loss = level + slope * step + r.gauss(0.0, noise)
        if r.random() < 0.01:
            trouble = r.randint(1, 4)
        if trouble:
            trouble -= 1
            loss += r.choice([3.0, 10.0, 1e3, 1e160]) * r.random()
        if r.random() < 0.01:
            level += r.uniform(-2, 2)
        losses.append(r.choice([math.nan, math.inf, -math.inf]) if r.random() < 0.02 else loss)
    return losses


DEFAULTS = [
    DefaultConfig(),
    DefaultConfig(warmup_steps=0),
    DefaultConfig(mode="max", decade_steps=20, window=7, significance=0.5, spike=2.0),
    DefaultConfig(total_steps=350, decade_steps=70, anneal=0.5),
    DefaultConfig(warmup_steps=0, total_steps=350, anneal=0.5, window=20),
    DefaultConfig(warmup_steps=0, window=2, min_scale=0.5, max_scale=2.0, factor=0.5, reflex_factor=0.25),
    DefaultConfig(decade_steps=3, start_scale=1.0, window=3, max_scale=50.0, back_off=1.5, objection=0.5),
    DefaultConfig(decade_steps=33, start_scale=1e-4, objection=0.0, min_scale=0.0, spike=0.5, window=5),
    DefaultConfig(total_steps=STEPS, anneal=1.0),
    DefaultConfig(warmup_steps=0, total_steps=STEPS, anneal=1.0),
    DefaultConfig(decade_steps=150, total_steps=100, anneal=0.0, significance=0.0),
    DefaultConfig(await_validation=True, window=10, catch_up_steps=5),
    DefaultConfig(await_validation=True, decade_steps=20, total_steps=350, anneal=0.5, mode="max"),
]
PAPERS = [
    PaperConfig(),
    PaperConfig.core(0.5),
    PaperConfig(mode="max", patience=1, threshold=0.1, threshold_mode="rel", cooldown=3, warmup=2),
    PaperConfig(patience=2, smooth=True, window_size=5, min_lr=0.05, max_lr=0.2, reset_start=3, eps=0.0, factor=0.7),
    PaperConfig(patience=0, smooth=True, window_size=1, cooldown=1, threshold=0.0, factor=0.3, reset_start=2),
    PaperConfig(patience=0, min_lr=0.0, eps=0.01, factor=0.6, compare="previous"),
]


# Losses near the largest number, where sums and squares overflow, and losses without any noise.
CORNERS = [
    [1.7976931348623157e308] * STEPS,
    [1.7976931348623157e308, -1.7976931348623157e308] * (STEPS // 2),
    [2.0] * 40 + [1e308] * 3 + [2.0] * (STEPS - 43),
    [2.0] * 40 + [1e200] + [2.0] * 9 + [3.0] * (STEPS - 50),
    [0.0] * STEPS,
    [-4.0] * STEPS,
    [2.0 * 1.2**step for step in range(STEPS)],
    [2.0 * 0.9**step for step in range(STEPS)],
    [math.nan] * STEPS,
    [2.0] * 24 + [math.inf] * (STEPS - 24),
]


def slopes_of(seed: int, losses: list[float]) -> list[float]:
    """Of any size beside the loss, wandering, now and then not known or no slope at all."""
    r = random.Random(seed)
    size, slopes = r.choice([-3.0, -1.0, 0.0]), []
    for loss in losses:
        size = min(max(size + r.gauss(0, 0.1), -5.0), 3.0)
        usual = abs(loss) * 10**size * r.random() if math.isfinite(loss) else 1.0
        slopes.append(r.choice([math.nan, math.inf, 0.0, -1.0]) if r.random() < 0.05 else usual)
    return slopes


def validations_of(seed: int) -> list[float | None]:
    """What was told of validation before each loss, every tenth time or so: falling slowly, now and then not finite."""
    r, level = random.Random(seed), 0.0
    told: list[float | None] = []
    for _ in range(STEPS):
        level += r.gauss(-0.02, 0.05)
        value = r.choice([math.nan, math.inf, level + 9]) if r.random() < 0.05 else level
        told.append(value if r.random() < 0.1 else None)
    return told


def run_batched(config, initial_lrs, sequences, xp, asarray, slopes=None, validations=None):
    state = batched.start(config, asarray(initial_lrs), xp)
    for step, losses in enumerate(zip(*sequences)):
        if validations is not None and validations[step] is not None:
            # All are told at once, each another value.
            told = asarray([validations[step] + row / 100 for row in range(len(losses))])
            state = batched.validate(config, state, told, xp)
        told = None if slopes is None else asarray([of_row[step] for of_row in slopes])
        state, codes = batched.advance(config, state, asarray(losses), xp, told)
        yield [float(lr) for lr in state.lrs], [batched.ACTIONS[int(code)] for code in codes]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("config", DEFAULTS + PAPERS, ids=repr)
def test_every_decision_equals_the_scalar_one(config, known):
    sequences = [sequence(seed) for seed in range(30)] + CORNERS
    initial_lrs = [10.0 ** random.Random(seed).uniform(-5, 0) for seed in range(len(sequences))]
    scalar = [rule.start(config, [lr]) for lr in initial_lrs]
    slopes = [slopes_of(seed, losses) if known else [math.nan] * STEPS for seed, losses in enumerate(sequences)]
    validations = validations_of(7) if known and getattr(config, "await_validation", False) else None

    def over_arrays(xp):
        given = initial_lrs, sequences, xp, lambda x: xp.asarray(x, dtype=xp.float64), slopes if known else None
        return run_batched(config, *given, validations)

    seen = set()
    with numpy.errstate(all="ignore"):
        for step, (of_torch, of_numpy) in enumerate(zip(over_arrays(torch), over_arrays(numpy))):
            if validations is not None and validations[step] is not None:
                for row, state in enumerate(scalar):
                    rule.validate(config, state, validations[step] + row / 100)
            told = zip(scalar, sequences, slopes)
            decisions = [rule.observe(config, state, row[step], slope[step]) for state, row, slope in told]
            lrs, actions = [one.lr_after[0] for one in decisions], [one.action for one in decisions]
            assert of_torch == (lrs, actions), step
            assert of_numpy == (lrs, actions), step
            seen |= set(actions)
    assert len(seen) >= 3  # The sequences reach the corners that they are meant to.


def test_the_sequences_reach_every_action():
    seen = set()
    for config in DEFAULTS + PAPERS:
        for seed in range(30):
            state, losses = rule.start(config, [0.1]), sequence(seed)
            told = zip(losses, slopes_of(seed, losses))
            seen |= {rule.observe(config, state, loss, slope).action for loss, slope in told}
        for losses in CORNERS:
            state = rule.start(config, [0.1])
            seen |= {rule.observe(config, state, loss).action for loss in losses}
    # The first is of one run alone, and nothing is told of validation here.
    assert seen == set(batched.ACTIONS) - {Action.HORIZON, Action.VALIDATION_ROSE}


def test_a_validation_that_rose_is_told_in_both():
    config = DefaultConfig(warmup_steps=0, await_validation=True)
    state = batched.start(config, torch.ones(2, dtype=torch.float64), torch)
    for told in ([3.0, 3.0], [2.0, 4.0], [2.005, 4.0]):
        state = batched.validate(config, state, torch.tensor(told, dtype=torch.float64), torch)
    state, codes = batched.advance(config, state, torch.ones(2, dtype=torch.float64), torch)
    assert [batched.ACTIONS[code] for code in codes] == [Action.GATHERING, Action.VALIDATION_ROSE]
    assert state.lrs.tolist() == [1.0, 0.5]
    with pytest.raises(TypeError, match="the published algorithm observes one series of losses"):
        batched.validate(PaperConfig(), batched.start(PaperConfig(), torch.ones(2), torch), torch.ones(2), torch)


def test_one_run_does_not_see_the_others():
    config = DefaultConfig(decade_steps=20, window=5)
    sequences = [sequence(seed) for seed in range(8)]

    def last(rows):
        *_, (lrs, _) = run_batched(config, [0.1] * len(rows), rows, torch, torch.tensor)
        return lrs

    assert last(sequences) == [last([row])[0] for row in sequences]


def test_any_shape():
    config = DefaultConfig(warmup_steps=0, window=2)
    state = batched.start(config, torch.full((2, 3), 0.1, dtype=torch.float64), torch)
    for loss in (3.0, 3.1, 1.0, 1.1):
        state, codes = batched.advance(config, state, torch.full((2, 3), loss, dtype=torch.float64), torch)
    assert state.lrs.shape == codes.shape == (2, 3)
    assert (state.lrs > 0.1).all()


def test_bounds_per_group_are_refused():
    with pytest.raises(ValueError, match="min_lr must be one number for the batched rule, got"):
        batched.start(PaperConfig(min_lr=[0.1, 0.2]), torch.ones(2), torch)


@pytest.mark.parametrize("library", ["torch", "numpy"])
@pytest.mark.parametrize(
    "config",
    [DefaultConfig(decade_steps=20), DefaultConfig(warmup_steps=0, window=5, await_validation=True)],
    ids=repr,
)
def test_every_field_equals_the_scalar_one(config, library):
    """Not the decisions alone: whatever is remembered of the climb and of the windows."""
    xp = {"torch": torch, "numpy": numpy}[library]
    sequences = [sequence(seed) for seed in range(30)]
    state = batched.start(config, xp.asarray([0.1] * 30, dtype=xp.float64), xp)
    scalar = [rule.start(config, [0.1]) for _ in range(30)]
    same = set(state._fields) & {name for name in dir(scalar[0]) if not name.startswith("_")}
    # No ceiling is drawn as another number there, and the losses of the unfinished window are sums.
    same -= {"lrs", "initial_lrs", "ceiling"}
    assert {"climbing", "climbed", "total", "weight", "noise", "last", "first", "lowest", "fell", "scale"} <= same
    assert {
        "level",
        "slope",
        "least_polyak",
        "lowest_validation",
        "first_validation",
        "validation_rose",
        "granted",
    } <= same
    with numpy.errstate(all="ignore"):
        of_rows = [slopes_of(seed, losses) for seed, losses in enumerate(sequences)]
        for step, (losses, slopes) in enumerate(zip(zip(*sequences), zip(*of_rows))):
            told = [xp.asarray(column, dtype=xp.float64) for column in (losses, slopes)]
            if step % 13 == 0 and config.await_validation:
                state = batched.validate(config, state, told[0], xp)
                for one, loss in zip(scalar, losses):
                    rule.validate(config, one, loss)
            state, _ = batched.advance(config, state, told[0], xp, told[1])
            for one, loss, slope in zip(scalar, losses, slopes):
                rule.observe(config, one, loss, slope)
            for name in sorted(same):
                assert getattr(state, name).tolist() == [getattr(one, name) for one in scalar], (step, name)


@pytest.mark.parametrize("config", DEFAULTS, ids=repr)
def test_in_single_precision_it_decides_almost_alike(config):
    """As it is used on devices; decisions that hang on the last bits may differ, but nothing is lost to rounding."""
    r = random.Random(0)
    losses = [4 - 0.005 * step + r.gauss(0, 0.2) for step in range(STEPS)]
    ((*_, (single, _)), (*_, (double, _))) = (
        run_batched(config, [0.1], [losses], torch, lambda x, kind=kind: torch.tensor(x, dtype=kind))
        for kind in (torch.float32, torch.float64)
    )
    assert single[0] == pytest.approx(double[0], rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("library", ["torch", "numpy"])
@pytest.mark.parametrize(
    "config",
    [
        *(DefaultConfig(decade_steps=decade, window=5, spike=1e39) for decade in (0, 20)),
        DefaultConfig(decade_steps=20, window=5, objection=1e39, back_off=1e308),
        DefaultConfig(warmup_steps=0, window=5, significance=1e39, factor=1e-46, reflex_factor=1e-300),
        DefaultConfig(decade_steps=20, window=5, max_scale=1e300, min_scale=1e-60, start_scale=1e-50),
        PaperConfig(threshold=1e39, patience=1),
        PaperConfig(min_lr=1e39, max_lr=1e40, patience=1),
        PaperConfig(factor=1e-46, eps=1e39, patience=1),
        PaperConfig.core(0.5),
    ],
    ids=repr,
)
def test_settings_that_single_precision_cannot_hold(config, library):
    """They do what the largest or the least does that it can hold: nothing becomes infinite or NaN."""
    xp = {"torch": torch, "numpy": numpy}[library]
    r = random.Random(0)
    rows = [[4 - 0.005 * step + r.gauss(0, 0.2) for step in range(200)], [0.0] * 200, [-float(t) for t in range(200)]]
    asarray = {"torch": lambda x: torch.tensor(x, dtype=torch.float32), "numpy": lambda x: numpy.float32(x)}[library]
    scalar = [rule.start(config, [0.1]) for _ in rows]
    alike = total = 0
    with numpy.errstate(all="ignore"):
        for step, (lrs, actions) in enumerate(run_batched(config, [0.1] * 3, rows, xp, asarray)):
            assert all(0 <= lr < math.inf for lr in lrs)
            wanted = [rule.observe(config, state, row[step]).action for state, row in zip(scalar, rows)]
            alike, total = alike + sum(map(lambda a, b: a is b, actions, wanted)), total + 3
    assert alike > 0.8 * total


def test_counts_that_arrays_cannot_hold_are_refused():
    for config in (DefaultConfig(total_steps=2**31), PaperConfig(patience=2**31)):
        with pytest.raises(ValueError, match="must be at most 2147483647 for the batched rule, got 2147483648"):
            batched.start(config, torch.ones(2), torch)


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_sums_that_overflow_and_learning_rates_without_a_bound_are_as_in_the_scalar_rule(library):
    xp = {"torch": torch, "numpy": numpy}[library]
    smooth = PaperConfig(patience=1, smooth=True, window_size=4, min_lr=1e-9)
    rows = [[2.0, 1.7e308, 1.7e308, 3.0, 2.0, 1.0, 0.5] * 30, [-1.7e308] * 210, [2.0 - t for t in range(210)]]
    for config, initial in ((smooth, 0.1), (PaperConfig.core(0.5), 1e280)):
        scalar = [rule.start(config, [initial]) for _ in rows]
        with numpy.errstate(all="ignore"):
            together = run_batched(config, [initial] * 3, rows, xp, lambda x: xp.asarray(x, dtype=xp.float64))
            for step, (lrs, actions) in enumerate(together):
                decisions = [rule.observe(config, state, row[step]) for state, row in zip(scalar, rows)]
                assert (lrs, actions) == ([d.lr_after[0] for d in decisions], [d.action for d in decisions])
        assert all(math.isfinite(state.total) for state in scalar)
