"""Sinks, judged by what the tools' own readers find in what was written."""

import csv
import importlib.util
import json
import math

import pytest
import torch

from greedylr import Action, GreedyLR
from greedylr.pulse.sinks import CsvSink, MlflowSink, Observing, TensorBoardSink, WandbSink, send
from greedylr.pulse.storage import cell


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
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "LOCAL_RANK": "1"}, 1),
        ({"OMPI_COMM_WORLD_RANK": "2"}, 2),
        ({"PMI_RANK": "4"}, 4),
    ],
)
def test_the_rank_that_launchers_give(monkeypatch, environment, expected):
    from greedylr.pulse.ranks import rank

    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected


def test_an_observer_that_raises_costs_the_others_nothing():
    def broken(decision):
        raise OSError("full")

    seen = []
    scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    for observer in (broken, seen.append, broken):
        scheduler.subscribe(observer)
    with pytest.raises(OSError, match="full"):
        scheduler.step(2.0)
    assert len(seen) == 1
