"""The shipped rule agrees, decision by decision, with slow transcriptions of what it is described to be."""

import collections
import itertools
import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greedylr.control import rule
from greedylr.control.decision import Action
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig


def default_by_the_book(config, initial_lrs, losses, slopes, validations):
    """The maths of DefaultConfig's docstring with plain lists; yields the action and the learning rates.

    Whatever has a closed form is computed from all the losses again at every step. The first pair is the start.
    """
    lows, highs = per_group(config.min_scale, initial_lrs), per_group(config.max_scale, initial_lrs)
    total = config.total_steps
    last_part = 0 if total is None else round(config.anneal * total)
    decade, warmup, catch_up = config.decade_steps, config.warmup_steps, config.catch_up_steps
    climbing = decade > 0 and last_part != total
    if warmup is None:
        warmup = 20 if total is None else total // 10
    if catch_up is None:
        catch_up = 50 if total is None else max(10, round(0.06 * total))
    if climbing:
        warmup = catch_up = 0
    gamma = 1 - 1 / (20 if total is None else max(4, total / 100))
    window = config.window
    if window is None:
        window = 50 if total is None else max(20, min(total // 20, 200))
    tau = max(4, decade / 8)
    beta = 1 - 1 / tau
    settled = math.ceil(2 * tau)

    scale = config.start_scale if climbing else 1.0
    granted, validated = 1.0, []
    promises, kept = [], []  # of the steps since the lowest validation loss; shares of it

    def bounded(scale):
        return min(max(scale, min(lows)), min(max(highs), granted if config.await_validation else math.inf))

    scale = bounded(scale)
    climbed, smoothed, variances = [], [], []  # of the losses of the climb; smoothed[t - 1] is m_t
    full, unfinished = [], []
    ceiling, extraordinary_before = None, False
    heard = []  # losses and slopes
    polyaks = []  # Polyak's step at each of them, where there is one

    def line(level, deviation):
        return level + config.spike * max(deviation, abs(level) / 100)

    def share(step):
        if step + 1 < warmup:
            return math.sqrt((step + 1) / warmup)
        return max(total - step, 0) / last_part if last_part > 0 and step >= total - last_part else 1.0

    def polyak():
        n = len(heard)
        level, slope = [math.fsum(gamma ** (n - i) * x for i, x in enumerate(column, 1)) for column in zip(*heard)]
        return level / slope if level > 0 and slope > 0 else None

    def limit():
        return config.polyak * polyaks[-1] if polyaks and polyaks[-1] is not None else math.inf

    def limited(step):
        return scale * share(step) > limit()

    def rates(step):
        multiple = min(scale * share(step), limit())
        return tuple([lr * min(max(multiple, low), high) for lr, low, high in zip(initial_lrs, lows, highs)])

    def objects():
        """Whether the last loss ends the climb, after entering it."""
        t = len(climbed)
        powers = [beta ** (t - i) for i in range(1, t + 1)]
        smoothed.append(math.fsum(p * x for p, x in zip(powers, climbed)) / math.fsum(powers))
        if t <= settled:
            return False

        def error(i):  # e_i
            deviation = max(math.sqrt(variances[i - 2]), abs(smoothed[i - 1]) / 100)
            return math.sqrt((1 - beta) / (1 + beta)) * deviation

        judged = range(settled + 1, t + 1)
        start = smoothed[settled - 1]
        fell = any(smoothed[i - 1] < start - math.sqrt(2) * config.objection * error(i) for i in judged)
        asked = config.objection if fell else 2 * config.objection
        return smoothed[-1] > min(smoothed[settled - 1 : -1]) + asked * error(t)

    def noise():
        """The variance of all losses of the climb, from their successive differences."""
        variance = 0.0
        for t in range(2, len(climbed) + 1):
            half_square = (climbed[t - 1] - climbed[t - 2]) ** 2 / 2
            variance += max(1 / (2 * tau), 1 / (t - 1)) * (half_square - variance)
        return variance

    def back_off():
        return min(max(1.0, scale / (2 * config.back_off)), scale / config.back_off)

    yield None, rates(0)
    rates_before = rates(0)
    for step, (given_loss, slope, told) in enumerate(zip(losses, slopes, validations), start=1):
        grew = rose = False
        for validation in told if config.await_validation else ():
            lower = validation if config.mode == "min" else -validation
            lowest = min(validated, default=None)
            above = math.inf if lowest is None or not math.isfinite(lower) else lower - lowest
            rose = rose or (lowest is not None and above > max(0, validated[0] - lowest) / 100)
            if math.isfinite(lower) and (lowest is None or lower < lowest):
                fell, promised = math.inf if lowest is None else lowest - lower, math.fsum(promises)
                grants = lowest is not None
                if lowest is not None and promised > 0:
                    kept.append(fell / promised)
                    grants = kept[-1] >= 1 / 20 and kept[-1] >= max(kept) / 2
                    if total is not None and lower > 0:
                        slopes_heard = enumerate((g for _, g in heard), 1)
                        slope_now = math.fsum((1 - gamma) * gamma ** (len(heard) - i) * g for i, g in slopes_heard)
                        grants = grants and kept[-1] * slope_now * scale * (total - step + 1) / 2 < lower
                granted = max(granted, 2 * scale) if grants else granted
                promises = []
            validated += [lower] if math.isfinite(lower) else []
        if config.mode == "min" and math.isfinite(given_loss) and math.isfinite(slope) and slope >= 0:
            heard.append((given_loss, slope))
            promises.append(slope * (rates_before[0] / initial_lrs[0]))
            polyaks.append(polyak())
            known = [one for one in polyaks if one is not None]
            end = 500 if total is None else 0.4 * total
            if catch_up > 0 and warmup / 2 <= step < end and known and scale < min(known) / config.headroom:
                grown = bounded(scale * 10 ** (1 / catch_up))
                scale, grew = grown, grown != scale
        loss = given_loss if config.mode == "min" else -given_loss
        # The learning rate is the loss's to decide where the schedule does not set it.
        anneals = last_part > 0 and step >= total - last_part
        scheduled = anneals or step - window < warmup  # the newer of two windows that end here, or a part of it
        if rose:
            cut = bounded(back_off() if climbing else scale * config.reflex_factor)
            climbing, granted, rose, scale = False, cut, cut != scale, cut
        before = scale
        if not math.isfinite(loss):
            action = Action.NON_FINITE
            if climbing and not extraordinary_before:
                extraordinary_before = True
            else:
                scale = back_off() if climbing else scale * config.reflex_factor
                climbing = False
        elif ceiling is not None and loss > ceiling:
            action = Action.SPIKE
            if extraordinary_before:
                action = Action.EXPLOSION
                scale = back_off() if climbing else scale * config.reflex_factor
                climbing = False
                unfinished = []
                ceiling = line(loss, statistics.stdev(full[-1]) if full else math.sqrt(variances[-1]))
            extraordinary_before = True
        elif climbing:
            extraordinary_before = False
            climbed.append(loss)
            if objects():
                action = Action.BACKED_OFF
                scale = back_off()
                climbing = False
                ceiling = line(max(loss, smoothed[-1]), math.sqrt(variances[-1]))
            elif len(climbed) > settled and len(set(climbed[-settled - 1 :])) == 1:
                action = Action.SILENT
                variances.append(noise())
                ceiling = line(smoothed[-1], math.sqrt(variances[-1]))
            else:
                action = Action.CLIMBING
                scale = bounded(scale * 10.0 ** (1 / decade))
                climbing = scale != before
                variances.append(noise())
                if len(climbed) >= settled:
                    ceiling = line(smoothed[-1], math.sqrt(variances[-1]))
        else:
            extraordinary_before = False
            unfinished.append(loss)
            action = Action.GATHERING
            if len(unfinished) == window:
                full.append(unfinished)
                unfinished = []
                ceiling = line(statistics.mean(full[-1]), statistics.stdev(full[-1]))
            if len(full) >= 2 and not unfinished:
                e = math.sqrt((statistics.variance(full[-2]) + statistics.variance(full[-1])) / window)
                change = statistics.mean(full[-1]) - statistics.mean(full[-2])
                if not scheduled and change < -config.significance * e:
                    raises = bounded(scale / config.factor) != scale and not limited(step)
                    action = Action.RAISED if raises else Action.AT_MAX
                    scale /= config.factor if action is Action.RAISED else 1.0
                elif not scheduled and change > config.significance * e:
                    action = Action.CUT if scale > min(lows) else Action.AT_MIN
                    scale *= config.factor
                else:
                    action = Action.NOT_SIGNIFICANT
        scale = bounded(scale)
        climbing = climbing and not anneals
        if rose and action in HOLDS | {Action.RAISED}:
            action = Action.VALIDATION_ROSE
        elif action in HOLDS:
            if anneals and step > total:
                action = Action.OVER
            elif grew:
                action = Action.CATCHING_UP
            elif not math.isnan(slope) and config.mode == "min" and limited(step):
                action = Action.LIMITED
            elif step < warmup:
                action = Action.WARMING_UP
            elif anneals:
                action = Action.ANNEALING
            elif not math.isnan(slope) and config.mode == "min" and rates(step) != rates_before:
                # The limit has let go; a climb moves them by itself.
                action = action if action in (Action.CLIMBING, Action.SILENT) else Action.LIMITED
        rates_before = rates(step)
        yield action, rates(step)


HOLDS = {
    *(Action.GATHERING, Action.NOT_SIGNIFICANT, Action.CLIMBING, Action.SILENT, Action.AT_MAX, Action.AT_MIN),
}


def paper_by_the_book(config, initial_lrs, losses, _slopes, _validations):
    """The published algorithm with its safeguards, and the reaction to losses that are not finite."""
    lows, highs = per_group(config.min_lr, initial_lrs), per_group(config.max_lr, initial_lrs)
    sign = 1 if config.mode == "min" else -1
    lrs = list(initial_lrs)
    reference, better, worse, cooldown, warmup, attempts, recent = None, 0, 0, 0, 0, 0, []
    yield None, tuple(lrs)

    def move(target, moved, small, bound):
        changes = [abs(target(lr, low, high) - lr) for lr, low, high in zip(lrs, lows, highs)]
        wanted = [target(lr, low, high) for lr, low, high in zip(lrs, lows, highs)]
        # A bound never pushes a learning rate that is beyond it back against the direction of the move.
        changes = [c if (new > lr) == (moved is Action.RAISED) else 0.0 for c, new, lr in zip(changes, wanted, lrs)]
        lrs[:] = [new if c > config.eps else lr for c, new, lr in zip(changes, wanted, lrs)]
        return moved if max(changes) > config.eps else small if max(changes) > 0 else bound

    def cut():
        return move(lambda lr, low, _: max(lr * config.factor, low), Action.CUT, Action.BELOW_EPS, Action.AT_MIN)

    for loss in losses:
        if not math.isfinite(loss):
            cut()
            yield Action.NON_FINITE, tuple(lrs)
            continue
        value = loss
        if config.smooth:
            recent = [*recent, loss][-config.window_size :]
            value = math.fsum(recent) / len(recent)
        if cooldown or warmup:
            action = Action.COOLDOWN if cooldown else Action.WARMUP
            cooldown, warmup = (cooldown - 1, warmup) if cooldown else (cooldown, warmup - 1)
            better = worse = 0
            yield action, tuple(lrs)
            continue
        if reference is None and config.compare == "previous":
            reference = value
            yield Action.GATHERING, tuple(lrs)
            continue
        improvement = math.inf if reference is None else sign * (reference - value)
        enough = config.threshold if config.threshold_mode == "abs" else config.threshold * abs(reference or 0.0)
        is_better = improvement > enough
        if is_better or config.compare == "previous":
            reference = value
        better, worse = (better + 1, 0) if is_better else (0, worse + 1)
        action = Action.PATIENCE
        if better > config.patience:
            action = move(
                lambda lr, _, high: min(lr / config.factor, high), Action.RAISED, Action.BELOW_EPS, Action.AT_MAX
            )
            better, attempts, warmup = 0, 0, config.warmup
        elif worse > config.patience:
            action = cut()
            worse, cooldown = 0, config.cooldown
            if all(lr <= low for lr, low in zip(lrs, lows)):
                attempts += 1
                if attempts >= config.reset_start:
                    action = Action.RESET
                    lrs[:] = initial_lrs
                    reference, better, warmup, attempts, recent = None, 0, 0, 0, []
        yield action, tuple(lrs)


def per_group(bound, lrs):
    return list(bound) if isinstance(bound, (list, tuple)) else [bound] * len(lrs)


NO_SLOPES = itertools.repeat(math.nan)
NO_VALIDATIONS = itertools.repeat(())


def shipped(config, initial_lrs, losses, slopes=NO_SLOPES, validations=NO_VALIDATIONS):
    state = rule.start(config, initial_lrs)
    yield None, state.lrs
    for loss, slope, told in zip(losses, slopes, validations):
        for validation in told if getattr(config, "await_validation", False) else ():
            rule.validate(config, state, validation)
        decision = rule.observe(config, state, loss, slope)
        yield decision.action, decision.lr_after


@st.composite
def loss_sequences(draw, length):
    """Losses as training makes them: trends and noise, level shifts, bursts, values that are not finite."""
    r = random.Random(draw(st.integers(0, 2**32)))
    noise = draw(st.sampled_from([1e-3, 0.05, 0.5]))
    losses, level, burst = [], draw(st.sampled_from([0.0, 3.0, -3.0, 1e4])), 0
    while len(losses) < length:
        slope = r.choice([-0.05, -0.01, 0.0, 0.0, 0.01, 0.05])
        for _ in range(r.randint(5, 60)):
            level += slope
            burst = burst - 1 if burst else r.randint(1, 4) * (r.random() < 0.02)
            loss = level + r.gauss(0, noise) + burst * r.choice([1.0, 10.0, 1e3]) * r.random()
            losses.append(r.choice([math.nan, math.inf, -math.inf]) if r.random() < 0.01 else loss)
    return losses[:length]


@st.composite
def slopes_of(draw, losses):
    """Slopes as training makes them: of any size beside the loss, growing and shrinking, now and then not known."""
    r = random.Random(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        return [math.nan] * len(losses)
    size, slopes = r.choice([-3.0, -1.0, 0.0, 1.0]), []
    for loss in losses:
        size = min(max(size + r.gauss(0, 0.1), -5.0), 3.0)
        usual = abs(loss) * 10**size * r.random() if math.isfinite(loss) else 1.0
        slopes.append(r.choice([math.nan, math.inf, 0.0, -1.0]) if r.random() < 0.05 else usual)
    return slopes


@st.composite
def validations_of(draw, losses):
    """Of each step, what was told before its loss: mostly nothing, and now and then more than one."""
    r = random.Random(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        return [()] * len(losses)
    level, told = r.gauss(0, 1), []
    for _ in losses:
        level += r.gauss(-0.02, 0.05)
        values = [r.choice([math.nan, math.inf, level + 9]) if r.random() < 0.05 else level, level + r.gauss(0, 0.3)]
        told.append(values[: r.choice([1, 1, 1, 2])] if r.random() < 0.1 else ())
    return told


initial_lr = st.sampled_from([0.1, 2e-5, 1.0, 3e-3])
anything = st.sampled_from


@st.composite
def default_configs(draw, groups):
    def bound(values):
        return draw(st.one_of(anything(values), st.lists(anything(values), min_size=groups, max_size=groups)))

    return DefaultConfig(
        mode=draw(anything(["min", "max"])),
        start_scale=draw(anything([1e-4, 0.03, 0.5, 1.0])),
        warmup_steps=draw(st.one_of(st.none(), st.integers(0, 60))),
        polyak=draw(anything([0.5, 2.0, math.inf])),
        headroom=draw(anything([1.0, 5.0])),
        catch_up_steps=draw(st.one_of(st.none(), st.integers(0, 60))),
        decade_steps=draw(st.one_of(st.just(0), st.integers(8, 60), st.integers(1, 120))),
        objection=draw(st.floats(0.1, 3)),
        back_off=draw(st.floats(1.1, 20)),
        window=draw(st.one_of(st.integers(2, 25), st.none())),
        significance=draw(st.floats(0.01, 3)),
        factor=draw(st.floats(0.3, 0.99)),
        reflex_factor=draw(st.floats(0.1, 0.99)),
        spike=draw(st.floats(1, 8)),
        min_scale=bound([0.0, 1e-5, 0.3, 1.0]),
        max_scale=bound([1.0, 2.5, 1e3]),
        await_validation=draw(st.booleans()),
        total_steps=draw(st.one_of(st.none(), st.integers(1, 500))),
        anneal=draw(anything([0.0, 0.2, 0.5, 0.9, 1.0])),
    )


@st.composite
def climbing_configs(draw, groups):
    """With room to climb: there is one end of a climb in a run, at most."""
    return DefaultConfig(
        start_scale=1e-4,
        decade_steps=draw(st.integers(8, 100)),
        objection=draw(st.floats(0.1, 3)),
        back_off=draw(st.floats(1.1, 20)),
        window=20,
        spike=draw(st.floats(1, 8)),
        max_scale=draw(st.one_of(st.just(1e3), st.lists(st.just(1e3), min_size=groups, max_size=groups))),
        total_steps=draw(anything([None, 400])),
        anneal=0.4,
    )


@st.composite
def paper_configs(draw, groups):
    def bound(values):
        return draw(st.one_of(anything(values), st.lists(anything(values), min_size=groups, max_size=groups)))

    return PaperConfig(
        mode=draw(anything(["min", "max"])),
        factor=draw(st.floats(0.3, 0.99)),
        patience=draw(st.integers(0, 6)),
        threshold=draw(anything([1e-6, 1e-3, 0.02])),
        threshold_mode=draw(anything(["abs", "rel"])),
        cooldown=draw(st.integers(0, 5)),
        warmup=draw(st.integers(0, 5)),
        min_lr=bound([0.0, 1e-5, 0.05]),
        max_lr=bound([0.1, 1.0, math.inf]),
        eps=draw(anything([0.0, 1e-8, 1e-3])),
        smooth=draw(st.booleans()),
        window_size=draw(st.integers(1, 20)),
        reset_start=draw(st.integers(1, 8)),
        compare=draw(anything(["best", "best", "previous"])),
    )


DEFAULT_ACTIONS = {
    Action.RAISED, Action.CUT, Action.NON_FINITE, Action.EXPLOSION, Action.BACKED_OFF, Action.CLIMBING,
    Action.WARMING_UP, Action.CATCHING_UP, Action.LIMITED, Action.ANNEALING, Action.OVER, Action.VALIDATION_ROSE,
    Action.GATHERING, Action.NOT_SIGNIFICANT, Action.SPIKE, Action.AT_MAX, Action.AT_MIN,
}  # fmt: skip
PAPER_ACTIONS = {
    Action.RAISED, Action.CUT, Action.NON_FINITE, Action.RESET, Action.GATHERING, Action.AT_MAX, Action.AT_MIN,
    Action.PATIENCE, Action.COOLDOWN, Action.WARMUP, Action.BELOW_EPS,
}  # fmt: skip
CLIMB_ACTIONS = DEFAULT_ACTIONS - {
    *(Action.AT_MAX, Action.AT_MIN, Action.OVER, Action.WARMING_UP, Action.CATCHING_UP, Action.VALIDATION_ROSE),
}


@pytest.mark.parametrize(
    ("by_the_book", "configs", "actions"),
    [
        (default_by_the_book, default_configs, DEFAULT_ACTIONS),
        (default_by_the_book, climbing_configs, CLIMB_ACTIONS),
        (paper_by_the_book, paper_configs, PAPER_ACTIONS),
    ],
    ids=["default", "climb", "paper"],
)
def test_agrees_decision_by_decision(by_the_book, configs, actions):
    reached = collections.Counter()

    @settings(max_examples=300)
    @given(st.data(), st.lists(initial_lr, min_size=1, max_size=3))
    def agree(data, lrs):
        config, losses = data.draw(configs(len(lrs))), data.draw(loss_sequences(400))
        slopes = data.draw(slopes_of(losses))
        of_all = config, lrs, losses, slopes, data.draw(validations_of(losses))
        pairs = zip(shipped(*of_all), by_the_book(*of_all))
        for step, (ours, book) in enumerate(pairs):
            assert ours[0] is book[0], f"at step {step}"
            assert ours[1] == pytest.approx(book[1], rel=1e-12, abs=0), f"at step {step}"
            reached[ours[0]] += 1

    agree()
    assert reached.pop(None) >= 300
    # An oracle that is hardly asked proves nothing. (The bounds are far away from some of these.)
    bounds = {Action.AT_MAX, Action.AT_MIN, Action.SILENT, Action.OVER}
    assert set(reached) - bounds == actions - bounds
    assert all(reached[action] >= (20 if action is Action.BACKED_OFF else 50) for action in actions), reached


@settings(max_examples=100)
@given(st.floats(0.1, 0.99), loss_sequences(200))
def test_core_rule(factor, losses):
    """γ / F if the loss fell, else γ · F: nothing else."""
    losses = [loss for loss in losses if math.isfinite(loss)]
    lr, expected = 0.1, [(0.1,)]
    for before, now in zip([None, *losses], losses):
        lr = lr if before is None else lr / factor if now < before else lr * factor
        expected.append((lr,))
    assert [lrs for _, lrs in shipped(PaperConfig.core(factor), [0.1], losses)] == expected
