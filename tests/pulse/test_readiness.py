"""The production table: every row against runs for which its answer is known."""

import numpy as np
import pytest

from greedylr import Action
from greedylr.pulse.diagnosis.reading import read
from greedylr.pulse.report.readiness import compare, facts, table


def course(seed=0, best=1.0, disrupted=False, steps=1000, turning=False, end=None):
    def play(script, recorder):
        r = np.random.default_rng(seed)
        for step in range(1, steps + 1):
            moves = step % 100 == 0
            raised = step // 100 % 2 == 0 if turning else True
            loss = 3 - 2 * step / steps + 0.05 * r.standard_normal()
            if disrupted and 500 < step <= 560:
                loss += 10
            action = (Action.RAISED if raised else Action.CUT) if moves else Action.GATHERING
            script.step(loss, action, (1.1 if raised else 0.9) if moves else 1.0, composition={"kind": "ab"[step % 2]})
            if step % 100 == 0:
                recorder.log(val_loss=max(best, 3 - 4 * step / steps) + 0.001 * seed)
            if disrupted and step == 500:
                recorder.mark("disruption")
        if end is not None:
            raise end

    return play


@pytest.fixture
def runs(record, tmp_path):
    def make(**named):
        for name, (play, meta) in named.items():
            record(play, name=name, meta=meta)
        return read([tmp_path / name for name in named])

    return make


def cells(table):
    return dict(table.rows)


def test_runs_that_differ_in_the_seed_are_one_column(runs):
    table = compare(
        runs(
            a=(course(0), {"scheduler": "x", "seed": 0}),
            b=(course(2), {"scheduler": "x", "seed": 1}),
            c=(course(0, best=1.5), {"scheduler": "y", "seed": 0}),
        )
    )
    assert table.columns == ["scheduler x", "scheduler y"]
    found = cells(table)
    assert found["runs"] == ["2", "1"]
    assert found["final metric, mean"] == ["1.001", "1.5"]
    assert found["its standard deviation across runs"] == ["0.001414", "–"]
    assert found["steps to within 1% of the best, share"] == ["50%", "40%"]
    assert found["failed or abandoned"] == ["0 of 2", "0 of 1"]
    assert found["moves per 1,000 steps"] == ["10", "10"]
    assert found["movement explained by composition"] == ["0%", "0%"]


def test_recovery_is_counted_from_the_mark(runs):
    (reading,) = runs(a=(course(disrupted=True), None))
    assert facts(reading).recoveries == [80]
    assert cells(compare([reading]))["steps to recover from a disruption, median"] == ["80"]


def test_never_is_later_than_any_number_of_steps(runs):
    known = facts(runs(a=(course(), None))[0])

    def said(*recoveries):
        rows = cells(table({"x": [known._replace(recoveries=list(recoveries))]}))
        return rows["steps to recover from a disruption, median"][0]

    assert said() == "–"
    assert said(20, 60) == "40"
    assert said(None, 60, 20) == "60, never in 1 of 3"
    assert said(None, None, 20) == "never in 2 of 3"


def test_the_level_before_a_disruption_is_that_of_the_windows_up_to_its_mark(runs):
    def falls(script, recorder):
        for step in range(1, 201):
            script.step(10 - step / 20 + (5 if 80 < step <= 100 else 3.4 if step > 100 else 0) + 0.001 * (step % 2))
            if step == 80:
                recorder.mark("disruption")

    # The three windows before have a mean of 7.48, and a deviation of 0.3: steps 101 to 120 are still above that.
    (reading,) = runs(a=(falls, None))
    assert facts(reading).recoveries == [60]


def test_a_failed_run_that_was_at_its_best_at_once_is_not_efficient(runs):
    known = facts(runs(a=(course(), None))[0])
    failed = known._replace(failed=True, efficiency=0.0)
    row = "steps to within 1% of the best, share"
    assert cells(table({"x": [known, failed], "y": [failed]}))[row] == ["50%", "–"]


def test_reversals(runs):
    steady, turning = runs(a=(course(), None), b=(course(turning=True), None))
    assert facts(steady).reversals == 0
    assert facts(turning).reversals == 1


def test_failures_count(runs, tmp_path, script):
    from greedylr.pulse import Recorder

    def block():
        rule = script()
        with Recorder(tmp_path / "broken", rule) as recorder:
            course(end=RuntimeError("no"))(rule, recorder)

    with pytest.raises(RuntimeError):
        block()
    (broken,) = read([tmp_path / "broken"])
    assert facts(broken).failed

    def rising(rule, recorder):
        for step in range(500):
            rule.step(1 + step / 500)

    (worse,) = runs(worse=(rising, None))
    assert facts(worse).failed
    assert cells(compare([broken, worse]))["failed or abandoned"] == ["1 of 1", "1 of 1"]


def test_runs_without_anything_are_no_error(runs):
    (reading,) = runs(a=(lambda rule, recorder: None, None))
    table = compare([reading])
    assert {cell for name, row in table.rows for cell in row} <= {"1", "0", "–", "0 of 1"}
