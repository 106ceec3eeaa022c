"""The store keeps what it was given, under its own settings only, and touches nothing that is not its own."""

import json
import math
import sqlite3
import subprocess
import sys
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest

from greedylr.lab.execution import fingerprint
from greedylr.lab.execution.export import export
from greedylr.lab.execution.store import Store, StoreError, _digest
from greedylr.lab.results import Result, record
from greedylr.lab.runs import Run


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lab.sqlite"


@pytest.fixture
def store(path):
    with Store(path) as store:
        yield store


def change(path, statement, *values):
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def sign(path):
    """Give every row the digest of what is in it, as somebody would who changes a store on purpose."""
    connection = sqlite3.connect(path)
    for row in connection.execute("SELECT * FROM run").fetchall():
        connection.execute("UPDATE run SET digest = ? WHERE key = ?", (_digest(row[:-1]), row[0]))
    connection.commit()
    connection.close()


def test_what_was_saved_is_loaded_in_the_order_asked_for(path, runs, made_up, decision):
    results = [made_up(run, 1 / 3, decisions=[decision(mean=2 / 3)]) for run in runs]
    with Store(path) as store:
        for result in results:
            store.save(result)
    with Store(path) as store:
        assert list(store.load(runs)) == results
        assert list(store.load(runs[::-1])) == results[::-1]
        assert store.finished(runs) == set(runs)
        assert [stored.result for stored in store.everything()] == sorted(
            results, key=lambda result: (result.run.scheduler, result.run.seed)
        )


def test_rows_are_read_in_portions_and_come_as_if_one_by_one(store, runs, made_up, monkeypatch):
    for run in runs[::2]:
        store.save(made_up(run, 0.25))
        store.save(replace(made_up(run, 0.5), arithmetic="stacked"))
    for run in runs[1::2]:
        store.save(made_up(run, 0.75))
    asked = [*runs[::-1], *runs]
    expected = [
        replace(made_up(run, 0.5), arithmetic="stacked") if run in runs[::2] else made_up(run, 0.75) for run in asked
    ]
    everything = list(store.everything())
    for portion in (1, 2, 3):
        monkeypatch.setattr("greedylr.lab.execution.store._PORTION", portion)
        assert list(store.load(iter(asked))) == expected
        assert list(store.everything()) == everything


def test_decisions_on_several_parameter_groups_are_kept(store, runs, made_up, decision):
    both = decision()._replace(lr_before=(0.1, 0.3), lr_after=(0.2, 0.6))
    result = made_up(runs[0], decisions=[both])
    store.save(result)
    assert list(store.load(runs)) == [result]
    store.save(made_up(runs[0], decisions=[both._replace(lr_after=(0.2,))]))
    assert list(store.load(runs)) == []  # A group has been lost.


def test_results_are_kept_by_what_they_depend_on(store, runs, made_up):
    about = {"trial": {"problem": "mine", "seed": 0}, "lr": 0.1, "arithmetic": "own", "versions": {}, "code": "a"}
    assert store.find(about) is None
    result = replace(made_up(runs[0]), arithmetic="own")
    store.save(result, about)
    assert store.find(about) == result
    assert store.find(about | {"code": "b"}) is None
    assert list(store.load(runs)) == []  # It is no run of the catalogue.
    assert store.present() == []
    assert [stored.settings for stored in store.everything()] == [about]


def test_equal_runs_have_one_key_however_their_numbers_are_written(store, runs, made_up):
    whole, written = runs[0]._replace(multiplier=1), runs[0]._replace(multiplier=1.0)
    store.save(made_up(whole))
    assert store.finished([written]) == {whole}
    assert not store.damaged


def test_failures_and_non_finite_numbers_survive(store, runs, made_up):
    kept = record([1.0, math.inf], [0.1, 0.1, 0.2], {0: 2.0}, config={"mode": "min"})
    broken = Result(runs[0], kept, failure="ZeroDivisionError: division by zero")
    store.save(broken)
    store.save(made_up(runs[1], math.nan))
    first, second = store.load(runs[:2])
    assert first == broken
    assert math.isnan(first.final_loss)
    assert math.isnan(second.final_loss)
    assert second.failure is None


def test_clean_losses_survive(store, runs, made_up):
    clean = [0.5, math.inf, *[0.25] * (runs[0].steps - 2)]
    result = made_up(runs[0]._replace(perturbation="label-noise:0.5"), clean_losses=clean)
    store.save(result)
    assert list(store.load([result.run])) == [result]


def test_what_was_trained_in_a_stack_is_kept_beside_what_was_not(store, runs, made_up):
    alone, stacked = made_up(runs[0], 0.25), replace(made_up(runs[0], 0.5), arithmetic="stacked")
    store.save(alone)
    assert list(store.load(runs, arithmetic="stacked")) == []
    assert store.keys(runs) == {runs[0]: fingerprint.key(runs[0], arithmetic="cpu")}
    store.save(stacked)
    assert list(store.load(runs)) == [stacked]
    assert store.keys(runs) == {runs[0]: fingerprint.key(runs[0], arithmetic="stacked")}
    assert store.keys(runs, arithmetic="cpu") == {runs[0]: fingerprint.key(runs[0], arithmetic="cpu")}
    assert list(store.load(runs, arithmetic="cpu")) == [alone]
    assert store.finished(runs) == store.finished(runs, arithmetic="cpu") == {runs[0]}
    assert store.present() == [runs[0]]
    assert store.others(runs) == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 6},
        {"multiplier": 2.0},
        {"seed": 9},
        {"scheduler": "paper"},
        {"optimizer": "sgd"},
        {"problem": "mlp"},
        {"perturbation": "label-noise:0.5"},
    ],
)
def test_other_settings_are_not_mixed(store, runs, made_up, changed):
    store.save(made_up(runs[0]))
    assert list(store.load([runs[0]._replace(**changed)])) == []


@pytest.mark.parametrize("what", ["_versions", "_code", "learning_rate"])
def test_other_versions_are_not_mixed_and_stay(store, runs, made_up, monkeypatch, what):
    store.save(made_up(runs[0], 0.25))
    monkeypatch.setattr(fingerprint, what, lambda *_, **__: {"greedylr": "another"})
    assert store.finished(runs) == set()
    store.save(made_up(runs[0], 0.75))
    assert [result.final_loss for result in store.load(runs)] == [0.75]
    assert [stored.result.final_loss for stored in store.everything()] in ([0.25, 0.75], [0.75, 0.25])
    assert store.others(runs) == 1


def test_runs_beside_those_in_question_are_counted(store, runs, made_up):
    assert store.others(runs) == 0
    for run in runs:
        store.save(made_up(run))
    assert store.others(runs) == 0
    assert store.others(runs[:3]) == len(runs) - 3
    assert store.others([run._replace(steps=run.steps + 1) for run in runs]) == len(runs)


def test_a_failed_write_leaves_what_was_there(path, runs, made_up):
    with Store(path) as store:
        store.save(made_up(runs[0], 0.25))
        store._connection.execute("PRAGMA max_page_count = 1")  # No more than there are: the disk is full.
        losses = np.random.default_rng(0).random(10_000)
        large = Result(runs[0], record(losses, [*losses, 0.1], {0: 2.0, 10_000: 0.75}))
        with pytest.raises(StoreError, match=r"lab\.sqlite.* is full"):
            store.save(large)
    with Store(path) as store:
        assert [result.final_loss for result in store.load(runs)] == [0.25]


def test_the_version_of_the_schedulers_package_counts_only_for_its_own_runs():
    assert (
        "schedulefree" in fingerprint.settings(Run("digits", 1.0, "schedule-free", 0, 5), arithmetic="cpu")["versions"]
    )
    assert "schedulefree" not in fingerprint.settings(Run("digits", 1.0, "cosine", 0, 5), arithmetic="cpu")["versions"]


@pytest.mark.parametrize("column", ["curves", "validations", "details", "settings"])
@pytest.mark.parametrize("damaged", [b"", b"half of it", b"\0" * 40])
def test_a_damaged_row_is_as_good_as_none_and_is_written_anew(path, runs, made_up, column, damaged):
    with Store(path) as store:
        store.save(made_up(runs[0]))
        store.save(made_up(runs[1]))
    change(path, f"UPDATE run SET {column} = ? WHERE scheduler = ?", damaged, runs[0].scheduler)
    with Store(path) as store:
        assert store.finished(runs) == {runs[1]}
        assert len(list(store.everything())) == 1
        store.save(made_up(runs[0]))
        assert store.finished(runs) == {runs[0], runs[1]}


def test_a_flipped_bit_is_noticed(path, runs, made_up):
    with Store(path) as store:
        store.save(made_up(runs[0]))
    connection = sqlite3.connect(path)
    (blob,) = connection.execute("SELECT curves FROM run").fetchone()
    connection.close()
    for place in range(len(blob)):
        flipped = bytes(byte ^ (16 if index == place else 0) for index, byte in enumerate(blob))
        change(path, "UPDATE run SET curves = ?", flipped)
        with Store(path) as store:
            assert store.finished(runs) == set() or list(store.load(runs)) == [made_up(runs[0])]


@pytest.mark.parametrize("bytes_", [b"mine", b"mine" * 10_000, b"SQLite format 3\0" + b"mine" * 10_000])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path, bytes_):
    path.write_bytes(bytes_)
    with pytest.raises(StoreError, match=r"lab\.sqlite: it is not a store of greedylr"):
        Store(path)
    assert path.read_bytes() == bytes_
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("wal", [False, True])
def test_a_database_of_another_program_is_refused_and_left_alone(path, wal):
    if wal:
        change(path, "PRAGMA journal_mode = WAL")
    change(path, "CREATE TABLE mine (a)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's SQLite file"):
        Store(path)
    assert path.read_bytes() == before


def test_a_store_of_a_later_layout_is_refused(path):
    Store(path).close()
    change(path, "PRAGMA user_version = 5")
    with pytest.raises(StoreError, match="its layout is 5, and this version of greedylr knows 4"):
        Store(path)


def test_a_folder_or_a_missing_folder_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing" / "lab.sqlite"):
        with pytest.raises(StoreError, match="unable to open"):
            Store(path)


def test_a_file_truncated_in_the_middle_is_an_error_not_a_new_store(path, runs, made_up):
    with Store(path) as store:
        for run in runs * 20:
            store.save(made_up(run._replace(steps=run.steps + 100)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreError, match=r"lab\.sqlite"), Store(path) as store:
        list(store.everything())


WRITER = """
import sys
from pathlib import Path
from greedylr.lab.execution import fingerprint
from greedylr.lab.results import Result, record
from greedylr.lab.results import Result, record
from greedylr.lab.runs import Run
from greedylr.lab.execution.store import Store

fingerprint._code = lambda run, *, stacked: "the same"  # Whoever works on the code changes it.
path, first = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for seed in range(first, first + 50):
    with Store(path) as store:
        store.save(Result(Run("digits", 1.0, "cosine", seed, 2), record([1.0] * 2, [0.1] * 3, {0: 2.0, 2: 0.5})))
"""


def test_processes_make_and_fill_one_store_together(path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_code", lambda run, *, stacked: "the same")
    command = [sys.executable, "-c", WRITER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, str(path), first], **pipes) for first in ("0", "30")]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # Both start at once.
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    runs = [Run("digits", 1.0, "cosine", seed, 2) for seed in range(80)]
    with Store(path) as store:
        assert store.finished(runs) == set(runs)


CREATES = """
import sys, time
from pathlib import Path
from greedylr.lab.execution.store import Store
path, start = Path(sys.argv[1]), float(sys.argv[2])
for number in range(30):
    time.sleep(max(0.0, start + 0.1 * number - time.time()))
    Store(path.with_name(f"{number}.sqlite")).close()
"""


@pytest.mark.slow
def test_processes_that_make_one_store_at_once_all_have_it(path):
    start = str(time.time() + 8)
    command = [sys.executable, "-c", CREATES, str(path), start]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert errors == [""] * 4


def test_a_row_that_is_not_what_its_key_says_is_left_out(path, runs, made_up):
    with Store(path) as store:
        for run in runs:
            store.save(made_up(run))
    swap = "CASE scheduler WHEN ? THEN ? WHEN ? THEN ? ELSE scheduler END"
    one, other = runs[0].scheduler, next(run.scheduler for run in runs if run.scheduler != runs[0].scheduler)
    change(path, f"UPDATE run SET scheduler = {swap}", one, other, other, one)
    sign(path)
    with Store(path) as store:
        swapped = [run for run in runs if run.scheduler in (one, other)]
        rest = [run for run in runs if run not in swapped]
        assert [result.run for result in store.load(runs)] == rest
        assert set(store.present()) == {stored.result.run for stored in store.everything()} == set(rest)
        assert store.damaged == {fingerprint.key(run, arithmetic="cpu") for run in swapped}
        store.save(made_up(runs[0]))  # as it is trained again
        assert [result.run for result in store.load(runs[:1])] == [runs[0]]


COLUMNS = "problem optimizer multiplier scheduler perturbation seed steps failure settings curves validations details"


@pytest.mark.parametrize("signed", [False, True], ids=["changed", "signed"])
@pytest.mark.parametrize("column", COLUMNS.split())
@pytest.mark.parametrize("bad", [None, 7, 2.5, "x", b"x", "[]", "null", 1e999], ids=repr)
def test_a_cell_of_another_kind_is_a_row_less_and_nothing_else(path, runs, made_up, tmp_path, column, bad, signed):
    with Store(path) as store:
        for run in runs[:2]:
            store.save(made_up(run))
    try:
        change(path, f"UPDATE run SET {column} = ? WHERE key = ?", bad, fingerprint.key(runs[0], arithmetic="cpu"))
    except sqlite3.IntegrityError:
        return  # SQLite refuses it.
    if signed:
        sign(path)
    with Store(path) as store:
        kept = [stored.result.run for stored in store.everything()]
        assert runs[1] in kept
        if runs[0] in kept:  # It was there before, or it is a reason why the run broke down.
            assert signed or bad is None
            assert column == "failure"
        assert set(store.present()) <= set(runs)
        assert list(store.load(runs[1:2]))
        export(store, tmp_path / "all.csv")


SOUND = {
    "metric": None,
    "config": {"mode": "min"},
    "last_lr": 0.1,
    "decisions": [[1, 1.0, "CUT", [0.1], [0.05], {}]],
    "clean_losses": [],
}


@pytest.mark.parametrize(
    "details",
    [
        SOUND | {"metric": "good"},
        SOUND | {"metric": True},
        SOUND | {"metric": 10**400},
        SOUND | {"decisions": [1]},
        SOUND | {"decisions": [[1, 1.0, "JUMP", [0.1], [0.05], {}]]},
        SOUND | {"decisions": [[1, 1.0, "CLIMBING", [0.1], [0.05], {}]]},
        SOUND | {"decisions": [[True, 1.0, "CUT", [0.1], [0.05], {}]]},
        SOUND | {"decisions": [[1, "1.0", "CUT", [0.1], [0.05], {}]]},
        SOUND | {"decisions": [[1, 1.0, "CUT", [0.1], [0.05], {"mean": "a"}]]},
        SOUND | {"decisions": [[1, 1.0, "CUT", [], [], {}]]},
        SOUND | {"decisions": [[1, 1.0, ["CUT"], [0.1], [0.05], {}]]},
        SOUND | {"clean_losses": ["a"] * 5},
        SOUND | {"clean_losses": [1.0] * 4},
        SOUND | {"clean_losses": [1.0] * 6},
        SOUND | {"clean_losses": None},
        SOUND | {"decisions": 7},
        SOUND | {"config": 7},
        SOUND | {"last_lr": None},
        {"metric": None, "decisions": []},
        [],
    ],
)
def test_details_of_another_kind_are_a_row_less(path, runs, made_up, details):
    with Store(path) as store:
        store.save(made_up(runs[0]))
    change(path, "UPDATE run SET details = ?", zlib.compress(json.dumps(details).encode()))
    sign(path)
    with Store(path) as store:
        assert list(store.load(runs)) == list(store.everything()) == []
        assert store.damaged == {fingerprint.key(runs[0], arithmetic="cpu")}


def test_a_store_that_may_not_be_written_can_be_read(path, runs, made_up, monkeypatch):
    with Store(path) as store:
        store.save(made_up(runs[0]))
    before = path.read_bytes()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with Store(path) as store:
        assert [result.run for result in store.load(runs)] == [runs[0]]
        assert store.present() == [runs[0]]
        with pytest.raises(StoreError, match="readonly"):
            store.save(made_up(runs[1]))
    assert path.read_bytes() == before
    path.write_bytes(b"not a store at all")
    with pytest.raises(StoreError, match="not a store of greedylr"):
        Store(path)


def test_details_that_are_sound_are_a_row(path, runs, made_up):
    with Store(path) as store:
        store.save(made_up(runs[0]))
    change(path, "UPDATE run SET details = ?", zlib.compress(json.dumps(SOUND).encode()))
    with Store(path) as store:
        assert list(store.load(runs)) == []  # It is not what was written.
    sign(path)
    with Store(path) as store:
        assert len(list(store.load(runs))) == 1


def test_what_belongs_to_another_row_is_noticed(path, runs, made_up):
    with Store(path) as store:
        store.save(made_up(runs[0], 0.25))
        store.save(made_up(runs[1], 0.75))
    other = "(SELECT validations FROM run WHERE key = ?)"
    names = [fingerprint.key(run, arithmetic="cpu") for run in runs[:2]]
    change(path, f"UPDATE run SET validations = {other} WHERE key = ?", names[1], names[0])
    with Store(path) as store:
        assert [result.run for result in store.load(runs)] == [runs[1]]


@pytest.mark.parametrize("steps", [4, 6])
def test_curves_that_are_not_those_of_a_whole_run_are_a_row_less(path, runs, made_up, steps):
    with Store(path) as store:
        store.save(replace(made_up(runs[0]), failure="it broke down"))
        store.save(made_up(runs[1]))
    change(path, "UPDATE run SET curves = ?", zlib.compress(np.ones((2, steps)).tobytes()))
    sign(path)
    with Store(path) as store:
        broke_down = [runs[0]] if steps < 5 else []
        assert [result.run for result in store.load(runs)] == broke_down


def test_a_key_that_was_changed_is_damage_and_no_other_version(path, runs, made_up):
    with Store(path) as store:
        store.save(made_up(runs[0]))
    change(path, "UPDATE run SET key = 'x'")
    with Store(path) as store:
        assert list(store.load(runs)) == list(store.everything()) == []
        assert store.damaged == {"x"}
        store.damaged.clear()
        assert store.others(runs) == 0
        assert store.damaged == {"x"}


def test_what_went_wrong_is_said_not_that_it_could_not_be_taken_back(store):
    def fail():
        with store._transaction():
            store._connection.execute("ROLLBACK")  # as SQLite does itself when a disk is full
            store._connection.execute("SELECT * FROM missing")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        fail()


@pytest.mark.parametrize(
    "steps", [[5.0, 0.0], [-1.0, 5.0], [0.0, 1e300], [0.0, 0.0], [0.0, 4.0], [1.0, 5.0], [0.5, 5.0]]
)
def test_validations_at_steps_that_cannot_be_are_a_row_less(path, runs, made_up, steps):
    with Store(path) as store:
        store.save(made_up(runs[0]))
    blob = zlib.compress(np.array([steps, [2.0, 0.5]], "<f8").tobytes())
    change(path, "UPDATE run SET validations = ?", blob)
    sign(path)
    with Store(path) as store:
        assert list(store.everything()) == []
        assert store.damaged == {fingerprint.key(runs[0], arithmetic="cpu")}
