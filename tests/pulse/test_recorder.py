"""The recorder: every decision, exactly, through crashes."""

import math
import random
import signal
import subprocess
import sys
import tracemalloc

import pytest
import torch

from greedylr import Action, GreedyLR
from greedylr.pulse import Recorder, read


def optimizer(groups=1):
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1 / (i + 1)} for i in range(groups)]
    return torch.optim.SGD(parameters, lr=0.1)


def troubled_losses(n):
    r = random.Random(3)
    specials = {40: math.nan, 80: math.inf, 90: -math.inf, 100: 1e300, 120: 50.0, 121: 60.0, 122: 7e200}
    return [specials.get(i, 2.0 - 0.01 * i + r.gauss(0, 0.1)) for i in range(n)]


@pytest.mark.parametrize("make", [GreedyLR, lambda o: GreedyLR.paper(o, patience=1, smooth=True)])
def test_reads_back_exactly_what_happened(tmp_path, make):
    scheduler = make(optimizer(2))
    seen = []
    scheduler.subscribe(seen.append)
    with Recorder(tmp_path / "run.jsonl") as recorder:
        scheduler.subscribe(recorder)
        for loss in troubled_losses(400):
            scheduler.step(loss)
    back = list(read(tmp_path / "run.jsonl"))
    # NaN is not equal to itself; its text is.
    assert [repr(decision) for decision in back] == [repr(decision) for decision in seen]
    assert {Action.NON_FINITE, Action.RAISED} <= {decision.action for decision in back}


def test_lines_are_strict_json(tmp_path):
    import json

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path / "run.jsonl") as recorder:
        scheduler.subscribe(recorder)
        for loss in troubled_losses(200):
            scheduler.step(loss)
    for line in (tmp_path / "run.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("torn", [b'{"step":2,"lo', b"x" * 200_000])
def test_a_torn_last_line_is_left_out_and_removed(tmp_path, torn):
    path = tmp_path / "run.jsonl"
    scheduler = GreedyLR(optimizer())
    with Recorder(path) as recorder:
        scheduler.subscribe(recorder)
        scheduler.step(1.0)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert [decision.step for decision in read(path)] == [1]
    Recorder(path).close()
    assert path.read_bytes() == whole
    path.write_bytes(torn)
    Recorder(path).close()
    assert path.read_bytes() == b""


def test_continues_an_existing_file(tmp_path):
    scheduler = GreedyLR(optimizer())
    for loss in (1.0, 2.0):
        with Recorder(tmp_path / "run.jsonl") as recorder:
            unsubscribe = scheduler.subscribe(recorder)
            scheduler.step(loss)
            unsubscribe()
    assert [(decision.step, decision.loss) for decision in read(tmp_path / "run.jsonl")] == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("line", [b"{}", b"[]", b"nonsense", b'{"step":1,"loss":1,"action":"DANCED","lr":[1]}'])
def test_a_line_that_is_no_decision_is_named(tmp_path, line):
    (tmp_path / "run.jsonl").write_bytes(b'{"step":1,"loss":1.0,"action":"GATHERING","lr":[0.1]}\n' + line + b"\n")
    with pytest.raises(ValueError, match=r"run\.jsonl, line 2: not a decision"):
        list(read(tmp_path / "run.jsonl"))


def test_kill_loses_nothing_that_was_recorded(tmp_path):
    script = """
import sys
import torch
from greedylr import GreedyLR
from greedylr.pulse import Recorder
scheduler = GreedyLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
scheduler.subscribe(Recorder(sys.argv[1]))
step = 0
while True:
    scheduler.step(1.0 + step % 7)
    step += 1
    sys.stdout.write(f"{step}\\n")
    sys.stdout.flush()
"""
    path = tmp_path / "run.jsonl"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(500):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.stdout.close()
    process.wait()
    said = 500 + sum(line.endswith("\n") for line in rest.splitlines(keepends=True))
    steps = [decision.step for decision in read(path)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= said


def test_memory_does_not_grow(tmp_path):
    scheduler = GreedyLR(optimizer())
    with Recorder(tmp_path / "run.jsonl") as recorder:
        scheduler.subscribe(recorder)
        for _ in range(100):
            scheduler.step(1.0)
        tracemalloc.start()
        for _ in range(20_000):
            scheduler.step(1.0)
        current, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert current < 50_000


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Recorder(tmp_path / "missing" / "run.jsonl")
