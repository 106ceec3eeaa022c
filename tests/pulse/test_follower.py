"""A trace that is looked at while it is written: each look equals a reading of the whole."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from greedylr import Action
from greedylr.pulse import Recorder, Trace
from greedylr.pulse.diagnosis import reading
from greedylr.pulse.diagnosis.audit import audit
from greedylr.pulse.diagnosis.health import examine
from greedylr.pulse.diagnosis.reading import Watched
from greedylr.pulse.trace import Follower


def test_each_look_equals_the_whole_and_earlier_ones_stay_as_they_are(tmp_path, scheduled):
    scheduler = scheduled(groups=2, total_steps=900)
    draw = np.random.default_rng(0)
    follower, looks = Follower(tmp_path), []
    with Recorder(tmp_path, scheduler) as recorder:
        for step in range(900):
            scheduler.step(3 - step / 400 + 0.1 * draw.standard_normal(), composition={"length": step % 7})
            if step % 90 == 0:
                recorder.log(val_loss=3 - step / 400)
                recorder.mark("shard")
                recorder.flush()
                looks.append((follower.look(), Trace.load(tmp_path)))
    looks.append((follower.look(), Trace.load(tmp_path)))
    assert len(looks) == 11
    assert [looked.last for looked, _ in looks] == [*range(1, 901, 90), 900]
    for looked, loaded in looks:
        assert looked == loaded
    assert (looks[-2][0].status, looks[-1][0].status) == ("running", "finished")


def test_only_what_was_added_is_read(tmp_path, scheduled, monkeypatch):
    scheduler, follower = scheduled(), Follower(tmp_path)
    taken = []
    known = reading.Follower._take.__globals__["storage"].from_line
    monkeypatch.setattr("greedylr.pulse.trace.storage.from_line", lambda *args: taken.append(1) or known(*args))
    with Recorder(tmp_path, scheduler) as recorder:
        counts = []
        for _ in range(4):
            for _ in range(50):
                scheduler.step(1.0)
            recorder.flush()
            follower.look()
            counts.append(len(taken))
    assert np.diff(counts).max() <= 2


def test_a_run_that_goes_back_is_followed(tmp_path, scheduled):
    follower, scheduler = Follower(tmp_path), scheduled(total_steps=300)
    with Recorder(tmp_path, scheduler) as recorder:
        for step in range(100):
            if step == 60:
                state = scheduler.state_dict()
            scheduler.step(2.0 - step / 100)
        recorder.flush()
        assert follower.look().last == 100
    again = scheduled(total_steps=300)
    again.load_state_dict(state)
    with Recorder(tmp_path, again) as recorder:
        for _ in range(10):
            again.step(1.0)
        recorder.flush()
        looked = follower.look()
    assert (looked.last, looked.resumed) == (70, [60])
    assert follower.look() == Trace.load(tmp_path)


@pytest.mark.parametrize("how", ["another file", "the same file, written anew", "longer than the one before"])
def test_another_run_in_the_place_of_the_one_before_is_read_from_its_start(tmp_path, scheduled, how):
    def run(name, steps, loss):
        scheduler = scheduled()
        with Recorder(tmp_path / name, scheduler):
            for _ in range(steps):
                scheduler.step(loss)

    run("a", 50, 1.0)
    run("b", 500 if how.startswith("longer") else 20, 2.0)
    follower = Follower(tmp_path / "a")
    assert follower.look().last == 50
    new, old = (tmp_path / name / "trace.jsonl" for name in "ba")
    if how == "another file":
        shutil.move(new, old)
    else:
        old.write_bytes(new.read_bytes())
    looked = follower.look()
    assert looked == Trace.load(tmp_path / "a")
    assert looked.losses[0] == 2.0


def test_damage_is_said_once_and_what_was_read_before_is_kept(tmp_path, scheduled):
    scheduler, follower = scheduled(), Follower(tmp_path)
    with Recorder(tmp_path, scheduler) as recorder:
        for _ in range(40):
            scheduler.step(1.0)
        recorder.flush()
        assert follower.look().last == 40
        with open(tmp_path / "trace.jsonl", "ab") as file:
            file.write(b"no line of a trace\n")
        with pytest.warns(UserWarning, match="what follows are left out, so the record ends at step 40"):
            assert follower.look().last == 40
        assert follower.look().last == 40


def test_a_run_is_judged_again_when_that_is_cheap_or_it_is_over(script, tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def judged_in_a_second(trace):
        clock.now += 1
        return audit(trace)

    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(reading, "audit", judged_in_a_second)
    rule, watched, looks = script(), Watched(tmp_path), []
    with Recorder(tmp_path, rule) as recorder:
        for clock.now in (0.0, 10.0, 20.9, 21.0, 30.0):  # Judged in a second, it is due again after twenty.
            for _ in range(40):
                rule.step(1.0, Action.RAISED, 1.1)
            recorder.flush()
            looks.append(watched.look())
    looks.append(watched.look())
    assert [(one.trace.last, one.judged) for one in looks] == [
        (40, 40), (80, 40), (120, 40), (160, 160), (200, 160), (200, 200)]  # fmt: skip
    assert looks[2].audit is looks[0].audit
    assert looks[-1].trace.status == "finished"
    assert repr(looks[-1].audit) == repr(audit(looks[-1].trace))  # NaN among them.
    assert looks[-1].findings == examine(looks[-1].trace)


def test_a_look_before_the_run_is_refused_as_by_load(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no trace"):
        Follower(tmp_path).look()
    (tmp_path / "trace.jsonl").write_text("not a trace\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="line 1: not a line of a trace"):
            Follower(tmp_path).look()
