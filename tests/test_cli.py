"""The command line, as a user meets it."""

import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import greedylr
from greedylr.cli import demo as demo_command
from greedylr.cli import main
from greedylr.cli import training as training_command
from greedylr.lab.catalogue.problems import DataError
from greedylr.lab.execution.engines import ENGINES, Engine
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.execution.store import Store, StoreError
from greedylr.lab.report.demo import plan
from greedylr.lab.results import Result, record

RUNS = 24  # of a smoke run
SAMPLE = [
    ("digits", 10.0, "greedylr"),
    ("digits", 0.1, "paper"),
    ("digits", 1.0, "cosine"),
    ("stdlib-text", 1.0, "greedylr"),
]


@pytest.fixture
def run(call):
    return lambda *arguments: call(*arguments, width=80)


@pytest.fixture
def training(monkeypatch):
    """Puts made-up results in the place of training; the attribute ``of`` limits how many come before it fails."""

    class Training:
        trained = 0
        of = 10**6
        error = KeyboardInterrupt

        def __call__(self, runs, jobs, keep, wanted):
            for run in filter(wanted, runs):
                if self.trained == self.of:
                    raise self.error
                self.trained += 1
                keep(
                    Result(run, record([1.0] * run.steps, [0.1] * (run.steps + 1), {0: 2.0, run.steps: 0.5 + run.seed}))
                )

    training = Training()
    monkeypatch.setitem(ENGINES, "pool", Engine("pool", "for tests", lambda run: True, training))
    return training


def finished(out):
    path = out / "results.sqlite"
    if not path.exists():
        return 0
    with Store(path) as store:
        return len(list(store.everything()))


def table(output):
    return output[output.index("Final validation loss") : output.index("Report:")]


def test_help_and_version_do_without_torch():
    code = "import sys; from greedylr.cli.app import app; app(['demo', '--help'], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_version(run):
    assert run("--version").stdout == f"greedylr {greedylr.__version__}\n"


def test_help_names_every_option(run):
    output = run("demo", "--help").stdout
    for option in ("--out", "--seeds", "--quick", "--help"):
        assert option in output


@pytest.mark.parametrize(
    "arguments", [("--seeds", "0"), ("--seeds", "-3"), ("--seeds", "two"), ("--sedes", "2"), ("x",)]
)
def test_bad_arguments_are_refused(run, training, arguments):
    result = run("demo", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.output
    assert not training.trained
    assert list(Path().iterdir()) == []


def without(package, *arguments):
    """What the command line says where a package is not installed."""
    code = f"import sys; sys.modules[{package!r}] = None; from greedylr.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("missing", "path", "extra"), [("scipy", "run", "pulse"), ("plotly", "run", "pulse"), ("sklearn", "store", "lab")]
)
def test_what_a_report_misses_depends_on_what_it_is_of(missing, path, extra, tmp_path):
    (tmp_path / "run").mkdir()
    Store(tmp_path / "store").close()
    assert f"pip install 'greedylr[{extra}]'" in without(missing, "report", tmp_path / path)


@pytest.mark.parametrize("missing", ["typer", "plotly.offline", "sklearn"])
def test_a_missing_package_is_named_with_the_way_to_install_it(missing, tmp_path):
    said = without(missing, "demo", "--out", tmp_path / "out")
    assert "pip install 'greedylr[demo]'" in said
    assert missing.split(".")[0] in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("command", "extra"), [("lm", "lm"), ("theory", "pulse"), ("lab", "lab"), ("watch", "pulse")])
def test_the_way_to_install_is_that_of_the_command(command, extra):
    said = without("typer", command, "--help")
    assert f"pip install 'greedylr[{extra}]'" in said
    assert f"pip install '.[{extra}]'" in said


def test_a_broken_installation_of_our_own_is_not_hidden(monkeypatch):
    monkeypatch.setitem(sys.modules, "greedylr.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match=r"greedylr\.cli\.app"):
        main()


def test_out_may_not_be_a_file_nor_below_one(run, training):
    Path("file").write_text("mine")
    for out in ("file", "file/below"):
        result = run("demo", "--out", out)
        assert result.exit_code == 1
        assert f"cannot write to {out}" in result.output
    assert Path("file").read_text() == "mine"
    assert not training.trained


def test_a_page_of_someone_else_is_not_overwritten(run, training):
    Path("out").mkdir()
    Path("out/report.html").write_text("<!doctype html><title>mine</title>")
    result = run("demo", "--out", "out")
    assert result.exit_code == 1
    assert "report.html that greedylr did not write" in " ".join(result.output.split())
    assert Path("out/report.html").read_text() == "<!doctype html><title>mine</title>"
    assert not training.trained


def test_files_that_it_did_not_write_stay(run, training):
    names = ("out/notes.txt", "out/runs/notes.txt", "out/runs/notes.json")
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("mine")
    assert run("demo", "--quick", "--out", "out").exit_code == 0
    for name in names:
        assert Path(name).read_text() == "mine"


def test_results_that_are_no_store_are_refused_and_left_alone(run, training):
    Path("out").mkdir()
    Path("out/results.sqlite").write_text("mine")
    result = run("demo", "--out", "out")
    assert result.exit_code == 1
    assert "out/results.sqlite: it is not a store of greedylr" in " ".join(result.output.split())
    assert Path("out/results.sqlite").read_text() == "mine"
    assert [file.name for file in Path("out").iterdir()] == ["results.sqlite"]
    assert not training.trained


def test_a_damaged_result_is_trained_anew_and_the_others_are_not(run, training):
    first = run("demo", "--quick", "--out", "out")
    connection = sqlite3.connect("out/results.sqlite")
    connection.execute("UPDATE run SET curves = ? WHERE scheduler = 'paper' AND problem = 'digits'", (b"half of it",))
    connection.commit()
    connection.close()
    again = run("demo", "--quick", "--out", "out")
    assert again.exit_code == 0
    assert training.trained == RUNS + 3
    assert table(again.output) == table(first.output)


def test_the_default_folder_and_two_seeds(run, training):
    result = run("demo")
    assert result.exit_code == 0
    assert training.trained == 48
    assert "2 problems × 3 learning rates × 4 schedulers × 2 seeds: 48 runs" in " ".join(result.output.split())
    assert "1.000 ± 0.707" in result.output
    assert Path("greedylr-demo/report.html").exists()


def test_a_report_that_cannot_be_written_is_an_error(run, training, monkeypatch):
    def full(file, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo_command, "write_whole", full)
    result = run("demo", "--quick")
    assert result.exit_code == 1
    assert "The report could not be written" in result.output
    assert "GreedyLR won" in result.output


def test_a_terminal_without_the_characters_gets_others(training, tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["greedylr", "demo", "--quick", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert b"24 runs" in stream.buffer.getvalue()


def test_finished_runs_are_reused_and_more_seeds_added(run, training):
    first = run("demo", "--quick")
    again = run("demo", "--quick")
    assert training.trained == RUNS
    assert "holds 24 of the 24 runs of the demonstration: nothing is left to train" in " ".join(again.output.split())
    assert table(again.output) == table(first.output)
    more = run("demo", "--quick", "--seeds", "3")
    assert training.trained == 3 * RUNS
    assert "holds 24 of the 72 runs of the demonstration; training 48 on" in " ".join(more.output.split())


def test_results_of_other_settings_are_told_of_and_not_mixed(run, training):
    run("demo", "--quick")
    result = run("demo", "--seeds", "1")
    assert training.trained == 2 * RUNS
    assert "24 results of other settings or another version: they are left alone" in " ".join(result.output.split())
    assert finished(Path("greedylr-demo")) == 2 * RUNS


def test_an_interrupt_before_anything_is_finished(run, training):
    training.of = 0
    result = run("demo", "--quick")
    assert result.exit_code == 130
    assert "nothing to show" in result.output
    assert not Path("greedylr-demo/report.html").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (training_command.BrokenProcessPool(), "killed from outside"),
        (OSError(28, "No space left on device"), "No space left"),
        (StoreError("results.sqlite: database or disk is full"), "database or disk is full"),
        (DataError("the sources cannot be read"), "the sources cannot be read"),
    ],
)
def test_what_is_finished_is_shown_also_after_an_error(run, training, error, said):
    training.of, training.error = 10, error
    result = run("demo", "--quick")
    assert result.exit_code == 1
    assert said in result.output
    assert "10 of 24 runs are finished" in result.output
    assert "Stopped early: 10 of 24" in Path("greedylr-demo/report.html").read_text(encoding="utf-8")


@pytest.mark.slow  # The lab's test of the same, with the same function and the same store, is not.
@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX's")
def test_ctrl_c_then_kill_9_then_the_rest_gives_what_one_run_gives(tmp_path, start, wait_for):
    out = tmp_path / "out"
    command = ("-c", "from greedylr.cli import main; main()", "demo", "--quick", "--out", out)
    process = start(*command)
    wait_for(lambda: finished(out) >= 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Interrupted" in output
    assert "Traceback" not in output
    assert "Error" not in output
    interrupted = finished(out)
    assert 2 <= interrupted < RUNS
    assert f"{interrupted} of 24 runs are finished" in output
    assert f"Stopped early: {interrupted} of 24" in (out / "report.html").read_text(encoding="utf-8")
    assert not list(out.rglob("*.part"))

    process = start(*command)
    wait_for(lambda: finished(out) > interrupted)
    process.kill()
    # The pipe is at its end when the last process that could write to it, the workers included, is gone.
    process.communicate(timeout=30)
    killed = finished(out)
    assert interrupted < killed < RUNS

    process = start(*command)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    words = " ".join(output.split())
    assert f"holds {killed} of the 24 runs of the demonstration; training {RUNS - killed} on" in words
    for words in ("24/24 runs", "CNN on handwritten digits", "Transformer", "cosine", "GreedyLR won", "★", "smoke run"):
        assert words in output
    assert re.search(r"0\.1×\s.*\n.*\s1×\s.*\n.*\s10×", output)
    assert sorted(file.name for file in out.iterdir()) == ["report.html", "results.sqlite"]
    assert (out / "report.html").stat().st_size < 10e6

    # A sample trained in one go instead: the same to the last bit.
    torch.set_num_threads(1)
    runs = plan(1, quick=True)
    with Store(out / "results.sqlite") as store:
        stored = list(store.load(runs))
    assert [result.run for result in stored] == runs
    checked = [result for result in stored if result.run[:3] in SAMPLE]
    assert checked == [train(result.run) for result in checked]
