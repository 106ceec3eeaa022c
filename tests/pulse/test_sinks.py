"""Sinks, judged by what the tools' own readers find in what was written."""

import csv
import importlib.util
import json
import math
import sys
import types
from types import SimpleNamespace

import pytest
import torch

from greedylr import Action, GreedyLR
from greedylr.control.observers import hand_on
from greedylr.pulse import Recorder, Trace, sinks
from greedylr.pulse.recording.storage import cell
from greedylr.pulse.sinks import CsvSink, MlflowSink, Observing, TensorBoardSink, WandbSink, send


def play(script, recorder):
    for step in range(1, 101):
        if step == 50:
            script.step(1.5, Action.RAISED, 2.0)
        elif step == 73:
            script.step(math.inf, Action.NON_FINITE, 0.5)
        else:
            script.step(2 - step / 100)
        if step % 40 == 0:
            recorder.log(val_loss=step / 40)


WANTED = {
    "greedylr/lr": {50: 0.2, 73: 0.1, **{step: 0.1 if step < 50 or step > 73 else 0.2 for step in range(10, 101, 10)}},
    "greedylr/loss": {50: 1.5, 73: math.inf, **{step: 2 - step / 100 for step in range(10, 101, 10)}},
    "greedylr/raised": {50: 1.0},
    "greedylr/non_finite": {73: 1.0},
    "val_loss": {40: 1.0, 80: 2.0},
}


def check(found):
    assert set(found) == set(WANTED)
    for name, values in WANTED.items():
        assert set(found[name]) == set(values), name
        for step, value in values.items():
            assert found[name][step] == pytest.approx(value, rel=1e-6), (name, step)


def from_csv(file):
    found = {}
    for row in csv.DictReader(file.read_text().splitlines()):
        found.setdefault(row["name"], {})[int(row["step"])] = float(row["value"])
    return found


def test_csv(record, tmp_path):
    sink = CsvSink(tmp_path / "run.csv")
    send(record(play), sink)
    sink.close()
    check(from_csv(tmp_path / "run.csv"))


def test_live_as_well(record, tmp_path):
    class Both:
        """Who trains logs to everybody."""

        def __init__(self, *observers):
            self.observers = observers

        def log(self, **metrics):
            for observer in self.observers:
                observer.log(**metrics)

    with Observing(CsvSink(tmp_path / "run.csv")) as sink:

        def watched(script, recorder):
            script.subscribe(sink)
            play(script, Both(recorder, sink))

        record(watched)
    check(from_csv(tmp_path / "run.csv"))


def test_what_is_logged_live_is_of_the_last_step_or_of_one_that_is_named(script, tmp_path):
    rule = script()
    with Observing(CsvSink(tmp_path / "run.csv"), every=7) as sink:
        rule.subscribe(sink)
        sink.log(val_loss=3)
        for _ in range(5):
            rule.step(1.0)
        sink.log(val_loss=torch.tensor(2.0, requires_grad=True), probe=1)
        sink.log(step=2, val_loss=2.5)
    found = from_csv(tmp_path / "run.csv")
    assert found == {"val_loss": {0: 3.0, 5: 2.0, 2: 2.5}, "probe": {5: 1.0}}


def test_csv_is_on_disk_while_the_run_goes_on(script, tmp_path):
    rule = script()
    sink = CsvSink(tmp_path / "run.csv")
    rule.subscribe(Observing(sink))
    for step in range(1, 101):
        rule.step(2 - step / 100)
    assert len(from_csv(tmp_path / "run.csv")["greedylr/loss"]) == 10
    sink.close()


@pytest.mark.parametrize("every", [0, -1])
def test_every_is_at_least_one(record, every):
    with pytest.raises(ValueError, match="every must be"):
        Observing(None, every=every)
    with pytest.raises(ValueError, match="every must be"):
        send(record(play), None, every=every)


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"no {package}")


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard(record, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sink = TensorBoardSink(tmp_path / "tensorboard")
    send(record(play), sink)
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    check({name: {one.step: one.value for one in events.Scalars(name)} for name in events.Tags()["scalars"]})


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
def test_mlflow(record, tmp_path):
    from mlflow.tracking import MlflowClient

    store = f"sqlite:///{tmp_path}/mlflow.db"
    sink = MlflowSink(tracking_uri=store)
    send(record(play), sink)
    sink.close()
    client = MlflowClient(store)
    run = client.get_run(sink.run_id)
    assert run.info.status == "FINISHED"
    found = {
        name: {one.step: one.value for one in client.get_metric_history(sink.run_id, name)} for name in run.data.metrics
    }
    # Its SQL stores keep infinities as the largest float.
    assert found["greedylr/loss"][73] > 1e300
    found["greedylr/loss"][73] = math.inf
    check(found)


def leveldb_log(content):
    """The records of an offline run: after seven bytes, a LevelDB log of protocol buffers."""
    at, parts = 7, []
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


@needs("wandb")
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(record, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    trace = record(play)
    # wandb 0.31 now and then writes no history at all of an offline run that ends at once, whoever logs to it.
    for attempt in range(6):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        sink = WandbSink(mode="offline", dir=str(folder), project="pulse")
        send(trace, sink)
        sink.close()
        found = history(folder)
        if found:
            break
    check(found)


def history(folder):
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = {}
    for data in leveldb_log(file.read_bytes()):
        line = wandb_internal_pb2.Record()
        line.ParseFromString(data)
        if line.WhichOneof("record_type") == "history":
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in line.history.item}
            step = row.pop("greedylr/step")
            for name, value in row.items():
                if not name.startswith("_"):
                    found.setdefault(name, {})[step] = float(value)
    return found


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\tx", "\rx"])
def test_no_cell_is_a_formula(text):
    assert cell(text) == f"'{text}"
    assert cell("loss=1") == "loss=1"


def test_resuming_further_back_leaves_no_step_twice(tmp_path, monkeypatch):
    def play(scheduler, steps):
        for _ in range(steps):
            scheduler.step(2.0 - 0.001 * scheduler.last_epoch)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    with (
        Observing(CsvSink(tmp_path / "a.csv"), every=1) as rows,
        Observing(TensorBoardSink(tmp_path / "tb"), 1) as board,
    ):
        scheduler.subscribe(rows)
        scheduler.subscribe(board)
        play(scheduler, 50)
        saved = scheduler.state_dict()
        play(scheduler, 50)
        scheduler.load_state_dict(saved)
        play(scheduler, 30)
    play(scheduler, 5)  # after the sinks' end
    with open(tmp_path / "a.csv", newline="") as stream:
        steps = [int(row["step"]) for row in csv.DictReader(stream) if row["name"] == "greedylr/loss"]
    assert steps == list(range(1, 81))
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [event.step for event in events.Scalars("greedylr/loss")] == list(range(1, 81))
    with pytest.raises(ValueError, match="closed"):
        rows.log(val_loss=1.0)


def test_other_ranks_make_no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    with Observing(CsvSink(tmp_path / "a.csv")) as rows, Observing(TensorBoardSink(tmp_path / "tb")) as board:
        scheduler.subscribe(rows)
        scheduler.subscribe(board)
        scheduler.step(float("nan"))
        rows.log(val_loss=1.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"RANK": "", "LOCAL_RANK": "2"}, 2),
        ({"RANK": "first"}, 0),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, 1),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8"}, 5),
        ({"SLURM_PROCID": "5"}, 0),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "LOCAL_RANK": "1"}, 1),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, 0),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, 1),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "LOCAL_RANK": "1"}, 1),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "LOCAL_RANK": "1"}, 1),
        ({"OMPI_COMM_WORLD_RANK": "2"}, 2),
        ({"PMI_RANK": "4"}, 4),
    ],
)
def test_the_rank_that_launchers_give(monkeypatch, environment, expected):
    from greedylr.pulse.recording.ranks import rank

    names = "RANK LOCAL_RANK NODE_RANK SLURM_PROCID SLURM_NTASKS SLURM_STEP_NUM_TASKS OMPI_COMM_WORLD_RANK PMI_RANK"
    for name in names.split():
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected


def test_the_rank_that_jax_gives(monkeypatch):
    from greedylr.pulse.recording.ranks import rank

    monkeypatch.setenv("RANK", "7")
    jax = SimpleNamespace(distributed=SimpleNamespace(is_initialized=lambda: False), process_index=lambda: 3)
    monkeypatch.setitem(sys.modules, "jax", jax)
    assert rank() == 7
    jax.distributed.is_initialized = lambda: True
    assert rank() == 3
    jax.distributed = SimpleNamespace()  # of older versions
    assert rank() == 7


# A run that goes back, and observers that raise.


def checkpointed(tmp_path, sink_of, first=100, at=50, last=120):
    """A run that is killed at a step, and resumed from an earlier one with another loss; as a user does it."""

    def optimizer():
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)

    scheduler = GreedyLR(optimizer(), warmup_steps=0)
    with Observing(sink_of()) as sink:
        scheduler.subscribe(sink)
        for step in range(1, first + 1):
            scheduler.step(1.0)
            if step == at:
                state = scheduler.state_dict()
            if step % 5 == 0:
                sink.log(val_loss=1.0)
    resumed = GreedyLR(optimizer(), warmup_steps=0)
    with Observing(sink_of()) as sink:
        resumed.subscribe(sink)
        resumed.load_state_dict(state)
        for step in range(at + 1, last + 1):
            resumed.step(1.02)
            if step % 5 == 0:
                sink.log(val_loss=1.02)


def check_resumed(rows, again):
    for name, every in {"greedylr/loss": 10, "val_loss": 5}.items():
        steps = [step for step, _ in rows[name]]
        assert steps == list(range(every, 121, every)), name
        expected = {step: 1.0 if step <= (50 if again else 100) else 1.02 for step in steps}
        assert dict(rows[name]) == pytest.approx(expected), name


def rows_of(file):
    rows = {}
    for row in csv.DictReader(file.read_text().splitlines()):
        rows.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    return rows


def test_a_resumed_run_is_once_in_the_csv(tmp_path):
    file = tmp_path / "run.csv"
    checkpointed(tmp_path, lambda: CsvSink(file))
    check_resumed(rows_of(file), again=True)


def test_a_torn_row_is_left_out_and_a_new_run_replaces_the_file(tmp_path):
    file = tmp_path / "run.csv"
    file.write_bytes(b"step,name,value\r\n10,loss,0.5\r\n20,loss,0.25\r\n20,lr,0.0")
    sink = CsvSink(file)
    sink.go_back(20)
    sink.write(30, {"loss": 0.1})
    sink.close()
    assert rows_of(file) == {"loss": [(10, 0.5), (20, 0.25), (30, 0.1)]}
    sink = CsvSink(file)
    assert rows_of(file), "nothing is lost before there is something new"
    sink.write(1, {"loss": 3.0})
    sink.close()
    assert rows_of(file) == {"loss": [(1, 3.0)]}


def test_going_back_within_a_run(script, tmp_path):
    rule = script()
    with Observing(CsvSink(tmp_path / "run.csv"), every=1) as sink:
        rule.subscribe(sink)
        for loss in (1.0, 2.0, 3.0, 4.0):
            rule.step(loss)
        sink.log(step=2, val_loss=9.0)  # late, and no going back
        rule.step_number = 2
        rule.step(5.0)
    assert rows_of(tmp_path / "run.csv")["greedylr/loss"] == [(1, 1.0), (2, 2.0), (3, 5.0)]
    assert rows_of(tmp_path / "run.csv")["val_loss"] == [(2, 9.0)]


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_is_once_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "tensorboard"
    checkpointed(tmp_path, lambda: TensorBoardSink(folder))
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    check_resumed(
        {name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]}, again=True
    )


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore")
def test_a_first_run_hides_nobody_elses_events(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as own:
        for step in range(5):
            own.add_scalar("accuracy", step, step)
    sink = TensorBoardSink(tmp_path)
    sink.go_back(0)
    sink.write(1, {"loss": 1.0})
    sink.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    assert [one.step for one in events.Scalars("accuracy")] == [0, 1, 2, 3, 4]


def test_a_resumed_run_is_once_in_stores_that_only_append(tmp_path, monkeypatch):
    class Run:  # of wandb
        def __init__(self):
            self.summary, self.rows = {}, {}

        def define_metric(self, *names, **settings):
            pass

        def log(self, values):
            step = values["greedylr/step"]
            self.summary.update(values)
            for name, value in values.items():
                self.rows.setdefault(name, []).append((step, value))

    run = Run()
    checkpointed(tmp_path, lambda: WandbSink(run))
    check_resumed(run.rows, again=False)

    class Metric:  # of MLflow
        def __init__(self, key, value, timestamp, step):
            self.key, self.value, self.step = key, value, step

    history = {}

    class Client:
        def __init__(self, uri):
            pass

        def get_metric_history(self, run_id, name):
            return history.get(name, [])

        def log_batch(self, run_id, metrics):
            for one in metrics:
                history.setdefault(one.key, []).append(one)

    modules = {"mlflow.entities": {"Metric": Metric}, "mlflow.tracking": {"MlflowClient": Client}}
    monkeypatch.setattr(sinks, "import_module", lambda name: types.SimpleNamespace(**modules[name]))
    checkpointed(tmp_path, lambda: MlflowSink("a run"))
    check_resumed({name: [(one.step, one.value) for one in metrics] for name, metrics in history.items()}, again=False)


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lambda path: CsvSink(path / "run.csv"), TensorBoardSink])
def test_the_run_may_go_on_after_the_sink(tmp_path, make):
    scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    with Observing(make(tmp_path), every=1) as sink:
        scheduler.subscribe(sink)
        scheduler.step(1.0)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    scheduler.step(1.0)
    scheduler.load_state_dict(scheduler.state_dict())
    hand_on([sink], {"val_loss": 1.0})
    sink.close()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files
    with pytest.raises(ValueError, match="this sink is closed"):
        sink.log(val_loss=1.0)


class Broken:
    def __init__(self, error):
        self.error = error

    def __call__(self, decision):
        raise self.error

    def log(self, **metrics):
        raise self.error


def test_an_observer_that_raises_costs_the_others_nothing(tmp_path):
    scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    first, second = Broken(OSError("no route to host")), Broken(ValueError("later"))
    scheduler.subscribe(first)
    with Recorder(tmp_path / "run", scheduler) as recorder:
        unsubscribe = scheduler.subscribe(second)
        with pytest.raises(OSError, match="no route to host"):
            scheduler.step(1.0)
        with pytest.raises(OSError, match="no route to host"):
            hand_on([first, recorder, second], {"val_loss": 1.0})
        unsubscribe()
        scheduler.subscribe(Broken(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):  # Whoever presses Ctrl-C is not told of a broken connection.
            scheduler.step(2.0)
    trace = Trace.load(tmp_path / "run")
    assert trace.losses.tolist() == [1.0, 2.0]
    assert trace.metrics["val_loss"].values.tolist() == [1.0]
