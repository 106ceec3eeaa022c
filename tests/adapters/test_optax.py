"""optax, for real: under jit, scan and vmap, on handwritten digits."""

import math
import pickle
import random

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402

from greedylr import Action, DefaultConfig, PaperConfig  # noqa: E402
from greedylr.adapters.optax import action_of, greedy_lr  # noqa: E402
from greedylr.control import batched, rule  # noqa: E402
from greedylr.pulse import Recorder, Trace  # noqa: E402

try:
    from jax import enable_x64
except ImportError:  # before jax 0.8
    from jax.experimental import enable_x64

BRISK = PaperConfig(patience=0, min_lr=0.0, max_lr=100.0, eps=0.0)
FAMILIES = [DefaultConfig(), DefaultConfig(total_steps=300), PaperConfig(patience=1, min_lr=1e-4)]


@pytest.fixture
def problem(digits):
    images, labels = (jnp.asarray(tensor.numpy()) for tensor in digits)
    images, labels = images[:1792].reshape(56, 32, 64), labels[:1792].reshape(56, 32)
    random = np.random.default_rng(0)
    params = {"in": jnp.asarray(random.normal(0, 0.1, (64, 16))), "out": jnp.asarray(random.normal(0, 0.1, (16, 10)))}

    def loss(params, images, labels):
        logits = jnp.tanh(images @ params["in"]) @ params["out"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return params, images, labels, loss


def training_step(optimizer, loss):
    def step(carry, batch):
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, *batch)
        updates, state = optimizer.update(gradients, state, params, value=value)
        return (optax.apply_updates(params, updates), state), (value, state[-1].learning_rate, state[-1].action)

    return step


def losses_of(seed, n=300):
    r = random.Random(seed)
    losses = [4.0 * math.exp(-step / 100) + r.gauss(0, 0.2) for step in range(n)]
    losses[50] = math.nan
    losses[120] = losses[121] = 50.0
    return losses


@pytest.mark.parametrize("config", FAMILIES, ids=["default", "horizon", "paper"])
def test_in_float64_as_written_it_is_the_scalar_rule(config):
    with enable_x64(True):
        transformation = greedy_lr(0.01, config)
        state = transformation.init(None)
        scalar = rule.start(config, [0.01])
        for loss in losses_of(1):
            updates, after = transformation.update(jnp.ones(2), state, value=loss)
            assert updates.tolist() == [float(state.learning_rate)] * 2, "made with the learning rate before its loss"
            state = after
            decision = rule.observe(config, scalar, loss)
            assert (float(state.learning_rate), action_of(state)) == (decision.lr_after[0], decision.action)


@pytest.mark.parametrize("config", FAMILIES, ids=["default", "horizon", "paper"])
def test_compiled_in_float32_it_is_the_scalar_rule_up_to_rounding(config):
    transformation = greedy_lr(0.01, config)
    losses = [float(np.float32(loss)) for loss in losses_of(2)]

    @jax.jit
    def run(losses):
        def step(state, loss):
            _, state = transformation.update(jnp.ones(()), state, value=loss)
            return state, (state.learning_rate, state.action)

        return jax.lax.scan(step, transformation.init(None), losses)[1]

    lrs, actions = run(jnp.asarray(losses))
    scalar = rule.start(config, [0.01])
    decisions = [rule.observe(config, scalar, loss) for loss in losses]
    assert [batched.ACTIONS[code] for code in actions] == [decision.action for decision in decisions]
    assert lrs.tolist() == pytest.approx([decision.lr_after[0] for decision in decisions], rel=1e-4)


@pytest.mark.parametrize("inner", [optax.sgd, optax.adam, optax.adamw, optax.lion], ids=lambda make: make.__name__)
def test_training_compiled_once(problem, replay, inner):
    params, images, labels, loss = problem
    optimizer = optax.chain(inner(1e-3), greedy_lr(config=BRISK))
    step = jax.jit(training_step(optimizer, loss))
    carry, seen, lrs = (params, optimizer.init(params)), [], []
    for batch in zip(images, labels):
        carry, (value, lr, _) = step(carry, batch)
        seen.append(float(value))
        lrs.append(float(lr))
    assert step._cache_size() == 1
    assert lrs == pytest.approx([lr for (lr,) in replay(BRISK, seen, [1.0])[1:]], rel=1e-5)
    assert len(set(lrs)) > 10


def test_scanned_equals_stepped(problem):
    params, images, labels, loss = problem
    optimizer = optax.chain(optax.scale_by_adam(), optax.scale(-1.0), greedy_lr(0.01, config=BRISK))
    step = training_step(optimizer, loss)
    start = (params, optimizer.init(params))
    _, (values, lrs, actions) = jax.jit(lambda: jax.lax.scan(step, start, (images, labels)))()
    stepped, carry = [], start
    for batch in zip(images, labels):
        carry, (value, lr, action) = jax.jit(step)(carry, batch)
        stepped.append((float(value), float(lr), int(action)))
    assert values.tolist() == pytest.approx([value for value, _, _ in stepped], rel=1e-4)
    assert actions.tolist()[:20] == [action for _, _, action in stepped[:20]]
    assert lrs.tolist()[:20] == pytest.approx([lr for _, lr, _ in stepped[:20]], rel=1e-5)


@pytest.mark.parametrize("scanned", [False, True])
def test_observers_are_told_from_within_the_compiled_step(problem, tmp_path, scanned):
    params, images, labels, loss = problem
    seen = []
    with Recorder(tmp_path) as recorder:
        optimizer = optax.chain(optax.sgd(1.0), greedy_lr(0.1, observers=[recorder, seen.append], config=BRISK))
        step = training_step(optimizer, loss)
        carry = (params, optimizer.init(params))
        if scanned:
            _, (values, lrs, actions) = jax.jit(lambda: jax.lax.scan(step, carry, (images, labels)))()
        else:
            step, out = jax.jit(step), []
            for batch in zip(images, labels):
                carry, told = step(carry, batch)
                out.append(told)
            values, lrs, actions = map(jnp.stack, zip(*out))
        jax.effects_barrier()
    assert [one.step for one in seen] == list(range(1, len(images) + 1))
    assert [one.loss for one in seen] == values.tolist()
    assert [one.lr_after[0] for one in seen] == lrs.tolist()
    assert [one.lr_before[0] for one in seen] == [float(jnp.float32(0.1)), *lrs.tolist()[:-1]]
    assert [one.action for one in seen] == [batched.ACTIONS[code] for code in actions.tolist()]
    trace = Trace.load(tmp_path)
    assert trace.config["family"] == "PaperConfig"
    assert (trace.losses.tolist(), trace.lrs[:, 0].tolist()) == (values.tolist(), lrs.tolist())


def test_a_state_that_is_put_back_is_nobody_elses_learning_rate(problem, tmp_path):
    params, images, labels, loss = problem
    with Recorder(tmp_path) as recorder:
        optimizer = optax.chain(optax.sgd(1.0), greedy_lr(0.1, observers=[recorder], config=BRISK))
        step = jax.jit(training_step(optimizer, loss))
        carry = (params, optimizer.init(params))
        for number, batch in enumerate(zip(images, labels)):
            if number == 20:
                saved = carry
            carry, _ = step(carry, batch)
        jax.effects_barrier()
        carry = saved
        for batch in zip(images[20:30], labels[20:30]):
            carry, _ = step(carry, batch)
        jax.effects_barrier()
    trace = Trace.load(tmp_path)
    assert (trace.last, trace.resumed, trace.foreign) == (30, [20], [])


def test_mapped_over_many_runs_each_follows_its_own_loss(problem):
    params, images, labels, loss = problem
    optimizer = optax.chain(optax.sgd(0.1), greedy_lr(config=BRISK))
    step = training_step(optimizer, loss)
    scales = jnp.array([0.2, 1.0, 9.0])

    def run(scale):
        mine = jax.tree.map(lambda array: array * scale, params)
        return jax.lax.scan(step, (mine, optimizer.init(mine)), (images, labels))[1]

    values, lrs, _ = jax.jit(jax.vmap(run))(scales)
    for i, scale in enumerate(scales):
        alone_values, alone_lrs, _ = jax.jit(run)(scale)
        assert values[i].tolist()[:20] == pytest.approx(alone_values.tolist()[:20], rel=1e-4)
        assert lrs[i].tolist()[:20] == pytest.approx(alone_lrs.tolist()[:20], rel=1e-5)
    assert len({tuple(row) for row in lrs.tolist()}) > 1


@pytest.mark.parametrize("stop", [17, 40])
def test_resumed_equals_uninterrupted(problem, stop):
    params, images, labels, loss = problem
    optimizer = optax.chain(optax.adam(1e-3), greedy_lr())
    step = jax.jit(training_step(optimizer, loss))

    def train(carry, batches):
        lrs = []
        for batch in batches:
            carry, (_, lr, _) = step(carry, batch)
            lrs.append(float(lr))
        return carry, lrs

    batches = list(zip(images, labels))
    whole, lrs = train((params, optimizer.init(params)), batches)
    half, _ = train((params, optimizer.init(params)), batches[:stop])
    resumed, rest = train(pickle.loads(pickle.dumps(half)), batches[stop:])
    assert rest == lrs[stop:]
    assert all(map(np.array_equal, jax.tree.leaves(resumed), jax.tree.leaves(whole)))


def test_half_precision_updates_stay_half(problem):
    transformation = greedy_lr(0.5)
    updates, _ = transformation.update({"w": jnp.ones(2, jnp.bfloat16)}, transformation.init(None), value=1.0)
    assert updates["w"].dtype == jnp.bfloat16


def test_bad_use_is_named():
    with pytest.raises(ValueError, match="learning_rate must be at least 0, got -1"):
        greedy_lr(-1.0)
    with pytest.raises(TypeError):
        greedy_lr(1.0, no_such_setting=3)
    transformation = greedy_lr()
    state = transformation.init(None)
    with pytest.raises(TypeError, match="value=loss"):
        transformation.update(jnp.ones(1), state)
    with pytest.raises(ValueError, match="no loss"):
        action_of(state)
    _, state = transformation.update(jnp.ones(1), state, value=math.nan)
    assert action_of(state) is Action.NON_FINITE


@pytest.mark.parametrize("config", [None, PaperConfig()])
def test_a_donated_state_has_a_buffer_for_each_field(config):
    optimizer = optax.chain(optax.adam(1e-2), greedy_lr(config=config))

    def step(params, state):
        loss, gradient = jax.value_and_grad(lambda params: (params**2).sum())(params)
        updates, state = optimizer.update(gradient, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    plain, donating = jax.jit(step), jax.jit(step, donate_argnums=(0, 1))
    params, given = jnp.array([1.0, -2.0]), jnp.array([1.0, -2.0])
    state, donated = optimizer.init(params), optimizer.init(given)
    for _ in range(20):
        params, state = plain(params, state)
        given, donated = donating(given, donated)
    assert jax.tree.all(jax.tree.map(lambda one, other: (one == other).all(), state, donated))


@pytest.mark.parametrize(
    "value", [np.float32(2.0), np.float64(2.0), 2, np.array([2.0]), jnp.array([[2.0]]), jnp.array(2.0, jnp.bfloat16)]
)
def test_a_loss_in_whatever_dress(value):
    optimizer = greedy_lr()
    state = optimizer.init(None)
    _, expected = optimizer.update(jnp.ones(2), state, value=2.0)
    _, got = optimizer.update(jnp.ones(2), state, value=value)
    assert jax.tree.all(
        jax.tree.map(lambda one, other: (one == other).all() & (one.shape == other.shape), expected, got)
    )


@pytest.mark.parametrize("value", [jnp.ones(2), jnp.ones(0), 1j])
def test_what_is_no_loss_is_refused(value):
    optimizer = greedy_lr()
    with pytest.raises(ValueError, match="value must be one real number"):
        optimizer.update(jnp.ones(2), optimizer.init(None), value=value)


def test_settings_of_the_other_family_are_answered():
    with pytest.raises(TypeError, match=r"'patience'.*those of the published algorithm belong to PaperConfig"):
        greedy_lr(patience=3)
    with pytest.raises(TypeError, match="config must be a DefaultConfig or a PaperConfig, got 'greedy'"):
        greedy_lr(0.1, "greedy")
