"""A cluster gives what one process gives, also when machines are lost on the way."""

import os
import re
import sys
import time
from importlib.util import find_spec

import pytest

from greedylr.lab.execution.engines import cluster as engine
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.runs import Run

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'greedylr[ray]'")

RUNS = [Run("digits", 1.0, name, seed, 30) for name in ("greedylr", "cosine") for seed in range(2)]
STUCK, *OTHERS = [Run("digits", 1.0, "greedylr", seed, 30) for seed in range(4)]


def in_order(results):
    return sorted(results, key=lambda result: result.run)


@pytest.fixture(autouse=True)
def code_as_it_is_now(forget_code):
    # The machines read it when they start, and it may have been changed since this process did.
    forget_code()


@pytest.fixture(scope="module")
def machines():
    """Two machines of one core, and one that does nothing but lead them."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            machines.add_node(num_cpus=1)
    yield machines
    machines.shutdown()


@pytest.fixture(scope="module")
def connected(machines):
    """To the machines, all along: each connection has processes of its own, which take seconds to start."""
    import ray

    ray.init(address=machines.address, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def stuck(tmp_path, monkeypatch):
    """Wait for where the run STUCK is trained, which it is never, at the first attempt: machine and process."""
    mark, there = tmp_path / "mark", engine._train

    def hanging(run):
        import ray

        if run == STUCK and not mark.exists():
            unfinished = mark.with_suffix(".part")
            unfinished.write_text(f"{ray.get_runtime_context().get_node_id()} {os.getpid()}")
            unfinished.rename(mark)
            time.sleep(600)
        return there(run)

    def where():
        for _ in range(600):
            if mark.exists():
                return mark.read_text().split()
            time.sleep(0.1)
        pytest.fail("the run was not started")

    monkeypatch.setattr(engine, "_train", hanging)
    return where


@needs_ray
@pytest.mark.slow
def test_a_cluster_of_this_machine_is_started_and_stopped(monkeypatch):
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    results = []
    engine.train_all(RUNS, 2, results.append)
    assert in_order(results) == in_order(map(train, RUNS))
    assert not ray.is_initialized()


@needs_ray
@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:1", "ray://[::1]:1"])
def test_it_is_said_which_address_is_wrong(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(engine.ClusterError, match=re.escape(f"no cluster at RAY_ADDRESS={address}: ")):
        engine.train_all(RUNS, 1, pytest.fail)


@needs_ray
@pytest.mark.slow
def test_a_run_whose_machine_is_lost_is_trained_on_another(machines, monkeypatch, stuck):
    import ray

    monkeypatch.setenv("RAY_ADDRESS", machines.address)
    results = []

    def keep(result):
        if not results:
            lost = next(node for node in machines.worker_nodes if node.node_id == stuck()[0])
            machines.remove_node(lost, allow_graceful=False)
        results.append(result)

    engine.train_all([STUCK, *OTHERS], 1, keep)
    assert in_order(results) == in_order(map(train, [STUCK, *OTHERS]))
    assert not ray.is_initialized()
    machines.add_node(num_cpus=1)


@pytest.mark.slow
@needs_ray
def test_an_interrupt_ends_what_is_under_way(machines, monkeypatch, stuck):
    monkeypatch.setenv("RAY_ADDRESS", machines.address)

    def interrupt(result):
        stuck()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.train_all([STUCK, *OTHERS], 1, interrupt)
    process = int(stuck()[1])
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the process goes on")


@pytest.mark.slow  # The pool's test of the same is not.
@needs_ray
def test_runs_are_asked_for_one_by_one_and_only_if_they_are_wanted(connected):
    import ray

    events = []

    def wanted(run):
        events.append("asked")
        return run.scheduler == "cosine"

    runs = [run._replace(seed=seed) for seed in range(6) for run in RUNS[1:3]]
    results = []

    def keep(result):
        events.append("kept")
        results.append(result)

    engine.train_all(runs, 1, keep, wanted)
    assert ray.is_initialized()
    assert in_order(results) == in_order(train(run) for run in runs if run.scheduler == "cosine")
    assert events.count("asked") == len(runs)
    assert events.index("kept") < len(runs)


@needs_ray
def test_an_error_that_is_no_failure_of_the_numbers_is_raised(connected):
    with pytest.raises(KeyError, match="no such scheduler"):
        engine.train_all([Run("digits", 1.0, "no such scheduler", 0, 5)], 1, pytest.fail)


@needs_ray
def test_results_of_other_code_are_refused(connected, monkeypatch):
    monkeypatch.setattr(engine, "key", lambda run, *, arithmetic: "another")
    with pytest.raises(engine.ClusterError, match="another version of greedylr"):
        engine.train_all(RUNS, 1, pytest.fail)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(engine.ClusterError, match=r"pip install 'greedylr\[ray\]'"):
        engine.train_all(RUNS, 1, pytest.fail)
