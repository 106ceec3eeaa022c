"""One thread for every test; results to compare and draw without training."""

import pytest

from greedylr import Action, Decision
from greedylr.lab.execution import fingerprint
from greedylr.lab.results import Result, record
from greedylr.lab.runs import Run


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    pass


def _forget_code():
    """Let keys be made of the code as it is now."""
    for name in ("_versions", "_code_of", "_reached", "_own", "_foreign", "_imported", "_tree", "_digest"):
        getattr(fingerprint, name).cache_clear()


def made_up(run, final_loss=0.5, decisions=(), clean_losses=()):
    """A result of a run that was never trained."""
    validations, lrs = {0: 2.0, run.steps: final_loss}, [0.1] * (run.steps + 1)
    kept = record([1.0] * run.steps, lrs, validations, decisions, clean_losses=clean_losses)
    return Result(run, kept)


def decision(step=2, action=Action.RAISED, **evidence):
    return Decision(step, 0.7, action, (0.1,), (0.2,), evidence or {"mean": 0.5})


@pytest.fixture
def forget_code():
    return _forget_code


@pytest.fixture(name="made_up")
def _made_up():
    return made_up


@pytest.fixture(name="decision")
def _decision():
    return decision


@pytest.fixture
def runs():
    """A row: one problem at one learning rate, four schedulers, two seeds."""
    names = ("greedylr", "paper", "cosine", "constant")
    return [Run("digits", 1.0, name, seed, 5) for seed in range(2) for name in names]
