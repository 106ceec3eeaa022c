"""``greedylr lab``, as a user meets it."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from greedylr.lab.catalogue.perturbations import KINDS
from greedylr.lab.catalogue.suites import SUITES, Suite
from greedylr.lab.execution import fingerprint
from greedylr.lab.execution.engines import ENGINES, Engine
from greedylr.lab.execution.store import Store
from greedylr.lab.results import Result, record

ENTRY = """
from greedylr.lab.execution import fingerprint
from greedylr.lab.catalogue import suites
fingerprint._code = lambda run, *, stacked: "the same"  # Whoever works on the code changes it.
names = ("greedylr", "cosine", "momo")
suites.SUITES["tiny"] = suites.Suite("tiny", "", ("digits",), (0.3, 1.0), 4, schedulers=names, steps=200)
from greedylr.cli import main
if __name__ == "__main__":
    main()
"""


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    suite = Suite("tiny", "for tests", ("digits",), (0.3, 1.0), 4, schedulers=("greedylr", "cosine", "momo"))
    monkeypatch.setitem(SUITES, "tiny", suite)
    monkeypatch.setattr(fingerprint, "_code", lambda run, *, stacked: "the same")
    return suite


@pytest.fixture
def run(call):
    return lambda *arguments: call("lab", *arguments, width=200)


@pytest.fixture
def training(monkeypatch):
    """Puts made-up results in the place of training; the attribute ``of`` limits how many come before it fails."""

    class Training:
        of = 10**6
        error = KeyboardInterrupt
        trained = 0
        jobs = None

        def __call__(self, runs, jobs, keep, wanted):
            self.jobs = jobs
            for run in filter(wanted, runs):
                if self.trained == self.of:
                    raise self.error
                self.trained += 1
                final = {"greedylr": 0.4, "cosine": 0.5, "momo": 2.5}[run.scheduler] + run.seed / 100
                losses = [1.0] * run.steps
                keep(Result(run, record(losses, [*losses, 1.0], {0: 2.0, 60: 1.5, 300: 1.0, 600: final})))

    training = Training()
    monkeypatch.delitem(ENGINES, "batched")
    monkeypatch.setitem(ENGINES, "pool", Engine("pool", "for tests", lambda run: True, training))
    return training


def test_a_suite_is_run_and_reported(run, training):
    result = run("run", "tiny")
    assert result.exit_code == 0
    assert "greedylr-lab.sqlite holds 0 of the 24 runs of tiny" in result.words
    assert "24/24 runs" in result.words
    report = run("report", "tiny")
    assert report.exit_code == 0
    for title in ("GreedyLR against each rival, after 10% of", "after 50% of training", "after 100% of training"):
        assert title in report.words
    assert re.search(r"after 100% of training .*cosine with warmup 2 100% 100% 100% 0% \+6\.\d% .* 0, 0 ", report.words)
    assert re.search(r"Regret .* GreedyLR 0\.8\d \(0\.8\d\) 0\.8\d", report.words)
    assert re.search(r"Runs that failed.* MoMo 8 8 –", report.words)
    assert "runs are finished" not in report.words


def test_a_second_run_trains_nothing(run, training):
    run("run", "tiny", "--store", "other.sqlite")
    again = run("run", "tiny", "--store", "other.sqlite")
    assert again.exit_code == 0
    assert training.trained == 24
    assert "other.sqlite holds 24 of the 24 runs" in again.words


def test_a_part_of_a_suite_is_run_and_reported(run, training):
    part = run("run", "tiny", "--only", "scheduler=c*", "--only", "scheduler=momo")
    assert part.exit_code == 0
    assert training.trained == 16
    assert "lab report tiny --only 'scheduler=c*' --only scheduler=momo --store greedylr-lab.sqlite" in part.words
    report = run("report", "tiny", "--only", "scheduler=momo")
    assert report.exit_code == 0
    assert re.search(r"Runs that failed.* MoMo 8 8 –", report.words)
    nothing = run("report", "tiny", "--only", "scheduler=greedylr")
    assert nothing.exit_code == 1
    assert "holds none of the 8 runs of tiny: greedylr lab run tiny --only scheduler=greedylr" in nothing.words


def test_a_part_that_there_is_not_is_refused(run, training):
    refused = run("run", "tiny", "--only", "optimizer=sgd")
    assert refused.exit_code == 1
    assert "no run has optimizer=sgd: values of optimizer here are adamw" in refused.words
    assert training.trained == 0


def test_an_interrupted_suite_is_continued_and_can_be_reported_before(run, training):
    training.of = 10
    result = run("run", "tiny")
    assert result.exit_code == 130
    assert "Interrupted. What is finished is kept" in result.words
    assert "Traceback" not in result.output
    assert "10 of 24 runs are finished" in run("report", "tiny").words
    training.of = 10**6
    assert "holds 10 of the 24 runs" in run("run", "tiny").words
    assert training.trained == 24


@pytest.mark.parametrize(
    ("error", "said"), [(OSError(28, "No space left on device"), "No space left"), (ChildProcessError("x"), "x")]
)
def test_an_error_ends_the_run_with_a_word(run, training, error, said):
    training.of, training.error = 3, error
    result = run("run", "tiny")
    assert result.exit_code == 1
    assert f"Stopped: {error}" in result.words
    assert said in result.words


def test_jobs_and_engine_are_handed_on(run, training):
    assert run("run", "tiny", "--jobs", "3", "--engine", "pool").exit_code == 0
    assert training.jobs == 3
    result = run("run", "tiny", "--engine", "steam")
    assert result.exit_code == 1
    assert "there is no engine steam: the engines are" in result.words


@pytest.mark.parametrize("command", [("run",), ("report",)])
def test_an_unknown_suite_is_named_with_those_there_are(run, command):
    result = run(*command, "huge")
    assert result.exit_code == 1
    assert f"there is no suite huge: the suites are {', '.join(SUITES)}" in result.words
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [("report", "tiny"), ("export", "runs.csv")])
def test_a_store_that_is_not_there_is_not_made(run, command):
    result = run(*command)
    assert result.exit_code == 1
    assert "there is no store greedylr-lab.sqlite" in result.words
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [("run", "tiny"), ("report", "tiny"), ("export", "runs.csv")])
def test_a_file_that_is_no_store_is_refused_and_left_alone(run, training, command):
    Path("mine").write_text("mine")
    result = run(*command, "--store", "mine")
    assert result.exit_code == 1
    assert "mine: it is not a store of greedylr" in result.words
    assert Path("mine").read_text() == "mine"
    assert training.trained == 0


def test_a_store_without_runs_of_the_suite_has_nothing_to_report(run):
    Store(Path("greedylr-lab.sqlite")).close()
    result = run("report", "tiny")
    assert result.exit_code == 1
    assert "holds none of the 24 runs of tiny" in result.words


def test_a_report_leaves_a_page_where_it_is_asked_to(run, training):
    run("run", "tiny")
    assert not list(Path().glob("**/*.html"))
    result = run("report", "tiny", "--out", "out")
    assert result.exit_code == 0
    assert "Page: out/report.html" in result.words
    assert "after 100% of training" in result.words
    html = Path("out/report.html").read_text(encoding="utf-8")
    assert "24 of 24 runs" in html
    for squeezed in re.findall(r'application/json" id="case-\d+" data-squeezed>(.*?)</script>', html):
        html += zlib.decompress(base64.b85decode(squeezed.replace(",", "<"))).decode()
    assert "greedylr lab run tiny --store greedylr-lab.sqlite" in html
    with Store(Path("greedylr-lab.sqlite")) as store:
        assert all(stored.key in html for stored in store.everything())
    assert run("report", "tiny", "--out", "out").exit_code == 0


@pytest.fixture
def shaken(monkeypatch):
    """A suite whose runs are disturbed, which its name does not say."""
    perturbations = ("none", "gradient-noise:1", "published-drift:1")
    suite = Suite("shaken", "for tests", ("digits",), (1.0,), 2, schedulers=("greedylr", "cosine"),
                  perturbations=perturbations)  # fmt: skip
    monkeypatch.setitem(SUITES, "shaken", suite)
    return suite


def test_a_suite_with_perturbations_is_reported_by_what_they_did(run, training, shaken):
    run("run", "shaken")
    result = run("report", "shaken", "--out", "out")
    assert result.exit_code == 0
    for title in ("Robustness at 1 times", "The twins", "Beside the published", "The published protocol"):
        assert title in result.words
    assert "after 100% of training" not in result.words
    assert "2 of 2 0" in result.words
    html = Path("out/report.html").read_text(encoding="utf-8")
    assert "12 of 12 runs" in html
    assert 'id="trajectories"' in html


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("suite", ["tiny", "shaken"])
def test_nothing_is_cut_however_narrow_the_terminal(run, call, training, shaken, width, suite):
    run("run", suite)
    wide = call("lab", "report", suite, width=1000).output
    narrow = call("lab", "report", suite, width=width).output
    for shown in (narrow, call("lab", "list", width=width).output):
        assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
        assert not re.search(r"\S…(?!\S*\])", shown)  # but between the ends of an interval
    numbers = re.compile(r"[-+]?\d[\d.,]*%?")
    assert set(numbers.findall(wide)) <= set(numbers.findall(narrow))
    assert {word for word in wide.split() if word.isalpha()} <= set(narrow.split())


def test_an_unfinished_suite_with_perturbations_can_be_reported(run, training, shaken):
    with Store(Path("greedylr-lab.sqlite")):
        pass
    assert "holds none of the 12 runs of shaken" in run("report", "shaken").words
    training.of = 3  # Of one seed: the twins, and a run of the two that are disturbed.
    run("run", "shaken")
    result = run("report", "shaken", "--out", "out")
    assert result.exit_code == 0
    assert "3 of 12 runs are finished" in result.words


def test_a_page_that_is_not_ours_is_left_alone(run, training):
    run("run", "tiny")
    Path("out").mkdir()
    Path("out/report.html").write_text("mine")
    result = run("report", "tiny", "--out", "out")
    assert result.exit_code == 1
    assert "cannot write to out: it has a report.html that greedylr did not write" in result.words
    assert Path("out/report.html").read_text() == "mine"
    assert run("report", "tiny", "--out", "greedylr-lab.sqlite").exit_code == 1


def test_export_writes_a_table(run, training):
    run("run", "tiny")
    assert "runs.parquet: 24 runs" in run("export", "runs.parquet").words
    assert "runs.csv: 24 runs" in run("export", "runs.csv").words
    assert len(Path("runs.csv").read_text().splitlines()) == 25
    result = run("export", "runs.xlsx")
    assert result.exit_code == 1
    assert "must end in .csv or .parquet" in result.words


def test_list_names_everything(run):
    output = run("list").words
    for name in ("quick", "breadth-small", "boundary", "digits", "adafactor", "schedule-free", "rollback", "pool"):
        assert name in output
    assert "label noise (acts on data; strengths 0.2, 0.5, 1): wrong labels: a join that slipped" in output
    assert "for tests. 24 runs: 1 problem, 2 multipliers, 1 optimizer, 3 schedulers, 1 perturbation, 4 seeds" in output


def test_list_as_json_is_json(run):
    contents = json.loads(run("list", "--json").output)
    assert contents["suites"]["tiny"]["runs"] == 24
    assert contents["suites"]["tiny"]["perturbations"] == ["none"]
    assert contents["problems"]["bandit"]["kind"] == "boundary"
    assert contents["schedulers"]["cosine"]["note"]
    assert contents["perturbations"].keys() == KINDS.keys()
    assert contents["perturbations"]["lr-jump"]["strengths"] == [-1.0, 0.5, 1.0]
    assert contents["perturbations"]["lr-jump"]["acts_on"] == "state"
    assert all(one["cause"] and one["strength"] and one["title"] for one in contents["perturbations"].values())


def test_a_missing_package_is_named_with_the_way_to_install_it(tmp_path):
    hide = "import importlib.metadata as m; old = m.version\n"
    hide += "def version(name):\n    if name == 'momo-opt': raise m.PackageNotFoundError(name)\n    return old(name)\n"
    hide += "m.version = version\n"
    command = [sys.executable, "-c", hide + ENTRY, "lab", "run", "tiny", "--store", str(tmp_path / "lab.sqlite")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "needs momo-opt, which is not installed" in result.stderr
    assert "pip install 'greedylr[lab]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX's")
def test_ctrl_c_and_kill_9_lose_nothing_that_was_finished(tmp_path, tiny, start, wait_for):
    path, script, runs = tmp_path / "lab.sqlite", tmp_path / "entry.py", replace(tiny, steps=200).runs()
    script.write_text(ENTRY)
    command = (script, "lab", "run", "tiny", "--store", path, "--jobs", "2")

    def finished():
        if not path.exists():
            return set()
        with Store(path) as store:
            return store.finished(runs)

    process = start(*command)
    wait_for(lambda: len(finished()) >= 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in output
    assert "Traceback" not in output
    interrupted = finished()
    assert 2 <= len(interrupted) < 24

    process = start(*command)
    wait_for(lambda: len(finished()) > len(interrupted))
    process.kill()
    # The pipe is at its end when the last process that could write to it, the workers included, is gone.
    process.communicate(timeout=60)
    assert interrupted < finished()


def test_help_does_without_torch():
    code = "import sys; from greedylr.cli.app import app; app(['lab', 'run', '--help'], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
