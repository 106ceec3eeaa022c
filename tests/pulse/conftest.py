"""One thread for every test; schedulers without a model; traces written from decisions that were made up."""

import importlib.util
from pathlib import Path

import pytest
import torch

from greedylr import GreedyLR
from greedylr.control.decision import Action, Decision
from greedylr.control.observers import introduce
from greedylr.pulse import Recorder, Trace


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    pass


def beside(name):
    """A module in this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def planted():
    """The real run with things planted in it."""
    return beside("planted")


@pytest.fixture(scope="session")
def one_move():
    """The audit's comparison of one move at a time."""
    return beside("one_move")


def optimizer(groups=1, lr=0.1):
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr / (i + 1)} for i in range(groups)]
    return torch.optim.SGD(parameters, lr=lr)


@pytest.fixture
def scheduled():
    """Makes a GreedyLR without a model."""

    def make(groups=1, lr=0.1, **settings):
        return GreedyLR(optimizer(groups, lr), **settings)

    return make


class Script:
    """A rule that does what a test says, in place of a scheduler: it has what the recorder asks for."""

    def __init__(self, lr=0.1, window=20):
        from greedylr.control.default.config import DefaultConfig

        self.config = DefaultConfig(window=window)
        self.optimizer = optimizer(lr=lr)
        self.composition = None
        self.step_number, self.lr = 0, (lr,)
        self.observers = []

    def subscribe(self, observer):
        introduce(observer, self)
        self.observers.append(observer)
        return lambda: self.observers.remove(observer)

    def step(self, loss, action=Action.GATHERING, factor=1.0, composition=None, **evidence):
        self.step_number += 1
        self.composition = composition
        before = self.lr
        self.lr = before if factor == 1.0 else (before[0] * factor,)
        if self.lr is not before:
            self.optimizer.param_groups[0]["lr"] = self.lr[0]
        decision = Decision(self.step_number, float(loss), action, before, self.lr, evidence)
        for observer in self.observers:
            observer(decision)


@pytest.fixture
def script():
    return Script


@pytest.fixture
def record(tmp_path):
    """Makes a trace: of losses through the default rule, or of what a function does with a script and a recorder."""

    def make(play=None, losses=(), name="run", meta=None, lr=0.1, **settings):
        scheduler = GreedyLR(optimizer(lr=lr), **settings) if play is None else Script(**settings)
        with Recorder(tmp_path / name, scheduler, meta=meta) as recorder:
            if play is None:
                for loss in losses:
                    scheduler.step(float(loss))
            else:
                play(scheduler, recorder)
        return Trace.load(tmp_path / name)

    return make
