"""Keras 3, for real, on each backend that is installed, each in a fresh process; on handwritten digits."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")

BACKENDS = [
    pytest.param(
        backend,
        marks=[
            pytest.mark.skipif(not importlib.util.find_spec(backend), reason=f"no {backend}"),
            *([pytest.mark.slow] if backend == "tensorflow" else []),
        ],
    )
    for backend in ("torch", "jax", "tensorflow")
]

SCRIPT = """
    import json, os, sys
    os.environ["KERAS_BACKEND"] = sys.argv[1]
    import keras, numpy as np
    from sklearn.datasets import load_digits
    from greedylr import PaperConfig
    from greedylr.adapters.keras import GreedyLR
    from greedylr.pulse import Recorder, Trace

    images, labels = load_digits(return_X_y=True)
    images, labels = (images[:640] / 16).astype("float32"), labels[:640]
    MOVES = {"patience": 0, "min_lr": 1e-6, "eps": 0.0}

    class Reads(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.lrs, self.means = [], []

        def on_train_batch_begin(self, batch, logs=None):
            self.lrs.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

        def on_train_batch_end(self, batch, logs=None):
            self.means.append(float(logs["loss"]))

    def model(**options):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(10)]
        model = keras.Sequential([keras.Input((64,)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.05, **options), loss, metrics=["accuracy"])
        return model

    told = []

    def watched(*config, **settings):
        return GreedyLR(*config, observers=[told.append], **settings)

    def fit(model, callback, epochs=2, initial_epoch=0, **options):
        told.clear()
        reads = Reads()
        model.fit(
            images, labels, batch_size=32, epochs=epochs, initial_epoch=initial_epoch, shuffle=False, verbose=0,
            callbacks=[callback, reads], **options,
        )
        return [decision.loss for decision in told], reads, list(told)

    out = {}
    greedy = watched(PaperConfig(), **MOVES)
    trained = model()
    losses, reads, seen = fit(trained, greedy, validation_data=(images[:64], labels[:64]))
    out["paper"] = [losses, reads.means, reads.lrs]
    whole = np.concatenate([np.ravel(weight) for weight in trained.get_weights()])

    greedy = watched()
    losses, reads, _ = fit(model(), greedy)
    out["default"] = [losses, reads.means, reads.lrs, greedy.state_dict()["config"]]

    first = watched(PaperConfig(), **MOVES)
    half = model()
    fit(half, first, epochs=1)
    half.save("half.keras")
    saved = json.loads(json.dumps(first.state_dict()))
    second = watched(PaperConfig(), min_lr=0.01)
    second.load_state_dict(saved)
    resumed = keras.models.load_model("half.keras")
    _, _, rest = fit(resumed, second, epochs=2, initial_epoch=1)
    reached = np.concatenate([np.ravel(weight) for weight in resumed.get_weights()])
    out["resumed"] = [rest == seen[20:], bool(np.array_equal(whole, reached)), [d.step for d in rest]]

    losses, reads, _ = fit(model(gradient_accumulation_steps=4), watched(PaperConfig(), **MOVES))
    out["accumulated"] = [losses, reads.means, reads.lrs]

    again = model()
    again.fit(images, labels, batch_size=32, verbose=0)
    out["compiled before"] = len(set(fit(again, watched(PaperConfig(), **MOVES), epochs=1)[0]))

    metric, _, seen = fit(
        model(), watched(PaperConfig(), monitor="val_accuracy", mode="max", **MOVES), epochs=3,
        validation_data=(images[:64], labels[:64]),
    )
    out["monitor"] = len(metric)
    try:
        fit(model(), watched(PaperConfig(), monitor="no_such"), epochs=1)
    except ValueError as error:
        out["unknown"] = str(error)
    valid = {"validation_data": (images[:64], labels[:64])}
    with Recorder("validated") as recorder:
        callback = GreedyLR(observers=[recorder], await_validation=True)
        history = model().fit(
            images, labels, batch_size=32, epochs=3, verbose=0, callbacks=[callback], validation_freq=2, **valid
        )
    metrics = Trace.load("validated").metrics
    out["validated"] = {name: [metric.steps.tolist(), metric.values.tolist()] for name, metric in metrics.items()}
    out["heard"] = callback.state_dict()["state"]["lowest_validation"]
    out["history"] = {name: history.history[name] for name in ("val_loss", "val_accuracy")}
    with Recorder("trace") as recorder:
        network, greedy = model(), GreedyLR(observers=[recorder], total_steps=40)
        for epoch in range(2):
            epochs = {"epochs": epoch + 1, "initial_epoch": epoch}
            network.fit(images, labels, batch_size=32, **epochs, verbose=0, callbacks=[greedy])
    trace = Trace.load("trace")
    out["trace"] = [trace.last, trace.config["family"], trace.config["total_steps"], len(set(trace.lrs[:, 0])) > 20]
    out["torch"] = "torch" in sys.modules
    print(json.dumps(out))
"""


def batch_losses(means, steps=20):
    """The losses behind the means over the epoch so far that Keras shows."""
    epochs = [means[i : i + steps] for i in range(0, len(means), steps)]
    return [
        mean * (step + 1) - (epoch[step - 1] * step if step else 0.0)
        for epoch in epochs
        for step, mean in enumerate(epoch)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_on_every_backend(processes, replay, backend):
    from greedylr.control import plain
    from greedylr.control.default.config import DefaultConfig
    from greedylr.control.paper.config import PaperConfig

    (out,) = processes(SCRIPT, backend)
    out = json.loads(out.strip().splitlines()[-1])
    paper = PaperConfig(patience=0, min_lr=1e-6, eps=0.0)
    for losses, means, lrs, config in (
        (*out["paper"], paper),
        (*out["default"][:3], plain.from_dict(DefaultConfig, out["default"][3])),
    ):
        assert losses == pytest.approx(batch_losses(means), rel=1e-4)
        assert len(losses) == 40
        # Keras holds the learning rate in float32.
        assert lrs == pytest.approx([lr for (lr,) in replay(config, losses, [0.05])[:-1]], rel=1e-6)
    assert len(set(out["paper"][2])) > 5
    assert out["resumed"] == [True, True, list(range(21, 41))]
    losses, means, lrs = out["accumulated"]
    micro = batch_losses(means)
    assert losses == pytest.approx([sum(micro[i : i + 4]) / 4 for i in range(0, 40, 4)], rel=1e-4)
    expected = [lr for (lr,) in replay(paper, losses, [0.05])[:-1] for _ in range(4)]
    assert lrs == pytest.approx(expected, rel=1e-6)
    assert out["compiled before"] == 20
    assert out["monitor"] == 3
    assert "no 'no_such' to observe; there are ['accuracy'" in out["unknown"]
    assert out["trace"] == [40, "DefaultConfig", 40, True]
    assert [out["heard"]] == out["history"]["val_loss"]
    assert out["validated"] == {name: [[40], values] for name, values in out["history"].items()}
    assert out["torch"] is (backend == "torch"), "the rule on Keras needs no PyTorch"


@pytest.mark.parametrize("backend", [BACKENDS[0], pytest.param("jax", marks=[*BACKENDS[1].marks, pytest.mark.slow])])
def test_models_of_ones_own_are_observed_and_left_as_they_were(backend):
    script = Path(__file__).with_name("keras_models.py")
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == "fine", result.stderr[-3000:]
