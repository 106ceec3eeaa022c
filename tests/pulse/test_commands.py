"""``greedylr report`` and ``greedylr watch``."""

import io

import numpy as np
import pytest
from rich.console import Console

from greedylr import Action
from greedylr.pulse import Recorder


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


def test_a_run_that_only_climbs_and_anneals_is_described(call, record):
    record(losses=np.linspace(3, 1, 200), total_steps=200, name="a")
    for command in (["report", "a"], ["watch", "a", "--once"]):
        shown = call(*command).output
        assert "0 moves by the loss" in shown
        assert "Learning rate 0.0053 → 1e-06, at most 5.\n" in shown
        assert "Climbing to 4.72, steps 1–119.\nAnnealing from 5, steps 120–200." in shown


def test_a_page_of_somebody_else_is_left_alone(call, record, tmp_path):
    record(play, name="a")
    (tmp_path / "a" / "report.html").write_text("mine")
    result = call("report", "a")
    assert result.exit_code == 1
    assert "Stopped: cannot write to a: it has a report.html that greedylr did not write" in result.output
    assert (tmp_path / "a" / "report.html").read_text() == "mine"


@pytest.mark.parametrize("command", ["report", "watch"])
def test_a_folder_without_a_trace_is_said_to_be_one(call, command):
    result = call(command, "missing")
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
    from greedylr.cli import pulse as commands

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
            rule.step(1.0, batch={f"c{ORDERS}": 1.0})
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
