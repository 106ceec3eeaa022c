"""From results to claims: stages, targets, failures, and a summary that hides none of them."""

import math
from dataclasses import replace

import pytest

from greedylr.lab.analysis.summary import TARGET, outcome, summarize
from greedylr.lab.results import Result, record
from greedylr.lab.runs import Run


def result(scheduler="cosine", losses=(2.0, 1.0, 0.5), steps=(0, 50, 100), seed=0, multiplier=1.0, failure=None):
    run = Run("digits", multiplier, scheduler, seed, 100)
    return Result(run, record([1.0], [0.1, 0.1], dict(zip(steps, losses))), 0.9, failure)


def test_a_stage_is_the_first_validation_at_or_after_it():
    made = outcome(result(steps=(0, 10, 55, 60, 100), losses=(2.0, 1.5, 1.0, 0.9, 0.5)))
    assert made.stages == {0.1: 1.5, 0.5: 1.0, 1.0: 0.5}
    assert (made.start, made.metric, made.failed) == (2.0, 0.9, False)


def test_a_run_that_broke_down_has_no_loss_from_there_on():
    made = outcome(result(losses=(2.0, 1.0), steps=(0, 10), failure="ValueError: x"))
    assert made.stages[0.1] == 1.0
    assert math.isnan(made.stages[0.5])
    assert math.isnan(made.stages[1.0])
    assert made.failed


def test_a_run_that_broke_down_after_its_last_validation_has_failed_too():
    assert outcome(result(failure="ValueError: x")).failed


def test_steps_are_counted_to_the_target_that_the_baseline_sets():
    results = [
        result(losses=(2.0, 1.6, 1.0)),  # 90 % of the decrease: 1.1
        result("greedylr", losses=(2.0, 1.1, 0.9)),
        result("constant", losses=(2.0, 1.5, 1.2)),
    ]
    steps = {one.scheduler: one.steps_to[TARGET] for one in summarize(results).outcomes}
    assert steps == {"cosine": 100, "greedylr": 50, "constant": None}


@pytest.mark.parametrize("baseline", [[], [result(losses=(2.0, 2.0, 2.0))], [result(multiplier=0.1)]])
def test_without_a_baseline_that_learns_there_is_no_target(baseline):
    summary = summarize([*baseline, result("greedylr")])
    assert all(one.steps_to is None for one in summary.outcomes)


@pytest.fixture(scope="module")
def summary():
    results = [result(name, (2.0, 1.0, final), seed=seed) for name, final in (("greedylr", 0.4), ("cosine", 0.5))
               for seed in range(3)]  # fmt: skip
    results += [result("constant", (2.0,), (0,), seed, failure="ZeroDivisionError: x") for seed in range(2)]
    results += [result("constant", (2.0, 1.0, math.inf), seed=2)]
    return summarize(results)


def test_every_rival_is_compared_with_at_every_stage(summary):
    made = {(one.difference.second, one.difference.stage) for one in summary.comparisons}
    assert made == {(rival, stage) for rival in ("cosine", "constant") for stage in (0.1, 0.5, 1.0)}
    for one in summary.comparisons:
        assert one.difference.stage == one.tally.verdicts[0].stage
        assert one.difference.second == one.tally.verdicts[0].second
    last = next(one for one in summary.comparisons if (one.difference.second, one.difference.stage) == ("cosine", 1.0))
    assert last.tally.better.count == 1
    assert last.difference.median == pytest.approx(0.1 / 1.6)


def test_failures_are_counted_with_their_reasons(summary):
    failures = {one.scheduler: one for one in summary.failures}
    assert (failures["constant"].runs, failures["constant"].failed) == (3, 3)
    assert failures["constant"].reasons == {"ZeroDivisionError: x": 2}
    assert (failures["greedylr"].runs, failures["greedylr"].failed) == (3, 0)


def test_regret_is_against_fixed_schedules_only(summary):
    found = {regret.entry.scheduler: regret for regret in summary.regrets.values}
    assert {regret.best.scheduler for regret in found.values()} == {"cosine"}
    assert found["greedylr"].value == pytest.approx(0.4 / 0.5)
    assert found["constant"].value == pytest.approx(2.0 / 0.5)


def test_a_single_scheduler_has_nobody_to_be_compared_with():
    summary = summarize([result("greedylr")])
    assert summary.comparisons == ()
    assert [one.scheduler for one in summary.failures] == ["greedylr"]


def test_of_each_case_the_rival_furthest_ahead_is_shown_and_the_worst_case_first():
    finals = {("greedylr", 0.1): 1.0, ("cosine", 0.1): 0.5, ("constant", 0.1): 0.1, ("greedylr", 1.0): 0.4,
              ("cosine", 1.0): 0.3, ("constant", 1.0): 0.9}  # fmt: skip
    summary = summarize(result(name, (2.0, 1.0, final), multiplier=rate) for (name, rate), final in finals.items())
    assert [(one.case.multiplier, one.second) for one in summary.worst(5)] == [(0.1, "constant"), (1.0, "cosine")]
    assert len(summary.worst(1)) == 1


def test_where_the_scheduler_is_as_good_it_does_not_lose():
    summary = summarize([result("greedylr", (2.0, 1.0, 0.501)), result("cosine", (2.0, 1.0, 0.5))])
    assert summary.comparisons[-1].tally.verdicts[0].mean < 0
    assert summary.worst(5) == []


def test_steps_to_the_target_are_compared_where_there_is_one():
    results = [result(), result("greedylr", losses=(2.0, 0.6, 0.5)), result("constant", losses=(2.0, 1.5, 1.0))]
    steps = {one.second: one for one in summarize(results).steps}
    assert (steps["cosine"].speedup, steps["cosine"].never_second) == (pytest.approx(2.0), 0)
    assert (steps["constant"].speedup, steps["constant"].never_second) == (math.inf, 1)
    assert summarize(results[1:]).steps == ()


def test_among_learning_rates_of_which_none_is_known_to_be_good_the_best_of_cosine_sets_the_target():
    results = [
        result(losses=(2.0, 1.5, 1.0), multiplier=0.01),
        result(losses=(2.0, 1.5, 0.0), multiplier=0.1),  # 90 % of the decrease: 0.2
        result("greedylr", losses=(2.0, 0.15, 0.1), multiplier=0.01),
    ]
    with pytest.raises(ValueError, match="alike"):
        summarize([replace(results[0], run=results[0].run._replace(absolute=True)), *results[1:]])
    summary = summarize([replace(one, run=one.run._replace(absolute=True)) for one in results])
    assert [one.steps_to[TARGET] for one in summary.outcomes] == [None, 100, 50]
    assert summary.absolute


def test_fixed_schedules_that_the_registry_does_not_know_can_be_named():
    results = [result("mine", (2.0, 1.0, 0.5)), result("theirs", (2.0, 1.0, 0.4))]
    summary = summarize(results, "mine", fixed=("theirs", "absent"))
    assert summary.fixed == ("theirs",)
    assert {one.best.scheduler for one in summary.regrets.values} == {"theirs"}


def test_stages_can_be_left_out():
    summary = summarize([result(), result("greedylr")], stages=(0.5, 1.0))
    assert [one.difference.stage for one in summary.comparisons] == [0.5, 1.0]
    assert set(summary.outcomes[0].stages) == {0.5, 1.0}
