"""The recorder and the trace: everything, exactly, through crashes, in few bytes and little time."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import torch

from greedylr import Action, Decision, GreedyLR
from greedylr.pulse import Recorder, Trace, recorder, storage
from greedylr.pulse.storage import QUIET


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
            scheduler.step(1.0, batch=batch)
            kept.log(grad_norm=torch.tensor(step / 2, requires_grad=True))
            if step == 50:
                kept.log(val_loss=0.5, step=49)
                kept.mark("shard", number=7)
            if step % 33 == 0:
                kept.flush()
    trace = Trace.load(tmp_path)
    assert trace.batch["domain"][:10].tolist() == ["web", "code"] * 4 + ["web", ""]
    assert trace.batch["length"][8] == 9.0
    assert math.isnan(trace.batch["length"][9])
    assert trace.batch["length"][98] == 99.0
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
    assert list(frame.columns) == ["step", "loss", "mean", "high", "lr", "lr_1", "action"]
    assert frame.loc[frame.step == 41, "action"].item() == "NON_FINITE"


def test_a_batch_stays_beside_its_loss_when_that_is_read_later(tmp_path):
    class Later:
        """As the reader of a device: every loss one call later."""

        def __init__(self):
            self.value = None

        def put(self, loss):
            self.value = float(loss)

        def take(self):
            value, self.value = self.value, None
            return value

    scheduler = GreedyLR(optimizer())
    scheduler._reader, scheduler._indirect = Later(), True
    scheduler._read = lambda loss: (
        [before for before in [scheduler._reader.take()] if before is not None] + (scheduler._reader.put(loss) or [])
    )
    with Recorder(tmp_path, scheduler):
        for number in range(5):
            scheduler.step(torch.tensor(float(number)), batch={"number": number})
    trace = Trace.load(tmp_path)
    assert trace.losses.tolist() == trace.batch["number"].tolist() == [0.0, 1.0, 2.0, 3.0]


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
    with pytest.raises(ValueError, match=r"trace\.jsonl, line 3: not a line of a trace"):
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
import sys, torch
from greedylr import GreedyLR
from greedylr.pulse import Recorder
scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
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
        ("raise torch.OutOfMemoryError('CUDA out of memory')", "failed", "OutOfMemoryError", True),
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
    import gc

    gc.collect()
    assert Trace.load(tmp_path).losses.tolist() == [1.0]


def test_two_recorders_do_not_share_a_folder(tmp_path):
    with Recorder(tmp_path), pytest.raises(OSError, match="another recorder is writing"):
        Recorder(tmp_path)


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
    monkeypatch.setattr(recorder, "WRITE_EVERY", 0.01)
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


def test_long_runs_are_thinned_and_keep_every_decision_and_spike(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "THIN_FROM", 300_000)
    r = random.Random(1)
    scheduler = GreedyLR(optimizer())
    seen = []
    scheduler.subscribe(seen.append)
    with Recorder(tmp_path, scheduler) as kept:
        for step in range(1, 20_001):
            loss = 50.0 if step % 997 == 0 else 2.0 + r.gauss(0, 0.1)
            scheduler.step(loss, batch={"domain": "ab"[step % 2]})
            kept.log(grad_norm=loss)
            if step % 1000 == 0:
                kept.log(val_loss=float(step))
            if step % 50 == 0:
                kept.flush()
    trace = Trace.load(tmp_path)
    assert (tmp_path / storage.FILE).stat().st_size < 700_000
    assert len(trace.steps) < 15_000
    assert np.all(np.diff(trace.steps) > 0)
    assert [one.step for one in trace.decisions] == [one.step for one in seen if one.action not in QUIET]
    every = {step: (loss, after) for step, loss, _, _, after, _ in seen}
    assert all(every[step][0] == loss for step, loss in zip(trace.steps.tolist(), trace.losses.tolist()))
    assert all(every[step][1][0] == lr for step, lr in zip(trace.steps.tolist(), trace.lrs[:, 0].tolist()))
    assert trace.metrics["val_loss"].values.tolist() == [1000.0 * number for number in range(1, 21)]
    assert len(trace.metrics["grad_norm"].steps) < 15_000
    # The spike of a step that was left out is the largest loss of its stretch.
    assert np.sum(trace.highs == 50.0) == 20_000 // 997
    late = trace.steps > 10_000
    assert {step % 2 for step in trace.steps[late].tolist()} == {0}
    assert set(trace.batch["domain"][late]) == {"a"}


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


def test_a_rule_that_decides_at_every_step_is_kept_whole_while_it_is_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "THIN_FROM", 50_000)
    scheduler = GreedyLR.core(optimizer(2))
    seen = []
    scheduler.subscribe(seen.append)
    with Recorder(tmp_path, scheduler) as kept:
        for number, loss in enumerate(troubled_losses(4000)):
            scheduler.step(loss)
            if number % 33 == 0:
                kept.flush()
    trace = Trace.load(tmp_path)
    assert len(trace.steps) < 3000
    assert [repr(one) for one in trace.decisions] == [repr(one) for one in seen if one.action not in QUIET]


@pytest.mark.slow
def test_a_million_decisions_fit_in_fifty_megabytes(tmp_path):
    r = random.Random(0)
    scheduler = GreedyLR.core(optimizer())
    with Recorder(tmp_path, scheduler):
        for _ in range(1_000_000):
            scheduler.step(2.0 + r.gauss(0, 0.1))
    assert (tmp_path / storage.FILE).stat().st_size < 50e6
    assert len(Trace.load(tmp_path).decisions) > 990_000


@pytest.mark.parametrize("make", MAKERS[::2])
def test_a_state_that_was_loaded_is_nobody_elses_and_its_settings_are_in_force(tmp_path, monkeypatch, make):
    monkeypatch.setattr(recorder, "WRITE_EVERY", 0.0)
    other = GreedyLR(optimizer(), window=33) if make is GreedyLR else GreedyLR.paper(optimizer(), patience=33)
    for loss in troubled_losses(60):
        other.step(loss)
    scheduler = make(optimizer())
    with Recorder(tmp_path, scheduler):
        for loss in troubled_losses(30):
            scheduler.step(loss)
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
    with pytest.raises(TypeError, match="meta must hold numbers and strings, got a="):
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
