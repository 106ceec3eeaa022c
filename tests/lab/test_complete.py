"""What the store lacks is trained, once, by whichever engine, however often it is killed."""

import os
import random
import signal
import subprocess
import sys

import pytest

from greedylr.lab.execution import engines, fingerprint
from greedylr.lab.execution.complete import complete
from greedylr.lab.execution.engines import ENGINES, Engine, assign
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.store import Store
from greedylr.lab.runs import Run


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "lab.sqlite") as store:
        yield store


@pytest.fixture
def runs():
    names = ("cosine", "constant", "greedylr")
    return [Run("digits", 1.0, name, seed, 5) for seed in range(4) for name in names]


@pytest.fixture
def engine(monkeypatch, made_up):
    """Stands in for training; remembers what it was asked for, and does at once what comes between."""

    class Fake:
        def __init__(self):
            self.trained = []
            self.between = lambda: None

        def train(self, runs, jobs, keep, wanted):
            for run in filter(wanted, runs):
                self.trained.append(run)
                keep(made_up(run))
                self.between()

    fake = Fake()
    monkeypatch.setattr(engines, "ENGINES", {"fake": Engine("fake", "", lambda run: True, fake.train)})
    return fake


def test_only_what_is_missing_is_trained_and_reported(store, runs, made_up, engine):
    for run in runs[:5]:
        store.save(made_up(run))
    done = []
    complete(runs, store, 1, done=done.append)
    assert sorted(engine.trained) == sorted(done) == sorted(runs[5:])
    complete(runs, store, 1, done=done.append)
    assert len(engine.trained) == len(runs) - 5


def test_a_run_that_is_asked_for_twice_is_trained_once(store, runs, engine):
    complete(runs + runs, store, 1)
    assert sorted(engine.trained) == sorted(runs)


def test_what_another_process_finishes_meanwhile_is_not_trained_again(store, runs, made_up, engine):
    def other():
        for run in runs:
            store.save(made_up(run))

    engine.between = other
    done = []
    complete(runs, store, 1, done=done.append)
    assert len(engine.trained) == 1
    assert sorted(done) == sorted(runs)


def test_an_interrupt_leaves_what_was_finished(store, runs, engine):
    def interrupt():
        if len(engine.trained) == 4:
            raise KeyboardInterrupt

    engine.between = interrupt
    with pytest.raises(KeyboardInterrupt):
        complete(runs, store, 1)
    assert len(store.finished(runs)) == 4


def test_the_first_engine_that_can_is_chosen_unless_one_is_named(monkeypatch, runs):
    fast = Engine("fast", "", lambda run: run.scheduler == "cosine", lambda *arguments: None)
    monkeypatch.setattr(engines, "ENGINES", {"fast": fast, "pool": ENGINES["pool"]})
    chosen = {engine.name: {run.scheduler for run in its} for engine, its in assign(runs).items()}
    assert chosen == {"fast": {"cosine"}, "pool": {"constant", "greedylr"}}
    assert [engine.name for engine in assign(runs, "pool")] == ["pool"]
    with pytest.raises(ValueError, match="constant with adamw on digits cannot be trained by the engine fast"):
        assign(runs, "fast")


def test_the_pool_stores_what_one_process_gives(store):
    runs = [Run("digits", 1.0, name, seed, 12) for name in ("greedylr", "schedule-free") for seed in range(2)]
    complete(runs, store, 2, "pool")
    assert list(store.load(runs)) == list(map(train, runs))


# Trains nothing, so that what is killed is mostly the writing: a made-up run of some size after the other.
WORKER = """
import random, sys
from pathlib import Path
from greedylr.lab.execution import fingerprint
from greedylr.lab.execution import engines
from greedylr.lab.execution.complete import complete
from greedylr.lab.results import Result, record
from greedylr.lab.runs import Run
from greedylr.lab.execution.store import Store

fingerprint._code = lambda run, *, stacked: "the same"  # Whoever works on the code changes it.

def train(runs, jobs, keep, wanted):
    for run in filter(wanted, runs):
        numbers = random.Random(run.seed)
        losses = [numbers.random() for _ in range(run.steps)]
        keep(Result(run, record(losses, [*losses, 1.0], {0: 2.0, run.steps: losses[-1]})))

engines.ENGINES = {"fake": engines.Engine("fake", "", lambda run: True, train)}
runs = [Run("digits", 1.0, "cosine", seed, 2000) for seed in range(int(sys.argv[2]))]
sys.stdin.readline()
with Store(Path(sys.argv[1])) as store:
    complete(runs, store, 1, done=lambda run: print(run.seed, flush=True))
print("complete", flush=True)
"""


def worker(path, count):
    """A fresh process, ready to start."""
    command = [sys.executable, "-c", WORKER, str(path), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def contents(path, runs):
    with Store(path) as store:
        return list(store.load(runs))


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 20])
@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_killed_at_random_moments_it_ends_as_if_it_had_never_been(tmp_path, monkeypatch, kills):
    monkeypatch.setattr(fingerprint, "_code", lambda run, *, stacked: "the same")
    count = 80 * kills
    runs = [Run("digits", 1.0, "cosine", seed, 2000) for seed in range(count)]
    once = worker(tmp_path / "once.sqlite", count)
    assert once.communicate("go", timeout=300)[0].endswith("complete\n")

    path, moments = tmp_path / "killed.sqlite", random.Random(0)
    seen = set()
    for _ in range(kills):
        process = worker(path, count)
        process.stdin.write("go\n")
        process.stdin.flush()
        # A few microseconds to some milliseconds after a random one of the next runs.
        for _ in range(moments.randrange(60)):
            process.stdout.readline()
        for _ in range(moments.randrange(20_000)):
            pass
        process.send_signal(signal.SIGKILL)
        told, _ = process.communicate(timeout=60)
        with Store(path) as store:
            finished = {run.seed for run in store.finished(runs)}
        assert finished >= seen | {int(line) for line in told.split()}, "a finished run was lost"
        seen = finished
    assert 0 < len(seen) < count
    assert worker(path, count).communicate("go", timeout=300)[0].endswith("complete\n")
    assert contents(path, runs) == contents(tmp_path / "once.sqlite", runs)
