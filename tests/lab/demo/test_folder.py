"""Results on disk are found again under their own settings only, and nothing else is touched."""

import math

import pytest

from greedylr.lab import content
from greedylr.lab.demo import plan
from greedylr.lab.demo.folder import Folder


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "runs")


def test_what_was_saved_is_loaded_in_the_order_asked_for(folder, runs, made_up, event):
    results = [made_up(run, events=[event(mean=1 / 3)]) for run in runs]
    for result in results:
        folder.save(result)
    assert folder.load(runs) == results
    assert folder.load(runs[::-1]) == results[::-1]
    assert folder.others(runs) == 0


def test_non_finite_losses_survive(folder, runs, made_up):
    folder.save(made_up(runs[0], math.nan))
    folder.save(made_up(runs[1], math.inf))
    first, second = folder.load(runs)
    assert math.isnan(first.final_loss)
    assert second.final_loss == math.inf
    assert first.diverged
    assert second.diverged


def test_an_empty_or_missing_folder_holds_nothing(folder, runs):
    assert folder.load(runs) == []
    assert folder.others(runs) == 0
    assert not folder.path.exists()


@pytest.mark.parametrize("change", [{"steps": 6}, {"multiplier": 2.0}, {"seed": 9}, {"scheduler": "paper"}])
def test_other_settings_are_not_mixed(folder, runs, made_up, change):
    folder.save(made_up(runs[0]))
    other = runs[0]._replace(**change)
    assert folder.load([other]) == []
    assert folder.others([other]) == 1


@pytest.mark.parametrize("what", ["versions", "_code"])
def test_other_versions_are_not_mixed(folder, runs, made_up, monkeypatch, what):
    folder.save(made_up(runs[0]))
    monkeypatch.setattr(content, what, lambda: {"greedylr": "another"})
    assert folder.load(runs) == []
    assert folder.others(runs) == 1


def test_a_damaged_file_is_as_good_as_none_and_is_written_anew(folder, runs, made_up):
    folder.save(made_up(runs[0]))
    (file,) = folder.path.iterdir()
    whole = file.read_text()
    for damaged in ("", whole[: len(whole) // 2], "[]", "{}", '{"result": {}}', '{"result": null}'):
        file.write_text(damaged)
        assert folder.load(runs) == []
    folder.save(made_up(runs[0]))
    assert file.read_text() == whole


def test_a_failed_write_leaves_what_was_there(folder, runs, made_up, monkeypatch):
    folder.save(made_up(runs[0], 0.25))

    def full(self, text, encoding):
        self.write_bytes(b"half of i")
        raise OSError("no space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="no space left"):
        folder.save(made_up(runs[0], 0.5))
    assert [result.final_loss for result in folder.load(runs)] == [0.25]
    assert len(list(folder.path.iterdir())) == 1


def test_files_of_others_are_left_alone(folder, runs, made_up):
    folder.path.mkdir()
    foreign = folder.path / "notes.txt"
    foreign.write_text("mine")
    folder.save(made_up(runs[0]))
    assert foreign.read_text() == "mine"
    assert folder.others(runs) == 0


def test_the_plan_pairs_every_scheduler_with_every_problem_learning_rate_and_seed():
    runs = plan(seeds=2)
    assert len(set(runs)) == len(runs) == 2 * 3 * 4 * 2
    for scheduler in ("greedylr", "paper", "cosine", "constant"):
        assert {run._replace(scheduler="") for run in runs if run.scheduler == scheduler} == {
            run._replace(scheduler="") for run in runs
        }
    assert not set(runs) & set(plan(2, quick=True))
    assert set(plan(1)) < set(runs)
