"""``greedylr report`` and ``greedylr watch``."""

import io
import os

import numpy as np
import pytest
from rich.console import Console

from greedylr import Action
from greedylr.cli import pulse as commands
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis.audit import Verdict, audit


def play(script, recorder):
    for step in range(1, 300):
        moves = step % 50 == 0
        script.step(
            3 - step / 200 + 0.1 * np.sin(step), Action.RAISED if moves else Action.GATHERING, 1.1 if moves else 1
        )
        if step % 50 == 0:
            recorder.log(val_loss=3 - step / 200)
    script.step(float("nan"), Action.NON_FINITE, 0.5)


def test_report_prints_a_summary_and_leaves_a_page(call, record, tmp_path):
    record(play, name="a")
    result = call("report", "a")
    assert result.exit_code == 0, result.output
    assert "a  finished, step 300" in result.output
    assert "the loss was not finite" in result.output
    assert "raised" in result.output
    assert (tmp_path / "a" / "report.html").exists()
    record(play, name="b")
    result = call("report", "a", "b", "--out", "both.html")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "both.html").read_text().count('class="run"') == 2


def test_a_run_that_only_warms_up_and_anneals_is_described(call, record):
    record(losses=np.linspace(3, 1, 200), total_steps=200, name="a")
    for command in (["report", "a"], ["watch", "a", "--once"]):
        shown = call(*command).output
        assert "0 moves by the loss" in shown
        assert "Learning rate 0.0224 → 1e-06, at most 0.1.\n" in shown
        assert "Warming up to 0.1, steps 1–19.\nAnnealing from 0.1, steps 20–200." in shown


def test_a_page_of_somebody_else_is_left_alone(call, record, tmp_path):
    record(play, name="a")
    (tmp_path / "a" / "report.html").write_text("mine")
    result = call("report", "a")
    assert result.exit_code == 1
    assert "Stopped: cannot write to a: it has a report.html that greedylr did not write" in result.output
    assert (tmp_path / "a" / "report.html").read_text() == "mine"


def test_a_folder_without_a_trace_is_said_to_be_one(call):
    result = call("report", "missing")
    assert result.exit_code == 1
    assert "Stopped:" in result.output
    assert "missing" in result.output


def test_watch_shows_curves_decisions_and_health_and_ends_with_the_run(call, record):
    record(play, name="a")
    for result in (call("watch", "a"), call("watch", "a", "--once")):
        assert result.exit_code == 0, result.output
        for part in ("loss", "LR", "val_loss", "▁", "Step 250, raised: the loss improved", "the loss was not finite"):
            assert part in result.output


def test_watch_follows_a_run_until_it_ends(tmp_path, script, monkeypatch):
    rule = script()
    recorder = Recorder(tmp_path, rule)
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        for _ in range(30):
            rule.step(1.0)
        recorder.flush()
        if len(looks) == 3:
            recorder.close()

    monkeypatch.setattr(commands.time, "sleep", sleep)
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    assert commands.watch(console, tmp_path, 0.5, once=False) == 0
    assert looks == [0.5] * 3
    assert "step 90" in console.file.getvalue()


ORDERS = "\x1b[2J\x1b]0;title\x07\x9b31m\r\x7f"


@pytest.mark.parametrize("width", ["40", "160"])
def test_text_of_others_gives_the_terminal_no_orders(call, tmp_path, script, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    for name in (f"a{ORDERS}", f"b{ORDERS}"):
        rule = script()
        with Recorder(tmp_path / name, rule, meta={f"m{ORDERS}": ORDERS}) as recorder:
            rule.step(1.0, composition={f"c{ORDERS}": 1.0})
            play(rule, recorder)
            recorder.log(**{f"val_{ORDERS}": 1.0})
            recorder.mark(ORDERS)
            recorder.fail(RuntimeError(ORDERS))
    runs = f"a{ORDERS}", f"b{ORDERS}"
    for command in (["report", *runs], ["watch", "--once", runs[0]], ["report", f"missing{ORDERS}"]):
        output = call(*command).output
        assert "�[2J" in output
        assert not [one for one in output if (one < " " and one != "\n") or "\x7f" <= one < "\xa0"]


def test_on_a_narrow_screen_no_word_is_cut_off(call, record):
    record(play, name="a")
    for command in (["report", "a"], ["watch", "--once", "a"]):
        output = call(*command, width=40).output
        assert "…" not in output
        assert max(map(len, output.splitlines())) <= 40
        assert "the loss was not finite, step 300:" in output
    output = call("report", "a", width=40).output
    assert all(name in output for name in ("moves", "confirmed", "refuted", "undecidable", "second third"))


def test_text_of_others_is_no_markup(call, tmp_path, script):
    rule = script()
    with Recorder(tmp_path / "[red]run", rule) as recorder:
        play(rule, recorder)
        recorder.log(**{"val_[bold]x": 1.0})
        recorder.fail(RuntimeError("[/oops]"))
    for command in (["report", "[red]run"], ["watch", "--once", "[red]run"]):
        result = call(*command)
        assert result.exit_code == 0, result.output
        assert "[red]run" in result.output
        assert "[/oops]" in result.output


def test_a_verdict_waits_until_its_window_is_over(tmp_path, script):
    rule = script()
    with Recorder(tmp_path / "run", rule) as recorder:
        for _ in range(60):
            rule.step(1.0)
        rule.step(50.0, Action.SPIKE)
        rule.step(50.0, Action.EXPLOSION, 0.5)
        for loss in [30.0] * 6:  # as high as before half of the window is over
            rule.step(loss)
        recorder.flush()
        (early,) = audit(Trace.load(tmp_path / "run")).moves
        assert early.verdict is Verdict.NOT_YET
        shares = audit(Trace.load(tmp_path / "run")).shares
        assert (shares.total, shares.undecidable) == (1, 1)
        console = Console(file=io.StringIO(), width=200)
        assert commands.watch(console, tmp_path / "run", 0.5, once=True) == 0
        assert "Not yet." in console.file.getvalue()
        assert "1 move by the loss" in console.file.getvalue()
        for _ in range(13):
            rule.step(0.5)
        recorder.flush()
        assert audit(Trace.load(tmp_path / "run")).moves[0].verdict is Verdict.NOT_YET
        rule.step(0.5)
        recorder.flush()
        assert audit(Trace.load(tmp_path / "run")).moves[0].verdict is not Verdict.NOT_YET


def test_a_run_that_has_ended_is_judged_by_what_there_is(tmp_path, script):
    rule = script()
    with Recorder(tmp_path / "run", rule):
        for _ in range(60):
            rule.step(1.0)
        rule.step(50.0, Action.EXPLOSION, 0.5)
        for _ in range(8):
            rule.step(1.0)
    assert audit(Trace.load(tmp_path / "run")).moves[0].verdict is Verdict.RECOVERED


def test_watch_waits_for_the_run_to_begin(tmp_path, script, monkeypatch):
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            with Recorder(tmp_path / "later", rule := script()):
                rule.step(1.0)
        assert len(looks) < 5

    monkeypatch.setattr(commands.time, "sleep", sleep)
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    assert commands.watch(console, tmp_path / "later", 0.5, once=False) == 0
    assert len(looks) == 2
    assert "later yet: waiting for it, Ctrl-C ends" in console.file.getvalue()
    assert "finished" in console.file.getvalue()


def test_watch_that_waits_ends_with_ctrl_c(tmp_path, monkeypatch):
    def sleep(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.time, "sleep", sleep)
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    assert commands.watch(console, tmp_path / "never", 0.5, once=False) == 0


def test_watch_once_says_that_there_is_nothing_yet(call, tmp_path):
    result = call("watch", "missing", "--once")
    assert result.exit_code == 1
    assert "There is no trace in missing yet" in result.output
    (tmp_path / "file").write_text("")
    result = call("watch", "file")
    assert result.exit_code == 1
    assert "Stopped: file is a file: name the folder" in result.output


def test_a_folder_whose_name_is_no_text_is_shown(call, tmp_path, script, monkeypatch):
    name = os.fsdecode(b"run-\xff")
    with Recorder(tmp_path / name, rule := script()) as recorder:
        play(rule, recorder)
    with Recorder(tmp_path / "b", rule := script()) as recorder:
        play(rule, recorder)
    for command in (["report", name, "b"], ["watch", "--once", name], ["watch", "--once", f"{name}2"]):
        result = call(*command)
        assert result.exit_code in (0, 1), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "run-�" in result.output
        result.output.encode()
    assert "run-" in (tmp_path / name / "report.html").read_text(encoding="utf-8")


def test_probe_says_where_a_schedule_should_peak(call, record):
    losses = np.linspace(3, 1, 1000)
    for name, lr in (("a", 0.1), ("b", 0.2), ("c", 0.4)):
        record(losses=losses, total_steps=1000, name=name, lr=lr)
    result = call("probe", "a")
    assert result.exit_code == 0, result.output
    # A warmup of a tenth like a square root, and a line down: a mean of 0.517.
    assert result.output == (
        "a: 0.1\nA cosine or linear schedule should peak at 0.1; one run does not say how sure that is.\n"
    )
    result = call("probe", "c", "b", "a")
    assert "c: 0.41\nb: 0.21\na: 0.1\n" in result.output
    assert "should peak at 0.21, runs alone from 0.1 to 0.41." in result.output


def test_probe_takes_nothing_from_a_run_that_is_no_good(call, record, scheduled, tmp_path):
    record(losses=np.linspace(3, 1, 50), name="short")
    record(losses=np.linspace(1, 9, 400), name="up")
    scheduler = scheduled()
    recorder = Recorder(tmp_path / "open", scheduler)
    scheduler.step(1.0)
    recorder.flush()
    for name, said in {
        "short": "short: the run must have at least 100 steps, got 50",
        "up": "up diverged from step 20 on: no learning rate can be taken from it",
        "open": "open is running: only a run that has finished has a learning rate to take",
        "missing": "missing",
    }.items():
        result = call("probe", name)
        assert result.exit_code == 1
        assert result.output.startswith("Stopped:")
        assert said in result.words
    recorder.close()
