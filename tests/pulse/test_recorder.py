"""The recorder and the trace: everything, exactly, through crashes, in few bytes and little time."""

import gc
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import torch

from greedylr import Action, Decision, DefaultConfig, GreedyLR
from greedylr.control.observers import hand_on
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.recording import recorder, storage
from greedylr.pulse.recording.journal import Journal
from greedylr.pulse.recording.storage import QUIET
from greedylr.pulse.report import words
from greedylr.torch.device_reader import Observed


def optimizer(groups=1):
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1 / (i + 1)} for i in range(groups)]
    return torch.optim.SGD(parameters, lr=0.1)


def troubled_losses(n):
    r = random.Random(3)
    specials = {40: math.nan, 80: math.inf, 90: -math.inf, 100: 1e300, 120: 50.0, 121: 60.0, 122: 7e200}
    return [specials.get(i, 2.0 - 0.01 * i + r.gauss(0, 0.1)) for i in range(n)]


MAKERS = [
    GreedyLR,
    lambda o: GreedyLR(o, total_steps=400),
    lambda o: GreedyLR.paper(o, patience=1, smooth=True, min_lr=1e-4),
    GreedyLR.core,
]


def test_reads_back_the_learning_rate_before_the_first_step(tmp_path):
    scheduler = GreedyLR(optimizer(2), warmup_steps=2)
    for _ in range(2):  # The second goes on from the first.
        lrs = scheduler.get_last_lr()
        with Recorder(tmp_path / "run", scheduler):
            for loss in (2.0, 1.0):
                scheduler.step(loss)
    trace = Trace.load(tmp_path / "run")
    assert trace.first_lrs.tolist() == [0.1 * math.sqrt(0.5), 0.05 * math.sqrt(0.5)]
    assert len(trace.steps) == 4
    lrs = scheduler.get_last_lr()
    with Recorder(tmp_path / "later", scheduler):
        scheduler.step(0.5)
    assert Trace.load(tmp_path / "later").first_lrs.tolist() == lrs != [0.05, 0.025]


def _without(record):
    return {name: value for name, value in record.items() if name != "before"}


def test_a_record_that_does_not_say_has_no_first_learning_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(Journal, "write", lambda self, record, write=Journal.write: write(self, _without(record)))
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path / "run", scheduler):
        scheduler.step(1.0)
    trace = Trace.load(tmp_path / "run")
    assert np.isnan(trace.first_lrs).tolist() == [True]
    assert words.course(trace)[0][1].startswith(f"{scheduler.get_last_lr()[0]:.3g} → ")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("flush_every", [1, 7, 1000])
def test_reads_back_exactly_what_happened(tmp_path, make, flush_every):
    scheduler = make(optimizer(2))
    seen = []
    scheduler.subscribe(seen.append)
    with Recorder(tmp_path / "run", scheduler) as kept:
        for number, loss in enumerate(troubled_losses(400)):
            scheduler.step(loss)
            if number % flush_every == 0:
                kept.flush()
    trace = Trace.load(tmp_path / "run")
    # NaN is not equal to itself; its text is.
    wanted = [repr(one) for one in seen if one.action not in QUIET]
    assert [repr(one) for one in trace.decisions] == wanted
    assert trace.steps.tolist() == [one.step for one in seen]
    assert list(map(repr, trace.losses.tolist())) == [repr(one.loss) for one in seen]
    assert [tuple(lrs) for lrs in trace.lrs.tolist()] == [one.lr_after for one in seen]
    assert trace.status == "finished"
    assert trace.last == 400


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("flush_every", [1, 7, 1000])
def test_a_group_that_joins_is_recorded_with_the_others(tmp_path, make, flush_every):
    scheduler = make(optimizer())
    seen = []
    scheduler.subscribe(seen.append)
    with Recorder(tmp_path, scheduler) as kept:
        for number, loss in enumerate(troubled_losses(200)):
            if number == 47:
                scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.5})
            scheduler.step(loss)
            if number % flush_every == 0:
                kept.flush()
    trace = Trace.load(tmp_path)
    assert [repr(one) for one in trace.decisions] == [repr(one) for one in seen if one.action not in QUIET]
    assert trace.lrs[:, 0].tolist() == [one.lr_after[0] for one in seen]
    assert trace.foreign == []


def test_lines_are_strict_json(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler) as kept:
        for loss in troubled_losses(200):
            scheduler.step(loss)
        kept.log(val_loss=math.nan)
    for line in (tmp_path / storage.FILE).read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("torn", [b'{"step":2,"lo', b"x" * 200_000])
def test_a_torn_last_line_is_left_out_and_removed(tmp_path, torn):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler):
        scheduler.step(1.0)
    file = tmp_path / storage.FILE
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    assert Trace.load(tmp_path).losses.tolist() == [1.0]
    Recorder(tmp_path).close()
    assert file.read_bytes().startswith(whole + b'{"start"')


def test_batches_metrics_marks_and_meta_come_back(tmp_path):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler, meta={"task": "digits", "seed": 3}) as kept:
        for step in range(1, 101):
            batch = None if step % 10 == 0 else {"domain": "web" if step % 2 else "code", "length": step}
            scheduler.step(1.0, composition=batch)
            kept.log(grad_norm=torch.tensor(step / 2, requires_grad=True))
            if step == 50:
                kept.log(val_loss=0.5, step=49)
                kept.mark("shard", number=7)
            if step % 33 == 0:
                kept.flush()
    trace = Trace.load(tmp_path)
    assert trace.composition["domain"][:10].tolist() == ["web", "code"] * 4 + ["web", ""]
    assert trace.composition["length"][8] == 9.0
    assert math.isnan(trace.composition["length"][9])
    assert trace.composition["length"][98] == 99.0
    assert trace.metrics["grad_norm"].values.tolist() == [step / 2 for step in range(1, 101)]
    assert trace.metrics["val_loss"].steps.tolist() == [49]
    assert trace.validation == "val_loss"
    assert trace.marks == [(50, "shard", {"number": 7})]
    assert trace.meta["task"] == "digits"
    assert trace.config["family"] == "DefaultConfig"
    table = trace.to_arrow()
    assert table.num_rows == 100
    assert table["batch_domain"][0].as_py() == "web"
    assert table["metric_val_loss"][48].as_py() == 0.5


def test_to_pandas(tmp_path):
    pytest.importorskip("pandas")
    scheduler = GreedyLR(optimizer(2))
    with Recorder(tmp_path, scheduler):
        for loss in troubled_losses(60):
            scheduler.step(loss)
    frame = Trace.load(tmp_path).to_pandas()
    assert list(frame.columns) == ["step", "loss", "lr", "lr_1", "action"]
    assert frame.loc[frame.step == 41, "action"].item() == "NON_FINITE"


def test_a_batch_stays_beside_its_loss_when_that_is_read_later(tmp_path):
    class Later:
        """As the reader of a device: every loss one call later."""

        def __init__(self):
            self.value = None

        def put(self, loss):
            self.value = Observed(float(loss), math.nan)

        def take(self):
            value, self.value = self.value, None
            return value

    scheduler = GreedyLR(optimizer())
    scheduler._reader, scheduler._indirect = Later(), True
    scheduler._read = lambda loss, *_: (
        [before for before in [scheduler._reader.take()] if before is not None] + (scheduler._reader.put(loss) or [])
    )
    with Recorder(tmp_path, scheduler):
        for number in range(5):
            scheduler.step(torch.tensor(float(number)), composition={"number": number})
    trace = Trace.load(tmp_path)
    assert trace.losses.tolist() == trace.composition["number"].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_resumed_run_replaces_what_it_does_again(tmp_path):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler) as kept:
        for step in range(1, 51):
            scheduler.step(1.0)
            kept.log(grad_norm=1.0)
            if step == 30:
                saved = scheduler.state_dict()
    scheduler = GreedyLR(optimizer())
    scheduler.load_state_dict(saved)
    with Recorder(tmp_path, scheduler) as kept:
        for _ in range(40):
            scheduler.step(2.0)
            kept.log(grad_norm=2.0)
    trace = Trace.load(tmp_path)
    assert trace.steps.tolist() == list(range(1, 71))
    assert trace.losses.tolist() == [1.0] * 30 + [2.0] * 40
    assert trace.metrics["grad_norm"].values.tolist() == [1.0] * 30 + [2.0] * 40
    assert trace.resumed == [30]
    steps = [one.step for one in trace.decisions]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("line", [b"{}", b"[]", b"nonsense", b'{"first":1,"last":1,"n":1,"seconds":0,"loss":"!"}'])
def test_a_line_that_is_of_no_trace_is_named(tmp_path, line):
    Recorder(tmp_path).close()
    with open(tmp_path / storage.FILE, "ab") as file:
        file.write(line + b"\n")
    with pytest.warns(UserWarning, match=r"trace\.jsonl is damaged: line 3 and what follows are left out"):
        Trace.load(tmp_path)


FOR_EVER = """
import sys, time
import torch
from greedylr import GreedyLR
from greedylr.pulse import Recorder
scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
recorder = Recorder(sys.argv[1], scheduler)
step = 0
while True:
    scheduler.step(1.0 + step % 7)
    step += 1
    sys.stdout.write(f"{step} {time.monotonic()}\\n")
    sys.stdout.flush()
"""


def test_kill_loses_the_last_second_at_most(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = []
    begin = time.monotonic()
    while time.monotonic() < begin + 60 and (len(said) < 2 or said[-1][1] - said[0][1] < 2.2):
        step, at = process.stdout.readline().split()
        said.append((int(step), float(at)))
    assert Trace.load(tmp_path).status == "running"
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.stdout.close()
    process.wait()
    said += [(int(a), float(b)) for a, b in (line.split() for line in rest.splitlines(True) if line.endswith("\n"))]
    trace = Trace.load(tmp_path)
    assert trace.status == "killed"
    assert trace.steps.tolist() == list(range(1, len(trace.steps) + 1))
    killed = said[-1][1]
    assert len(trace.steps) >= max(step for step, at in said if at < killed - 1.0)


def script_that(ends, path):
    code = f"""
import sys
from types import SimpleNamespace
from greedylr import DefaultConfig
from greedylr.control import rule
from greedylr.pulse import Recorder

class Scheduler:  # without torch, which takes most of the time
    config, composition, observers = DefaultConfig(), None, []
    optimizer = SimpleNamespace(param_groups=[{{"lr": 0.1}}])
    state = rule.start(config, [0.1])

    def subscribe(self, observer):
        self.observers.append(observer)
        return lambda: self.observers.remove(observer)

    def step(self, loss):
        decision = rule.observe(self.config, self.state, loss)
        self.optimizer.param_groups[0]["lr"] = decision.lr_after[0]
        for observer in [*self.observers]:
            observer(decision)

scheduler = Scheduler()
recorder = Recorder({str(path)!r}, scheduler)
for _ in range(30): scheduler.step(1.0)
{ends}
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    return Trace.load(path)


@pytest.mark.parametrize(
    ("ends", "status", "kind", "memory"),
    [
        ("", "finished", None, False),
        ("sys.exit(0)", "finished", None, False),
        ("raise RuntimeError('no <b>')", "failed", "RuntimeError", False),
        ("import torch; raise torch.OutOfMemoryError('CUDA out of memory')", "failed", "OutOfMemoryError", True),
        ("raise MemoryError", "failed", "MemoryError", True),
        ("import os; os._exit(1)", "killed", None, False),
    ],
)
def test_how_a_process_ends_is_known(tmp_path, ends, status, kind, memory):
    trace = script_that(ends, tmp_path)
    assert trace.status == status
    assert [(one.kind, one.out_of_memory) for one in trace.failures] == ([] if kind is None else [(kind, memory)])
    assert len(trace.steps) == (30 if status != "killed" else 0)


def test_an_exception_in_the_block_is_recorded_and_goes_on(tmp_path):
    scheduler = GreedyLR(optimizer())

    def block():
        with Recorder(tmp_path, scheduler):
            scheduler.step(1.0)
            raise KeyError("lost")

    hook = sys.excepthook
    with pytest.raises(KeyError):
        block()
    trace = Trace.load(tmp_path)
    assert (trace.status, trace.failures[0].step, trace.failures[0].kind) == ("failed", 1, "KeyError")
    assert sys.excepthook is hook
    scheduler.step(1.0)  # nobody listens any more


def test_a_forgotten_recorder_writes_the_rest(tmp_path):
    def train():
        scheduler = GreedyLR(optimizer())
        Recorder(tmp_path, scheduler)
        scheduler.step(1.0)

    train()
    gc.collect()
    trace = Trace.load(tmp_path)
    assert trace.losses.tolist() == [1.0]
    assert trace.status == "abandoned"  # Nobody knows how it ended.


def test_two_recorders_do_not_share_a_folder(tmp_path):
    with Recorder(tmp_path), pytest.raises(OSError, match="another recorder is writing"):
        Recorder(tmp_path)


def test_who_reads_does_not_keep_out_who_writes(tmp_path):
    Recorder(tmp_path).close()
    stop = threading.Event()

    def read():
        while not stop.is_set():
            Trace.load(tmp_path)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(200):
            Recorder(tmp_path).close()
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_other_ranks_record_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path / "run", scheduler) as kept:
        scheduler.step(1.0)
        kept.log(val_loss=1.0)
        kept.mark("here")
    assert not (tmp_path / "run").exists()


class Deaf:
    """A rule that never moves, and does not look at what is in the optimizer."""

    config, batch = GreedyLR(optimizer()).config, None

    def __init__(self):
        self.optimizer, self.number = optimizer(), 0

    def subscribe(self, observer):
        observer.watch(self)
        self.observer = observer
        return lambda: None

    def step(self, loss):
        self.number += 1
        self.observer(Decision(self.number, loss, Action.GATHERING, (0.1,), (0.1,), {}))


@pytest.mark.parametrize("make", [Deaf, lambda: GreedyLR.paper(optimizer(), patience=100)])
def test_somebody_else_at_the_learning_rate_is_noticed(tmp_path, monkeypatch, make):
    monkeypatch.setattr(recorder, "WRITE_EVERY", 0.0)
    scheduler = make()
    with Recorder(tmp_path, scheduler):
        for step in range(10):
            scheduler.step(1.0)
            if step == 5:
                scheduler.optimizer.param_groups[0]["lr"] = 0.5
    trace = Trace.load(tmp_path)
    assert trace.foreign[0] == (7, 0.5, 0.1)


def test_memory_does_not_grow(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "WRITE_EVERY", 3600.0)  # So that time has no part in it.
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler):
        for _ in range(100):
            scheduler.step(1.0)
        tracemalloc.start()
        for _ in range(20_000):
            scheduler.step(1.0)
        current, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert current < 500_000


def test_every_step_of_a_long_run_is_kept(tmp_path):
    r = random.Random(1)
    scheduler = GreedyLR(optimizer())
    seen = []
    scheduler.subscribe(seen.append)
    with Recorder(tmp_path, scheduler) as kept:
        for step in range(1, 20_001):
            loss = 50.0 if step % 997 == 0 else 2.0 + r.gauss(0, 0.1)
            scheduler.step(loss, composition={"domain": "ab"[step % 2]})
            kept.log(grad_norm=loss)
            if step % 50 == 0:
                kept.flush()
    trace = Trace.load(tmp_path)
    assert trace.steps.tolist() == [one.step for one in seen]
    assert trace.losses.tolist() == trace.metrics["grad_norm"].values.tolist() == [one.loss for one in seen]
    assert trace.lrs[:, 0].tolist() == [one.lr_after[0] for one in seen]
    assert "".join(trace.composition["domain"]) == "ba" * 10_000
    assert [one.step for one in trace.decisions] == [one.step for one in seen if one.action not in QUIET]


def test_a_trace_of_another_format_is_refused_by_its_number(tmp_path):
    Recorder(tmp_path).close()
    file = tmp_path / storage.FILE
    started, _ = storage.from_line(file.read_bytes().splitlines(keepends=True)[0], 0)
    started["start"]["format"] = 1
    file.write_bytes(storage.to_line(started, 0)[0])
    with pytest.raises(ValueError, match=f"format 1, not {storage.FORMAT}"):
        Trace.load(tmp_path)


def test_evidence_comes_back_to_the_sign_of_zero(record):
    values = [0.0, -0.0, 3.0, 255.0, 256.0, math.inf, -math.inf, 0.1, 5e-324]

    def play(script, recorder):
        for first in range(len(values)):
            for value in values[first:] + values[:first]:
                script.step(1.0, Action.NOT_SIGNIFICANT, mean=value, count=3.0)
            recorder.flush()
        for value in (0.0, -0.0):
            script.step(value, Action.NOT_SIGNIFICANT, mean=-value)

    trace = record(play)
    told = [repr(one.evidence["mean"]) for one in trace.decisions]
    assert told == [repr(x) for i in range(len(values)) for x in values[i:] + values[:i]] + ["-0.0", "0.0"]


@pytest.mark.slow
def test_a_million_decisions_fit_in_twenty_megabytes(tmp_path):
    r = random.Random(0)
    scheduler = GreedyLR.core(optimizer())
    with Recorder(tmp_path, scheduler):
        for _ in range(1_000_000):
            scheduler.step(2.0 + r.gauss(0, 0.1))
    assert (tmp_path / storage.FILE).stat().st_size < 20e6
    assert len(Trace.load(tmp_path).decisions) > 990_000


@pytest.mark.parametrize("make", MAKERS[::2])
def test_a_state_that_was_loaded_is_nobody_elses_and_its_settings_are_in_force(tmp_path, monkeypatch, make):
    monkeypatch.setattr(recorder, "WRITE_EVERY", 0.0)
    other = (
        GreedyLR(optimizer(), config=DefaultConfig(window=33))
        if make is GreedyLR
        else GreedyLR.paper(optimizer(), patience=33)
    )
    for loss in troubled_losses(60):
        other.step(loss)
    scheduler = make(optimizer())
    with Recorder(tmp_path, scheduler):
        for loss in troubled_losses(30):
            scheduler.step(loss)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that settings are others
            scheduler.load_state_dict(other.state_dict())
        for loss in troubled_losses(30):
            scheduler.step(loss)
    trace = Trace.load(tmp_path)
    assert trace.foreign == []
    assert trace.last == 90
    assert trace.lrs[30, 0] != trace.lrs[29, 0]
    assert 33 in (trace.config.get("window"), trace.config.get("patience"))


@pytest.mark.parametrize("meta", [{"a": None}, {"a": [1]}])
def test_meta_of_another_kind_is_refused(tmp_path, meta):
    with pytest.raises(TypeError, match=r"meta\['a'\] must be a number or a string, got "):
        Recorder(tmp_path, meta=meta)


def test_a_path_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(FileExistsError):
        Recorder(tmp_path / "run")


def test_everything_but_scheduler_step_is_refused_after_closing(tmp_path):
    scheduler = GreedyLR(optimizer())
    kept = Recorder(tmp_path, scheduler)
    kept.close()
    kept.close()
    scheduler.step(1.0)
    with pytest.raises(ValueError, match="closed"):
        kept.mark("late")
    assert os.environ.get("RANK", "0") == "0"
    assert Action.GATHERING in QUIET


def steps(scheduler, n, **keywords):
    for number in range(n):
        scheduler.step(2.0 - 0.001 * number, **keywords)


def test_what_is_logged_before_the_first_step_of_a_resumed_run_costs_nothing(tmp_path):
    first = GreedyLR(optimizer())
    with Recorder(tmp_path, first):
        steps(first, 500)
    second = GreedyLR(optimizer())
    with Recorder(tmp_path, second) as kept:
        kept.log(before=0.5)  # of a checkpoint that is still to be loaded
        second.load_state_dict(first.state_dict())
        kept.log(val_loss=1.5)
        kept.mark("resumed")
        kept.flush()
        steps(second, 10)
    trace = Trace.load(tmp_path)
    assert trace.steps.tolist() == list(range(1, 511))
    assert trace.resumed == []
    assert trace.metrics["val_loss"].steps.tolist() == [500]
    assert trace.marks[0].step == 500


def test_a_run_that_is_done_again_leaves_nothing_of_the_one_before(tmp_path):
    def block():
        with Recorder(tmp_path, scheduler) as kept:
            steps(scheduler, 30)
            kept.mark("disruption")
            raise RuntimeError("broken")

    scheduler = GreedyLR(optimizer())
    with pytest.raises(RuntimeError):
        block()
    assert [one.step for one in Trace.load(tmp_path).failures] == [30]
    again = GreedyLR(optimizer())
    with Recorder(tmp_path, again):
        steps(again, 5)
    trace = Trace.load(tmp_path)
    assert (trace.last, trace.failures, trace.marks, trace.status) == (5, [], [], "finished")


def test_a_batch_that_its_owner_uses_again_is_recorded_as_it_was(tmp_path):
    scheduler, batch = GreedyLR(optimizer()), {}
    with Recorder(tmp_path, scheduler):
        for step in range(6):
            batch.update(length=step, domain="ab"[step % 2])
            scheduler.step(2.0, composition=batch)
    trace = Trace.load(tmp_path)
    assert trace.composition["length"].tolist() == [0, 1, 2, 3, 4, 5]
    assert trace.composition["domain"].tolist() == ["a", "b"] * 3


class Odd:
    def __str__(self):
        return "odd <b>"


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([[1, 2], [1, 2], {"a": 1}], ["[1, 2]", "[1, 2]", "{'a': 1}"]),
        ([Odd(), None, 3], ["odd <b>", "", "3"]),
        ([b"news", torch.zeros(2), 10**400], ["b'news'", "tensor([0., 0.])", str(10**400)[:200]]),
        ([torch.tensor(1.5), np.float64(2), True], [1.5, 2.0, 1.0]),
        ([None, 1, np.int64(2)], [math.nan, 1.0, 2.0]),
        (["x" * 1000, "\ud800", "日本"], ["x" * 200, "?", "日本"]),
    ],
    ids=range(6),
)
def test_a_batch_of_anything_costs_no_run(tmp_path, values, found):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler):
        for value in values:
            scheduler.step(1.0, composition={"column": value})
    got = Trace.load(tmp_path).composition["column"].tolist()
    assert list(map(repr, got)) == list(map(repr, found))
    Trace.load(tmp_path).to_arrow()


@pytest.mark.parametrize("loss", [1.0, torch.tensor(1.0)])
@pytest.mark.parametrize("batch", ["news", ["a"], 3])
def test_a_batch_is_a_mapping(tmp_path, batch, loss):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler), pytest.raises(TypeError, match="composition must be a mapping of names"):
        scheduler.step(loss, composition=batch)
    assert scheduler.last_epoch == 0


def test_bad_numbers_are_refused_where_they_are_given(tmp_path):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler) as kept:
        steps(scheduler, 3)
        with pytest.raises(ValueError, match="step must be at least 0, got -5"):
            kept.log(step=-5, val_loss=1.0)
        with pytest.raises(TypeError):
            kept.log(step=1.5, val_loss=1.0)
        with pytest.raises(TypeError):
            kept.log(val_loss=None)
        with pytest.raises(TypeError, match=r"why must be a number or a string, got \[1\]"):
            kept.mark("here", why=[1])
        kept.log(step=np.int64(2), val_loss=1.0)
        kept.log(step=2**40, val_loss=2.0)
        kept.log(step=7, val_loss=3.0)
        kept.mark("here", why=math.nan, count=np.float32(0.5), tensor=torch.tensor(3))
    trace = Trace.load(tmp_path)
    assert trace.metrics["val_loss"].steps.tolist() == [2, 7, 2**40]
    assert trace.marks[0].details == {"why": "nan", "count": 0.5, "tensor": 3}
    assert Recorder(tmp_path / "other", meta={"x": math.inf})._meta == {"x": "inf"}


def test_steps_beyond_four_bytes(tmp_path, script):
    scheduler = script()
    scheduler.step_number = 2**32 - 3
    with Recorder(tmp_path, scheduler):
        for step in range(6):
            scheduler.step(1.0, Action.RAISED if step % 2 else Action.GATHERING, 1.1 if step % 2 else 1.0)
    trace = Trace.load(tmp_path)
    assert trace.steps.tolist() == list(range(2**32 - 2, 2**32 + 4))
    assert [one.step for one in trace.decisions] == [2**32 - 1, 2**32 + 1, 2**32 + 3]


def test_two_schedulers_take_no_turns_on_one_recorder(tmp_path):
    one, other = GreedyLR(optimizer()), GreedyLR(optimizer())
    with Recorder(tmp_path, one) as kept:
        other.subscribe(kept)
        one.step(1.0)
        with pytest.raises(ValueError, match="two schedulers tell this recorder their decisions"):
            other.step(1.0)
    other.step(1.0)  # closed: not its business any more
    assert Trace.load(tmp_path).last == 1


def test_a_closed_recorder_does_not_stop_the_training(tmp_path):
    scheduler = GreedyLR(optimizer())
    kept = Recorder(tmp_path)
    scheduler.subscribe(kept)
    steps(scheduler, 3)
    kept.close()
    steps(scheduler, 3)
    scheduler.load_state_dict(scheduler.state_dict())
    hand_on([kept], {"val_loss": 1.0})  # as adapters do
    kept.flush()
    assert Trace.load(tmp_path).last == 3
    for late in (lambda: kept.log(val_loss=1.0), lambda: kept.mark("late"), lambda: kept.fail(ValueError())):
        with pytest.raises(ValueError, match="closed"):
            late()


def test_threads_that_log_disturb_nothing(tmp_path):
    scheduler, stop = GreedyLR.core(optimizer()), threading.Event()
    kept, logged = Recorder(tmp_path, scheduler), []

    def log():
        while not stop.is_set():
            kept.log(other=float(len(logged)))
            logged.append(None)

    thread = threading.Thread(target=log)
    thread.start()
    begin, done = time.monotonic(), 0
    while time.monotonic() < begin + 1.5:
        for _ in range(100):
            scheduler.step(1.0 + 0.001 * (done % 7))
            done += 1
        kept.flush()
    stop.set()
    thread.join()
    kept.close()
    trace = Trace.load(tmp_path)
    assert trace.steps.tolist() == list(range(1, done + 1))
    assert trace.metrics["other"].values.tolist() == list(map(float, range(len(logged))))


def test_what_a_full_disk_took_only_a_part_of_is_written_again(tmp_path):
    resource = pytest.importorskip("resource")
    scheduler = GreedyLR(optimizer())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Recorder(tmp_path, scheduler) as kept:
        steps(scheduler, 100)
        kept.flush()
        size = (tmp_path / storage.FILE).stat().st_size
        steps(scheduler, 900)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, before[1]))
        try:
            with pytest.raises(OSError, match=r"part of a line|too large"):
                kept.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        assert (tmp_path / storage.FILE).stat().st_size == size
        steps(scheduler, 50)
    assert Trace.load(tmp_path).steps.tolist() == list(range(1, 1051))


def test_a_record_that_cannot_be_ended_lets_go_of_the_folder(tmp_path, monkeypatch):
    scheduler = GreedyLR(optimizer())

    def full(*arguments):
        raise OSError("full")

    kept = Recorder(tmp_path, scheduler)
    steps(scheduler, 3)
    monkeypatch.setattr("greedylr.pulse.recording.journal.Journal.write", full)
    with pytest.raises(OSError, match="full"):
        kept.__exit__(RuntimeError, RuntimeError("broken"), None)
    monkeypatch.undo()
    Recorder(tmp_path, scheduler).close()


def test_it_is_written_while_no_step_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "WRITE_EVERY", 0.1)
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler):
        steps(scheduler, 5)
        deadline = time.monotonic() + 20
        while Trace.load(tmp_path).last < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert Trace.load(tmp_path).last == 5


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("damage", ["flipped", "missing", "exchanged"])
def test_damage_is_told_and_never_read_as_data(tmp_path, place, damage):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler) as kept:
        for _ in range(6):
            steps(scheduler, 20)
            kept.flush()
    file = tmp_path / storage.FILE
    lines = file.read_bytes().splitlines(True)
    at = {"first": 0, "middle": len(lines) // 2, "last": len(lines) - 2}[place]
    if damage == "flipped":
        middle = len(lines[at]) // 2
        lines[at] = lines[at][:middle] + bytes([lines[at][middle] ^ 1]) + lines[at][middle + 1 :]
    elif damage == "missing":
        del lines[at]
    else:
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    whole = Trace.load(tmp_path).losses.tolist()
    file.write_bytes(b"".join(lines))
    if place == "first":
        with pytest.raises(ValueError, match="line 1: not a line of a trace"):
            Trace.load(tmp_path)
        return
    with pytest.warns(UserWarning, match=rf"is damaged: line {at + 1} and what follows are left out"):
        trace = Trace.load(tmp_path)
    assert 0 < len(trace.losses) < len(whole) or place == "last"
    assert trace.losses.tolist() == whole[: len(trace.losses)]
    # Going on keeps what is sound, and puts the rest aside.
    with pytest.warns(UserWarning, match="was damaged: what came before is continued"):
        again = Recorder(tmp_path)
    again.close()
    assert Trace.load(tmp_path).losses.tolist() == trace.losses.tolist()
    (aside,) = tmp_path.glob("trace.jsonl.damaged-*")
    assert b"".join(lines).endswith(aside.read_bytes())


@pytest.mark.parametrize("kind", ["text", "link", "folder", "fifo"])
def test_what_is_not_ours_is_left_alone(tmp_path, kind):
    file, other = tmp_path / "run" / storage.FILE, tmp_path / "other"
    file.parent.mkdir()
    other.write_text("not a line")
    if kind == "text":
        file.write_text("not a line")
    elif kind == "link":
        file.symlink_to(other)
    elif kind == "folder":
        file.mkdir()
    else:
        os.mkfifo(file)
    with pytest.raises(ValueError, match="is no trace"):
        Recorder(file.parent)
    assert other.read_text() == "not a line"
    assert kind != "text" or file.read_text() == "not a line"
    if kind == "fifo":
        with pytest.raises(FileNotFoundError):
            Trace.load(file.parent)


def test_a_start_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    class Refuses:
        def subscribe(self, observer):
            raise RuntimeError("no")

    hook, threads = sys.excepthook, threading.active_count()
    with pytest.raises(RuntimeError, match="no"):
        Recorder(tmp_path, Refuses())
    gc.collect()
    assert sys.excepthook is hook
    Recorder(tmp_path).close()  # The lock is free.
    with pytest.raises(TypeError, match="meta"):
        Recorder(tmp_path, meta={"a": object()})
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= threads


def test_a_file_system_without_locks_is_no_other_recorder(tmp_path, monkeypatch):
    import errno

    from greedylr.pulse.recording import journal

    def without(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(journal.fcntl, "flock", without)
    scheduler = GreedyLR(optimizer())
    with pytest.warns(UserWarning, match="has no locks"):
        kept = Recorder(tmp_path, scheduler)
    steps(scheduler, 5)
    kept.close()
    assert Trace.load(tmp_path).last == 5


HOSTILE = [None, -1, 10**11, 1e308, "x", "\x1b[2J", [], {}, True, "\ud800", [[1]], {"a": {}}]


def test_lines_that_no_recorder_wrote_are_a_value_error_at_worst(tmp_path):
    scheduler = GreedyLR(optimizer(), decade_steps=5, config=DefaultConfig(window=3))
    with Recorder(tmp_path / "a", scheduler) as kept:
        for number in range(40):
            scheduler.step(2.0 + 0.1 * (number % 3), composition={"domain": "ab"[number % 2]})
            kept.log(val_loss=1.0)
        kept.mark("here", why="x")
        scheduler.step(float("nan"))
    records, seal = [], 0
    for line in (tmp_path / "a" / storage.FILE).read_bytes().splitlines(True):
        record, seal = storage.from_line(line, seal)
        records.append({name: value for name, value in record.items() if name != "crc"})

    def places(tree, path=()):
        if isinstance(tree, dict):
            for name, value in tree.items():
                yield from places(value, (*path, name))
        elif isinstance(tree, list):
            for name, value in enumerate(tree[:2]):
                yield from places(value, (*path, name))
        if path:
            yield path

    file = tmp_path / "b" / storage.FILE
    file.parent.mkdir()
    r = random.Random(0)
    for number, record in enumerate(records):
        for path in places(record):
            for bad in r.sample(HOSTILE, 4):
                changed = json.loads(json.dumps(records))
                inner = changed[number]
                for name in path[:-1]:
                    inner = inner[name]
                inner[path[-1]] = bad
                lines, seal = [], 0
                for one in changed:
                    line, seal = storage.to_line(one, seal)
                    lines.append(line)
                file.write_bytes(b"".join(lines))
                try:
                    trace = Trace.load(file.parent)
                except ValueError:
                    continue
                assert all("\x1b" not in phase.name for phase in trace.phases)
                assert trace.status in ("finished", "killed")


def test_another_file_of_that_name_is_left_alone(tmp_path):
    (tmp_path / storage.FILE).write_text("mine\n")
    with pytest.raises(ValueError, match="is no trace"):
        Recorder(tmp_path)
    assert (tmp_path / storage.FILE).read_text() == "mine\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a process with threads is forked
def test_a_forked_process_records_nothing_and_holds_nothing(tmp_path):
    scheduler = GreedyLR(optimizer())
    kept = Recorder(tmp_path, scheduler)
    steps(scheduler, 3)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            steps(scheduler, 40)
            kept.log(val_loss=1.0)
            sys.excepthook(RuntimeError, RuntimeError("in the child"), None)
        finally:
            os.write(tell, b".")
            time.sleep(30)
            os._exit(0)
    steps(scheduler, 2)
    os.read(told, 1)
    kept.close()
    Recorder(tmp_path).close()  # The child, which lives on, does not hold the lock.
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    trace = Trace.load(tmp_path)
    assert (trace.last, trace.failures, trace.metrics) == (5, [], {})


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(0)", "finished"),
        ("raise SystemExit(3)", "failed"),
        ('raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', "failed"),
    ],
)
def test_how_a_block_was_left(tmp_path, code, status):
    def block():
        with Recorder(tmp_path, GreedyLR(optimizer())):
            exec(code)

    with pytest.raises((SystemExit, RuntimeError)):
        block()
    trace = Trace.load(tmp_path)
    assert trace.status == status
    assert [one.out_of_memory for one in trace.failures] == ([] if status == "finished" else ["memory" in code])


@pytest.mark.parametrize(("rank", "records"), [("", True), ("00", True), ("0", True), ("1", False)])
def test_ranks_by_the_environment(tmp_path, monkeypatch, rank, records):
    monkeypatch.setenv("RANK", rank)
    Recorder(tmp_path / "run").close()
    assert (tmp_path / "run").exists() == records


@pytest.mark.parametrize(
    ("name", "validates"),
    [
        ("val_loss", True),
        ("eval/loss", True),
        ("validation.loss", True),
        ("val", True),
        ("value_loss", False),
        ("evaluate", False),
    ],
)
def test_what_is_validation(tmp_path, name, validates):
    with Recorder(tmp_path) as kept:
        kept.log(**{name: 1.0})
    assert (Trace.load(tmp_path).validation is not None) == validates


@pytest.mark.parametrize("how", ["rank", "closed"])
def test_what_is_not_recorded_is_not_kept(tmp_path, monkeypatch, how):
    if how == "rank":
        monkeypatch.setenv("RANK", "1")
    scheduler, kept = GreedyLR.core(optimizer()), Recorder(tmp_path / "run")
    scheduler.subscribe(kept)
    if how == "closed":
        kept.close()
    steps(scheduler, 1000, composition={"domain": "a"})
    if how == "rank":
        kept.log(val_loss=1.0)
    assert not any((kept._losses, kept._decisions, kept._batches, kept._changes, kept._metrics))


def test_the_error_of_another_observer_costs_the_record_nothing(tmp_path):
    scheduler = GreedyLR(optimizer())

    def faulty(decision):
        if decision.step == 3:
            raise OSError("full")

    scheduler.subscribe(faulty)
    with Recorder(tmp_path, scheduler):
        steps(scheduler, 2)
        with pytest.raises(OSError, match="full"):
            scheduler.step(1.0)
        steps(scheduler, 5)
    trace = Trace.load(tmp_path)
    assert trace.steps.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert trace.foreign == []


def test_a_group_may_join_within_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "WRITE_EVERY", 1000.0)
    scheduler = GreedyLR.core(optimizer())
    seen = []
    scheduler.subscribe(seen.append)
    with Recorder(tmp_path, scheduler):
        for number in range(400):
            if number in (100, 150, 250):
                scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.05})
            scheduler.step(1.0 + number % 3)
    trace = Trace.load(tmp_path)
    assert [repr(one) for one in trace.decisions] == [repr(one) for one in seen if one.action not in QUIET]


def test_going_back_leaves_nothing_of_what_is_done_again(tmp_path):
    scheduler = GreedyLR(optimizer(), total_steps=3000, config=DefaultConfig(window=5))
    with Recorder(tmp_path, scheduler) as kept:
        for step in range(1, 301):
            if step % 40 == 0:
                kept.flush()
            if step == 150:
                saved = scheduler.state_dict()
            scheduler.step(math.nan if step in (153, 290) else 100.0 + step)
            kept.log(val_loss=float(step))
            if step == 290:
                kept.mark("disruption")
        kept.flush()
        scheduler.load_state_dict(saved)
        for step in range(150, 400):
            scheduler.step(1.0)
            kept.log(val_loss=-float(step))
            if step % 40 == 0:
                kept.flush()
    trace = Trace.load(tmp_path)
    assert np.all(np.diff(trace.steps) > 0)
    assert trace.resumed == [149]
    assert trace.marks == []
    again = trace.steps >= 150
    assert set(trace.losses[again]) == {1.0}
    assert not [one for one in trace.decisions if one.step >= 150 and one.loss != 1.0]
    metric = trace.metrics["val_loss"]
    assert (metric.values[metric.steps >= 150] < 0).all()
    assert np.sum(metric.steps >= 150) == 250
    assert metric.steps[-1] == 399


def test_going_back_and_ending_there(tmp_path):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path, scheduler) as kept:
        for step in range(1, 300):
            scheduler.step(float(step))
            if step == 150:
                saved = scheduler.state_dict()
                kept.flush()
        scheduler.load_state_dict(saved)
    trace = Trace.load(tmp_path)
    assert np.all(np.diff(trace.steps) > 0)
    assert trace.losses.tolist() == trace.steps.tolist()


@pytest.mark.parametrize("back", [100, 239, 250])
def test_phases_after_going_back_and_after_going_on(tmp_path, back):
    scheduler, states = GreedyLR(optimizer(), total_steps=400, decade_steps=80, anneal=0.4), {}
    with Recorder(tmp_path, scheduler):
        for step in range(1, 261):
            scheduler.step(2.0 - step / 1e4)
            states[step] = scheduler.state_dict()
        scheduler.load_state_dict(states[back])
        steps(scheduler, 10)
        saved = scheduler.state_dict()
    second = GreedyLR(optimizer(), decade_steps=80, anneal=0.4)
    second.load_state_dict(saved)
    with Recorder(tmp_path, second):
        steps(second, 400 - second.last_epoch)
    assert Trace.load(tmp_path).phases == [(1, 239, "climbing"), (240, 400, "annealing")]


def test_a_warmup_does_not_go_on_under_the_limit(tmp_path):
    """The gradient holds the learning rate down from step 6 on, and lets go while the horizon anneals it."""
    weight = torch.nn.Parameter(torch.ones(1))
    trained_by = torch.optim.SGD([weight], lr=0.1)
    scheduler = GreedyLR(trained_by, total_steps=200, warmup_steps=10, config=DefaultConfig(catch_up_steps=0))
    with Recorder(tmp_path, scheduler):
        for step in range(1, 201):
            weight.grad = torch.full((1,), 77.7777 if 5 < step < 100 else 0.0777777)
            trained_by.step()
            scheduler.step(2.0)
    warmup, annealing = Trace.load(tmp_path).phases
    assert warmup == (1, 5, "warming up")
    assert annealing.name == "annealing"
    assert 100 <= annealing.first < annealing.last == 200
