"""A run's key is made of what decides that run, and of nothing else."""

import json
import shutil
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

import greedylr
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution import fingerprint
from greedylr.lab.runs import Run

COSINE = Run("digits", 1.0, "cosine", 0, 5)
GREEDY = COSINE._replace(scheduler="greedylr")
PLATEAU = COSINE._replace(scheduler="plateau")
RUNS = (COSINE, GREEDY, PLATEAU, COSINE._replace(problem="gru"), COSINE._replace(perturbation="label-noise:0.5"))


@pytest.fixture
def copy(tmp_path, monkeypatch, forget_code):
    """A copy of the package, of whose code keys are made."""
    folder = tmp_path / "greedylr"
    shutil.copytree(Path(greedylr.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(greedylr, "__file__", str(folder / "__init__.py"))
    forget_code()
    yield folder
    forget_code()


def keys():
    kinds = {False: "cpu", True: "stacked"}
    return {(run, one): fingerprint.key(run, arithmetic=kinds[one]) for run in RUNS for one in kinds}


@cache
def keys_of_the_package():
    """Those of the package itself, which a copy of it shares."""
    folder, copied = Path(fingerprint.__file__).parents[2], greedylr.__file__
    greedylr.__file__ = str(folder / "__init__.py")
    try:
        return keys()
    finally:
        greedylr.__file__ = copied


def change(file, before, after):
    text = file.read_text(encoding="utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), encoding="utf-8")


def changed(folder, forget_code, name, before, after):
    """The runs, and whether in a stack, whose key is another after a change of a file."""
    known = keys_of_the_package()
    change(folder / name, before, after)
    forget_code()
    return {one for one, key in keys().items() if known[one] != key}


EVERY = {(run, stacked) for run in RUNS for stacked in (False, True)}
DIGITS = {(run, stacked) for run, stacked in EVERY if run.problem == "digits"}
PROBLEMS = "lab/catalogue/problems/"
SCHEDULERS = "lab/catalogue/schedulers/"


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (PROBLEMS + "digits.py", "import torch\n", "import torch  # for tensors\n"),
        (PROBLEMS + "digits.py", '"""', '"""Changed. '),
        (PROBLEMS + "digits.py", 'title="', 'title="The best '),
        (PROBLEMS + "digits.py", 'description="', 'description="the best '),
        (PROBLEMS + "bandit.py", "torch", "torch.torch"),  # an unrelated entry
        (PROBLEMS + "__init__.py", "PROBLEMS: dict", "another = 1 + 1\nPROBLEMS: dict"),
        (SCHEDULERS + "whole_optimizers.py", "lr=1.0", "lr=2.0"),
        (SCHEDULERS + "fixed.py", 'note="the initial', 'note="always the initial'),
        ("lab/catalogue/optimizers/__init__.py", "OptimizerEntry(", "OptimizerEntry("),
        ("lab/execution/reference_loop.py", '"""Train one run', '"""Trains one run'),
        ("lab/execution/engines/pool.py", "each(", "each ("),
        ("lab/execution/engines/processes.py", "_MOST_WORKERS = 16", "_MOST_WORKERS = 8"),
        ("lab/execution/store.py", "_PATIENCE = 60.0", "_PATIENCE = 61.0"),
        ("lab/report/words.py", "def ", "def another() -> int:\n    return 1 + 1\n\n\ndef "),
        ("pulse/recording/storage.py", "FORMAT = ", "FORMAT = 1 + "),
        ("cli/app.py", "import", "import os\nimport"),
    ],
)
def test_what_does_not_decide_a_run_leaves_its_key(copy, forget_code, name, before, after):
    assert changed(copy, forget_code, name, before, after) == set()


def test_texts_of_many_runs_are_those_of_their_settings():
    texts = fingerprint.Texts()
    changes = ({}, {"seed": 3}, {"multiplier": 1}, {"multiplier": 1 / 3}, {"steps": 7}, {"absolute": True})
    for run in (run._replace(**changed) for changed in changes for run in RUNS):
        for arithmetic in ("cpu", "stacked"):
            settings = fingerprint.settings(run, arithmetic=arithmetic)
            text = texts.of(run, arithmetic=arithmetic)
            assert text == json.dumps(settings, sort_keys=True)
            assert fingerprint.key_of_text(text) == fingerprint.key(run, arithmetic=arithmetic)
            assert json.loads(text) == settings


def test_a_copy_has_the_same_keys(copy, forget_code):
    known = keys_of_the_package()
    forget_code()
    assert keys() == known


def test_a_new_file_leaves_every_key(copy, forget_code):
    known = keys_of_the_package()
    (copy / PROBLEMS / "new.py").write_text("ENTRIES = (1 + 1,)\n")
    forget_code()
    assert keys() == known


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        (PROBLEMS + "digits.py", "ENTRIES = ", "ENTRIES = () + ", DIGITS),
        (PROBLEMS + "task.py", "1 - _squared_error", "1 + _squared_error", EVERY),
        (PROBLEMS + "models.py", "return ", "return +", {one for one in EVERY if one[0].problem == "gru"}),
        ("lab/execution/reference_loop.py", "step + 1", "step - 1", {one for one in EVERY if not one[1]}),
        ("lab/execution/engines/batched/train.py", "step + 1", "step - 1", {one for one in EVERY if one[1]}),
        ("lab/execution/engines/batched/feedback.py", "+= 1", "+= 2", {(GREEDY, True), (PLATEAU, True)}),
        ("lab/execution/setup.py", "* run.multiplier", "/ run.multiplier", EVERY),
        ("lab/runs.py", "VALIDATIONS = 20", "VALIDATIONS = 10", EVERY),
        (
            SCHEDULERS + "fixed.py",
            "max(4, horizon.steps)",
            "max(5, horizon.steps)",
            {one for one in EVERY if one[0].scheduler == "cosine"},
        ),
        (SCHEDULERS + "plateau.py", "// 10", "// 20", {one for one in EVERY if one[0] == PLATEAU}),
        ("control/default/step.py", "state.seen += 1", "state.seen += 2", {one for one in EVERY if one[0] == GREEDY}),
        ("control/default/arrays.py", "\ndef ", "\n1 + 1\n\n\ndef ", {(GREEDY, True)}),
        (
            "lab/catalogue/perturbations/data.py",
            "class LabelNoise",
            "1 + 1\n\n\nclass LabelNoise",
            {one for one in EVERY if one[0].perturbation != "none"},
        ),
    ],
)
def test_what_decides_a_run_changes_its_key_and_no_other(copy, forget_code, name, before, after, expected):
    assert changed(copy, forget_code, name, before, after) == expected


@pytest.mark.parametrize("entry", ["problems.PROBLEMS", "schedulers.SCHEDULERS", "optimizers.OPTIMIZERS"])
def test_a_version_is_part_of_the_key(monkeypatch, entry):
    module, registry = entry.split(".")
    known = fingerprint.key(COSINE, arithmetic="cpu")
    entries = getattr(getattr(fingerprint, module), registry)
    name = {"PROBLEMS": COSINE.problem, "SCHEDULERS": COSINE.scheduler, "OPTIMIZERS": COSINE.optimizer}[registry]
    monkeypatch.setitem(entries, name, entries[name].__class__(**{**vars(entries[name]), "version": 2}))
    assert fingerprint.key(COSINE, arithmetic="cpu") != known


def test_versions_of_what_a_run_is_made_with_count_for_its_own_runs():
    def versions(run, arithmetic="cpu"):
        return fingerprint.settings(run, arithmetic=arithmetic)["versions"]

    assert set(versions(COSINE)) == {"Python", "torch", "scikit-learn"}
    assert set(versions(COSINE, arithmetic="stacked")) == {"Python", "torch", "scikit-learn", "numpy"}
    assert "momo-opt" in versions(COSINE._replace(scheduler="momo"))
    # Problems that are made of the standard library's sources change with every version of it.
    assert versions(COSINE)["Python"].count(".") == 1
    assert versions(COSINE._replace(problem="lm-prose"))["Python"].count(".") == 2


@pytest.mark.parametrize("kind", [int, np.int64, np.float32, np.float64])
def test_equal_runs_have_one_key_of_whatever_library_their_numbers_are(kind):
    run = COSINE._replace(multiplier=kind(1), seed=np.int64(0), steps=np.int32(5))
    assert fingerprint.key(run, arithmetic="stacked") == fingerprint.key(COSINE, arithmetic="stacked")


def test_settings_that_follow_a_name_are_part_of_the_key():
    runs = [GREEDY, GREEDY._replace(scheduler="greedylr:window=7"), GREEDY._replace(scheduler="greedylr:window=8")]
    assert len({fingerprint.key(run, arithmetic="stacked") for run in runs}) == 3
    assert len({fingerprint.settings(run, arithmetic="stacked")["code"] for run in runs}) == 1


@pytest.mark.parametrize("suite", SUITES)
def test_every_run_of_every_suite_has_a_key_of_its_own(suite):
    runs = SUITES[suite].runs()[:: max(1, len(SUITES[suite].runs()) // 500)]
    assert len({fingerprint.key(run, arithmetic="stacked") for run in runs}) == len(runs)


def first(trial):
    """One."""
    return trial.lr  # the rate


def _documented_otherwise():
    def first(trial):
        """Two, and no comment."""
        return trial.lr

    return first


def _other():
    def first(trial):
        return trial.seed

    return first


class Called:
    def __call__(self, trial):
        return trial.lr


def of(function, scheduler="cosine"):
    return fingerprint.settings_of_function(function, scheduler)["code"]


def test_a_training_function_counts_by_its_lines_without_comments_and_documentation():
    assert of(first) == of(_documented_otherwise())
    assert of(first) != of(_other())
    assert of(Called()) == of(Called()) != of(first)
    assert of(partial(first, a=1)) == of(partial(first, a=1)) != of(partial(first, a=2))
    assert of(first) != of(first, "paper")  # of another module


def test_a_scheduler_of_ones_own_counts_by_its_lines_even_where_these_are_part_of_an_expression():
    thirds, quarters = ({"mine": lambda optimizer, steps: steps // 3}, {"mine": lambda optimizer, steps: steps // 4})
    assert of(first, thirds["mine"]) != of(first, quarters["mine"])
    assert of(first, thirds["mine"]) == of(first, thirds["mine"])


def test_a_function_of_this_package_counts_with_all_that_its_module_imports():
    told = fingerprint.settings_of_function(fingerprint.versions, "transformers-greedylr")
    assert told["versions"].keys() >= {"Python", "torch", "transformers"}
    assert of(fingerprint.versions) != of(first)
