"""What other programs read: every run, with what it depended on and what came of it."""

import csv
import math
import os
from dataclasses import replace

import pytest
from pyarrow import parquet

from greedylr.lab.catalogue.schedulers import MODULES, SCHEDULERS
from greedylr.lab.execution import export as exports
from greedylr.lab.execution import fingerprint
from greedylr.lab.execution.export import export
from greedylr.lab.execution.store import Store


@pytest.fixture
def runs(runs):
    """One of them is disturbed."""
    return [*runs[:-2], runs[-2]._replace(perturbation="label-noise:1"), runs[-1]]


@pytest.fixture
def store(tmp_path, runs, made_up):
    with Store(tmp_path / "lab.sqlite") as store:
        for run in runs[:-2]:
            store.save(made_up(run))
        store.save(made_up(runs[-2], clean_losses=[1.5] * 5))
        broken = made_up(runs[-1], math.nan)
        broken.failure = 'ValueError: a, "b"\nc'
        store.save(broken)
        yield store


def test_csv_has_a_row_a_run(store, tmp_path, runs):
    assert export(store, tmp_path / "runs.csv") == len(runs)
    with (tmp_path / "runs.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["scheduler"], int(row["seed"])) for row in rows} == {(run.scheduler, run.seed) for run in runs}
    assert {row["key"] for row in rows} == {fingerprint.key(run, arithmetic="cpu") for run in runs}
    assert {row["final_loss"] for row in rows} == {"0.5", "nan"}
    assert [row["failure"] for row in rows if row["final_loss"] == "nan"] == ['ValueError: a, "b"\nc']
    assert f"torch={fingerprint.versions()['torch']}" in rows[0]["versions"]


def test_parquet_has_the_curves_too(store, tmp_path, runs, monkeypatch):
    monkeypatch.setattr(exports, "_ROWS", 3)
    assert export(store, tmp_path / "runs.parquet") == len(runs)
    rows = parquet.read_table(tmp_path / "runs.parquet").to_pylist()
    assert len(rows) == len(runs)
    assert rows[0]["losses"] == [1.0] * 5
    assert rows[0]["lrs"] == [0.1] * 5
    assert [row["clean_losses"] for row in rows if row["perturbation"] != "none"] == [[1.5] * 5]
    assert all(row["clean_losses"] == [] for row in rows if row["perturbation"] == "none")
    assert rows[0]["validation_steps"] == [0, 5]
    assert {row["scheduler"] for row in rows} == {run.scheduler for run in runs}
    assert rows[0].keys() == {*exports._COLUMNS, *exports._CURVES}


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet"])
def test_runs_of_other_versions_are_in_it(store, tmp_path, runs, made_up, monkeypatch, name):
    monkeypatch.setattr(fingerprint, "_code", lambda run, *, stacked: "another")
    store.save(made_up(runs[0]))
    assert export(store, tmp_path / name) == len(runs) + 1


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet"])
def test_an_empty_store_gives_an_empty_table(tmp_path, name):
    with Store(tmp_path / "empty.sqlite") as store:
        assert export(store, tmp_path / name) == 0
    assert (tmp_path / name).stat().st_size > 0


def test_what_was_there_stays_if_writing_fails(store, tmp_path, monkeypatch):
    (tmp_path / "runs.csv").write_text("mine")

    def full(stored):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports, "_row", full)
    with pytest.raises(OSError, match="No space left"):
        export(store, tmp_path / "runs.csv")
    assert (tmp_path / "runs.csv").read_text() == "mine"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet"])
def test_a_folder_that_is_not_there_is_named(store, tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"No such file or directory: '.*/missing/{name}'"):
        export(store, tmp_path / "missing" / name)


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet"])
def test_a_link_that_was_planted_is_not_followed(store, tmp_path, name):
    (tmp_path / "other").write_text("mine")
    for planted in (f".{name}.{os.getpid()}.part", name):
        (tmp_path / planted).symlink_to(tmp_path / "other")
    export(store, tmp_path / name)
    assert (tmp_path / "other").read_text() == "mine"


def test_names_from_a_store_give_orders_to_nobody(store, tmp_path, made_up, runs, call, monkeypatch):
    """Whoever hands a store on may write anything in it, with the right digest."""
    hostile = "\x1b[2J<b>=1+1"
    monkeypatch.setitem(SCHEDULERS, hostile, replace(SCHEDULERS["cosine"], name=hostile, title=hostile))
    monkeypatch.setitem(MODULES, hostile, MODULES["cosine"])
    store.save(made_up(runs[0]._replace(scheduler=hostile)))
    export(store, tmp_path / "runs.csv")
    result = call("report", str(store.path))
    assert "\x1b[2J" not in result.output
    page = next(tmp_path.glob("*.html")).read_text()
    assert "<b>=1+1" not in page
    assert result.exit_code == 0


def test_other_kinds_of_file_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.csv or \.parquet, got runs\.xlsx"):
        export(store, tmp_path / "runs.xlsx")
