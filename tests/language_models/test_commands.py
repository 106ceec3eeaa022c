"""``greedylr lm``, as a user meets it."""

import os
import re
import signal

import pytest

from greedylr.pulse import Trace

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture
def lm(call):
    return lambda *arguments, width=160: call("lm", *arguments, width=width)


def test_one_command_compares_and_leaves_a_page_and_traces(lm, small, rows, tmp_path, call):
    command = ("finetune", small, rows, "--lrs", "0.03", "--seeds", 1, "--steps", 20, "--jobs", 1)
    command += ("--schedulers", "greedylr,paper:factor=0.9,smooth=False,cosine", "--out", "here")
    first = lm(*command)
    assert first.exit_code == 0, first.output
    assert "3 schedulers × 1 learning rate × 1 seed: 3 runs on 1 core, kept in here." in first.words
    assert re.search(r"GreedyLR\.paper, factor=0\.9, smooth=False +\d", first.output)
    assert re.search(r"The task's own measure .* GreedyLR \d+% ", first.words)
    assert re.search(r"below each rival's; .* at 10% at 50% at 100% .*cosine with warmup [+-]\d+\.\d% \[", first.words)
    assert "published, fine-tuning of Phi-2" in first.words
    assert (tmp_path / "here" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    folders = sorted((tmp_path / "here" / "runs").iterdir())
    assert [folder.name.split("-lr")[0] for folder in folders] == [
        "cosine",
        "greedylr",
        "paper-factor=0.9-smooth=False",
    ]
    for folder in folders:
        trace = Trace.load(folder)
        assert len(trace.losses) == 20
        assert "eval_loss" in trace.metrics
        said = call("report", folder)
        assert said.exit_code == 0, said.output
        assert (folder / "report.html").exists()
    written = {folder: (folder / "trace.jsonl").stat().st_mtime_ns for folder in folders}
    again = lm(*command)
    assert again.exit_code == 0
    assert (
        again.output.partition("training")[2].partition("\n")[2]
        == first.output.partition("training")[2].partition("\n")[2]
    )
    assert {folder: (folder / "trace.jsonl").stat().st_mtime_ns for folder in folders} == written  # Nothing is trained.


def test_a_model_that_is_kept_is_trained_further(lm, configuration, text, rows, tmp_path):
    pretrain = ("pretrain", configuration, text, "--lrs", "0.01,0.02", "--seeds", 1, "--steps", 10, "--length", 16)
    pretrain += ("--schedulers", "greedylr", "--jobs", 1, "--out", "new")
    assert lm(*pretrain).exit_code == 0
    assert not list((tmp_path / "new" / "runs").glob("*/model"))
    again = lm(*pretrain, "--keep-models")  # What is there already is not trained again.
    assert "Models: new/runs/…/model; 2 runs of before kept none" in again.words
    kept = lm(*pretrain[:-1], "kept", "--keep-models")
    assert "Models: kept/runs/…/model\n" in kept.output
    first, _ = sorted((tmp_path / "kept" / "runs").glob("*/model"))
    options = ("--schedulers", "cosine", "--seeds", 1, "--steps", 10, "--jobs", 1)
    tuned = lm("finetune", first, rows, *options, "--keep-models", "--lora", "--lrs", "0.02", "--out", "tuned")
    assert tuned.exit_code == 0, tuned.output
    (adapters,) = (tmp_path / "tuned" / "runs").glob("*/model")
    assert (adapters / "adapter_model.safetensors").is_file()
    further = lm("finetune", adapters, rows, *options, "--lrs", "0.02", "--out", "further")
    assert further.exit_code == 0, further.output


@pytest.mark.slow
def test_pretraining_and_the_sweep_of_f(lm, configuration, text, small, rows):
    made = lm(
        *("pretrain", configuration, text, "--lrs", "0.01", "--seeds", 1, "--steps", 20, "--length", 16, "--jobs", 1),
        *("--schedulers", "greedylr,cosine", "--out", "pretrain"),
    )
    assert made.exit_code == 0, made.output
    assert re.search(r"published, Llama .* \+1\.0% at 10%, \+3\.0% at 50%, \+5\.4% at 100%", made.words)
    sweep = ("factor-sweep", small, rows, "--factor", 0.5, "--factor", 0.9, "--steps", 10, "--seeds", 1, "--lrs", 0.03)
    swept = lm(*sweep, "--jobs", 1)
    assert swept.exit_code == 0, swept.output
    rules = (
        r"by F; .* rule 0\.5 0\.9 .*GreedyLR\.paper \d.* GreedyLR\.paper, smooth=False .*GreedyLR\.core .*GreedyLR \d"
    )
    assert re.search(rules, swept.words)
    assert "published: Phi-2, from 2.28 1.89" in swept.words


def test_the_list_says_what_each_model_needs(lm):
    said = lm("list")
    assert said.exit_code == 0
    assert re.search(r"phi-2 2,779\.7 M 44\.5 GB 9\.18 M 5\.7 GB fc1, fc2, q_proj, v_proj", said.words)
    assert "sql questions in English and the SQL that answers them" in said.words


def test_what_is_wrong_is_said_in_a_line(lm, small, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments, said in (
        (("finetune", "nobody/nothing", rows), "the model nobody/nothing cannot be loaded"),
        (("finetune", small, "nowhere.jsonl"), "nowhere.jsonl cannot be read: No such file"),
        (("finetune", small, rows, "--length", 8), "64 examples of .* are too long"),
        (("finetune", small, rows, "--schedulers", "greedy"), "there is no 'greedy'; there are greedylr, "),
        (("finetune", small, rows, "--schedulers", "prodigy"), "prodigy is a whole optimizer"),
        (
            ("finetune", small, rows, "--lrs", "0.1,x"),
            "--lrs must be positive numbers that differ, between commas, got",
        ),
        (("pretrain", "nowhere.json", "manual"), "there is no configuration nowhere.json"),
        (("pretrain", "llama-1m", "nowhere.txt"), "there is no text nowhere.txt"),
    ):
        result = lm(*arguments, width=500)
        assert result.exit_code == 1, arguments
        assert re.search(f"Stopped: .*{said}", result.words), result.output
        assert not list(tmp_path.glob("greedylr-lm/*/runs.sqlite"))


def test_that_tiny_is_made_first_is_announced(lm, monkeypatch, tmp_path):
    from greedylr.language_models.data import DataError
    from greedylr.language_models.recipes import FineTuning

    def stop(self):
        raise DataError("far enough")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where there is none
    monkeypatch.setattr(FineTuning, "check", stop)
    said = lm("finetune", "tiny", "sql")
    assert "tiny is pre-trained first, which takes about a minute" in said.words
    assert "Stopped: far enough" in said.words


def test_somebody_elses_page_is_left_alone(lm, small, rows, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "report.html").write_text("mine")
    result = lm("finetune", small, rows, "--out", "here")
    assert result.exit_code == 1
    assert (tmp_path / "here" / "report.html").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(start, wait_for, small, rows, tmp_path):
    command = ("-m", "greedylr", "lm", "finetune", small, rows, "--lrs", "0.03", "--seeds", "1", "--steps", "300")
    command += ("--schedulers", "constant,cosine,linear", "--out", str(tmp_path / "out"), "--jobs", "1")
    process = start(*command)
    checkpoints = tmp_path / "out" / "runs"
    wait_for(lambda: list(checkpoints.glob("cosine-*/checkpoint-*/trial.json")))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Interrupted. What is finished is kept; the same command goes on from there." in " ".join(output.split())
    trained = (checkpoints / next(checkpoints.glob("constant-*")).name / "trace.jsonl").stat().st_mtime_ns
    process = start(*command)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert (next(checkpoints.glob("constant-*")) / "trace.jsonl").stat().st_mtime_ns == trained
    assert not list(checkpoints.glob("*/checkpoint-*"))
    for folder in checkpoints.iterdir():
        trace = Trace.load(folder)
        assert (len(trace.losses), trace.failures) == (300, [])


@pytest.mark.slow
def test_two_processes_train_together(start, small, rows, tmp_path):
    command = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "greedylr", "lm", "finetune", small, rows)
    command += ("--lrs", "0.03", "--seeds", "1", "--steps", "20", "--schedulers", "greedylr,plateau,cosine")
    process = start(*command, "--out", str(tmp_path / "out"))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert output.count("3 schedulers × 1 learning rate × 1 seed") == 1  # One of them speaks.
    again = start(*command, "--out", str(tmp_path / "out"))
    repeated, _ = again.communicate(timeout=300)
    assert again.returncode == 0, repeated
    losses = [len(Trace.load(folder).losses) for folder in (tmp_path / "out" / "runs").iterdir()]
    assert losses == [20, 20, 20]
