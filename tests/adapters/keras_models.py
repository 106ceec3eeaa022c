"""Models of one's own under the Keras callback; run by test_keras.py, once for each backend."""

import copy
import tempfile
import warnings

import keras
import numpy as np

from greedylr import PaperConfig
from greedylr.adapters.keras import GreedyLR
from greedylr.control.decision import Action

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
y = x.sum(axis=1, keepdims=True)
TORCH = keras.backend.backend() == "torch"


class Seen(list):
    def __call__(self, decision):
        self.append(decision)


def compiled(model, **options):
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse", metrics=["mae"], **options)
    return model


class Plain(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


def sequential():
    return compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))


def fit(model, callback, epochs=2, **options):
    return model.fit(x, y, batch_size=16, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback], **options)


def first_loss(model):
    return float(np.mean((np.asarray(model.predict(x[:16], verbose=0)) - y[:16]) ** 2))


# A subclass is trained, what is observed is the loss of the batch, and nothing stays behind.
for make in (lambda: compiled(Plain()), sequential, lambda: compiled(Plain(), run_eagerly=True)):
    model, seen = make(), Seen()
    expected = first_loss(model)
    attributes, metrics = set(vars(model)), [metric.name for metric in model.metrics]
    history = fit(model, GreedyLR(observers=[seen], total_steps=100), validation_data=(x, y))
    assert len(seen) == 8, len(seen)
    assert abs(seen[0].loss - expected) < 1e-4 * expected, (seen[0], expected)
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae", "learning_rate"}, set(history.history)
    assert [metric.name for metric in model.metrics] in (metrics, ["loss", "compile_metrics"])
    assert {"train_step", "compute_loss", "make_train_function"}.isdisjoint(vars(model))
    loss, mae = model.evaluate(x, y, verbose=0)
    fit(model, keras.callbacks.Callback())  # without ours
    assert len(seen) == 8

# Saved, and loaded again.
path = f"{tempfile.mkdtemp()}/model.keras"
model = sequential()
fit(model, GreedyLR(total_steps=100))
model.save(path)
assert len(keras.models.load_model(path).metrics) == len(model.metrics)
keras.models.clone_model(model)

# A fit that breaks off leaves the model as it was.
model = sequential()


class Broken(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            raise KeyboardInterrupt


try:
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[GreedyLR(total_steps=100), Broken()])
except KeyboardInterrupt:
    pass
else:
    raise AssertionError
assert {"train_step", "compute_loss"}.isdisjoint(vars(model))
fit(model, GreedyLR(total_steps=100))
fit(model, keras.callbacks.Callback())

# A train_step of one's own.
if TORCH:
    import torch

    class Own(Plain):
        logs = staticmethod(lambda loss: {"loss": loss})

        def loss_of(self, inputs, targets):
            return torch.mean(torch.square(self(inputs, training=True) - targets))

        def train_step(self, data):
            inputs, targets = data
            self.zero_grad()
            loss = self.loss_of(inputs, targets)
            loss.backward()
            weights = self.trainable_weights
            with torch.no_grad():
                self.optimizer.apply([weight.value.grad for weight in weights], weights)
            return self.logs(loss)

    class Told(Own):
        logs = staticmethod(lambda loss: {"mine": 0.0, "batch_loss": loss})

    class Computes(Own):
        def loss_of(self, inputs, targets):
            return self.compute_loss(y=targets, y_pred=self(inputs, training=True))

    class Tracks(Own):
        def logs(self, loss):
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
            return {metric.name: metric.result() for metric in self.metrics}

    try:
        fit(compiled(Own()), GreedyLR(total_steps=100))
    except ValueError as error:
        assert "the loss of a batch cannot be seen" in str(error), error
    else:
        raise AssertionError
    for kind in (Told, Computes, Tracks):
        model, seen = compiled(kind()), Seen()
        expected = first_loss(model)
        fit(model, GreedyLR(observers=[seen], total_steps=100))
        assert len(seen) == 8
        assert abs(seen[0].loss - expected) < 1e-4 * expected, (kind, seen[0], expected)

# One callback for several folds: each model starts afresh.
callback, rates = GreedyLR(warmup_steps=0), []
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for _ in range(3):
        model = sequential()
        fit(model, callback, epochs=20)
        rates.append(callback.state_dict()["state"]["step" if "step" in callback.state_dict()["state"] else "seen"])
        assert callback.config.total_steps == 80
assert len(set(rates)) == 1, rates

# The same model goes on: the length of the next fit is in force, and told.
for first, options in ((3, {"epochs": 9, "initial_epoch": 3}), (3, {"epochs": 6})):
    model, seen = sequential(), Seen()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        callback = GreedyLR(observers=[seen], warmup_steps=0, anneal=0.4)
        fit(model, callback, epochs=first)
        assert callback.config.total_steps == 12
        fit(model, callback, **options)
    assert callback.config.total_steps == 36, callback.config.total_steps
    assert any("total_steps=36, the length of this fit" in str(one.message) for one in told)
    assert [one.action for one in seen].count(Action.HORIZON) == 1
    assert seen[12].lr_after[0] > 0.009, seen[12]

# One that was given is over, and said once.
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    fit(sequential(), GreedyLR(total_steps=20), epochs=10)
assert sum("total_steps=20 are over" in str(one.message) for one in told) == 1

# What does not fit is said at once.
for build, words in (
    (lambda: GreedyLR("greedy"), "config must be a DefaultConfig or a PaperConfig, got 'greedy'"),
    (lambda: GreedyLR(min_lr=1e-3), "belong to PaperConfig"),
):
    try:
        build()
    except TypeError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)


# An observer that raises does not cost the others the step.
def raises(decision):
    raise RuntimeError("observer")


seen = Seen()
try:
    fit(sequential(), GreedyLR(PaperConfig(), observers=[raises, seen]))
except RuntimeError as error:
    assert str(error) == "observer"
assert len(seen) == 1
copy.copy(seen)
print("fine")
