"""What a disturbance did: every measure on runs that were made up, so that the right answer is known."""

import io
import math

import pytest
import torch
from rich.console import Console

from greedylr import Action, Decision, GreedyLR
from greedylr.lab.analysis.recovery import Recovery, clean_losses, cuts, published_ratio, recovery, twin_of
from greedylr.lab.analysis.robustness import Median, summarize_published, summarize_robustness
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.report.robustness_tables import published_table, robustness_tables
from greedylr.lab.results import Result, record
from greedylr.lab.runs import Run

STEPS = 200
BEGIN, END = 80, 100
DECREASING = [2.0 - step / 200 for step in range(STEPS)]  # from 2 to about 1


def a_result(
    losses=None, perturbation="gradient-noise:1", scheduler="cosine", final=1.0, lrs=None, problem="mlp", **more
):
    run = Run(problem, 1.0, scheduler, more.pop("seed", 0), STEPS, "adamw", perturbation)
    losses = DECREASING if losses is None else losses
    lrs = list(lrs or [0.1] * len(losses))
    kept = record(
        losses,
        [*lrs, *lrs[-1:]],
        {0: 2.0, STEPS: final},
        more.pop("decisions", []),
        clean_losses=more.pop("clean_losses", ()),
    )
    return Result(run, kept, **more)


def a_twin(result, **more):
    run = result.run
    return a_result(perturbation="none", scheduler=run.scheduler, problem=run.problem, seed=run.seed, **more)


def measured(result, **more):
    return recovery(result, a_twin(result, **more))


def raised(by, begin, end):
    """Losses that are above the twin's for some steps."""
    return [loss + by * (begin <= step < end) for step, loss in enumerate(DECREASING)]


def cut(step):
    return Decision(step, 1.0, Action.CUT, (0.1,), (0.05,), {})


def test_a_run_like_its_twin_was_not_disturbed():
    found = measured(a_result())
    assert found.span == (BEGIN, END)
    assert (found.steps, found.excess, found.training_gap, found.validation_ratio) == (0, 0.0, 0.0, 1.0)
    assert not found.disrupted
    assert found.missed is False
    assert not found.failed
    assert not found.twin_failed


def test_steps_to_recover_count_from_the_end_of_the_disturbance():
    found = measured(a_result(raised(0.5, BEGIN, END + 30)))
    # The mean over ten steps, 0.5 for each that is not back, against 2 % of a decrease of about 1.
    assert found.steps == 30
    assert found.disrupted
    assert measured(a_result(raised(0.5, BEGIN, END))).steps == 0


def test_a_difference_within_the_tolerance_is_none():
    assert not measured(a_result(raised(0.018, BEGIN, STEPS))).disrupted
    result = a_result(raised(0.03, BEGIN, STEPS))
    assert measured(result).steps is None
    assert recovery(result, a_twin(result), tolerance=0.05).steps == 0


def test_a_single_high_loss_is_smoothed():
    assert not measured(a_result(raised(0.15, BEGIN, BEGIN + 1))).disrupted
    assert measured(a_result(raised(0.5, BEGIN, BEGIN + 1))).disrupted


def test_who_never_gets_back_is_censored():
    found = measured(a_result(raised(0.5, BEGIN, STEPS), final=1.5))
    assert found.steps is None
    assert found.training_gap == pytest.approx(0.5, rel=0.05)
    assert found.validation_ratio == 1.5


def test_excess_is_the_area_over_the_decrease():
    found = measured(a_result(raised(0.3, BEGIN, END)))
    decrease = 2.0 - sum(DECREASING[-10:]) / 10
    assert found.excess == pytest.approx(20 * 0.3 / decrease)
    assert measured(a_result(raised(-0.5, BEGIN, END))).excess == pytest.approx(-20 * 0.5 / decrease)


def test_what_is_above_the_start_or_not_finite_counts_as_the_start():
    losses = [math.nan if step >= BEGIN else loss for step, loss in enumerate(DECREASING)]
    with_nan = measured(a_result(losses, final=math.nan))
    expected = sum(2.0 - loss for loss in DECREASING[BEGIN:]) / (2.0 - sum(DECREASING[-10:]) / 10)
    assert with_nan.excess == pytest.approx(expected)
    assert measured(a_result(raised(1e30, BEGIN, STEPS))).excess == pytest.approx(expected)
    assert with_nan.failed
    assert with_nan.validation_ratio == 2.0
    assert math.isnan(with_nan.published_ratio)


def test_a_run_that_broke_down_counts_as_the_start_from_there_on():
    broken = a_result(DECREASING[:120], failure="ZeroDivisionError: ")
    found = measured(broken)
    assert found.failed
    assert found.steps == 0  # It broke down later.
    assert found.excess == pytest.approx(
        sum(2.0 - loss for loss in DECREASING[120:]) / (2.0 - sum(DECREASING[-10:]) / 10)
    )


def test_where_data_are_disturbed_the_clean_losses_count():
    result = a_result(raised(5.0, BEGIN, END), "label-noise:1", clean_losses=raised(0.5, BEGIN, END))
    assert clean_losses(result).tolist() == result.clean_losses
    found = measured(result)
    assert found.excess == measured(a_result(raised(0.5, BEGIN, END))).excess
    assert found.published_ratio == max(result.losses) / result.losses[-1]


def test_where_the_twin_failed_there_is_nothing_to_get_back_to():
    found = measured(a_result(raised(0.5, BEGIN, STEPS)), final=1.99)
    assert found.twin_failed
    assert math.isnan(found.validation_ratio)
    assert math.isnan(found.excess)
    assert math.isnan(found.training_gap)
    assert found.steps is None
    assert not found.disrupted


def test_false_alarms_are_cuts_before_the_disturbance():
    decisions = [cut(step) for step in (10, 80, 81, 150)]
    found = measured(a_result(scheduler="greedylr", decisions=decisions))
    assert (found.false_alarms, found.quiet_steps) == (2, 80)  # The loss of step 81 is the first that is disturbed.
    assert measured(a_result()).false_alarms is None


def test_where_only_the_observation_is_wrong_every_cut_is_a_false_alarm():
    decisions = [cut(step) for step in (10, 80, 81, 150)]
    found = measured(a_result(perturbation="observed-nan:1", scheduler="greedylr", decisions=decisions))
    assert (found.false_alarms, found.quiet_steps) == (4, STEPS)
    assert found.missed is None


def test_cuts_of_schedulers_that_do_not_say_are_falls():
    lrs = [0.1] * 50 + [0.05] * 50 + [0.0495] * 100
    assert cuts(a_result(scheduler="plateau", lrs=lrs)) == [49]
    assert cuts(a_result(scheduler="cosine", lrs=lrs)) is None
    assert cuts(a_result(scheduler="greedylr", lrs=lrs, decisions=[cut(7)._replace(action=Action.SPIKE)])) == []


@pytest.mark.parametrize("name", [name for name, one in SCHEDULERS.items() if one.kind == "feedback"])
def test_decisions_are_those_of_the_rules_of_this_package(name):
    pytest.importorskip(SCHEDULERS[name].package)
    scheduler = SCHEDULERS[name].build(torch.optim.SGD([torch.zeros(1)], lr=0.1), 100)
    assert (cuts(a_result(scheduler=name, decisions=[cut(7)])) == [6]) == isinstance(scheduler, GreedyLR)


@pytest.mark.parametrize(("first", "missed"), [(80, True), (81, False), (110, False), (111, True)])
def test_a_disruption_is_missed_if_the_learning_rate_does_not_fall_below_the_twins_in_time(first, missed):
    lrs = [0.05 if step == first else 0.1 for step in range(STEPS)]
    found = measured(a_result(raised(0.5, BEGIN, END), lrs=lrs))
    assert found.disrupted
    assert found.missed is missed
    assert measured(a_result(lrs=lrs)).missed is False  # Nothing happened that could have been missed.


def test_the_published_ratio():
    assert published_ratio([2.0, 3.0, 0.5]) == 6.0
    assert all(map(math.isnan, map(published_ratio, ([], [1.0, 0.0], [1.0, -1.0], [math.inf, 1.0], [math.nan, 1.0]))))


def test_what_is_no_pair_is_refused():
    result = a_result()
    with pytest.raises(ValueError, match="disturbed, got perturbation 'none'"):
        recovery(a_twin(result), a_twin(result))
    with pytest.raises(ValueError, match="twin must be of"):
        recovery(result, a_twin(a_result(seed=1)))
    with pytest.raises(ValueError, match="tolerance must be a positive finite number, got 0"):
        recovery(result, a_twin(result), tolerance=0)


# Many runs


def several():
    results = []
    for problem, back in (("mlp", 10), ("gru", 30), ("digits", STEPS)):
        for seed in (0, 1):
            for scheduler in ("greedylr", "cosine"):
                result = a_result(raised(0.5, BEGIN, END + back), scheduler=scheduler, problem=problem, seed=seed)
                results += [a_twin(result), result]
    return results


def test_a_row_has_the_median_over_problems():
    summary = summarize_robustness(several())
    assert [(row.scheduler, row.perturbations) for row in summary.rows] == [
        ("greedylr", "gradient"),
        ("cosine", "gradient"),
    ]
    row = summary.rows[1]
    assert (row.runs, row.problems, row.unmeasured, row.failed) == (6, 3, 0, 0)
    assert row.steps == Median(30.0, (10.0, math.inf))
    assert (row.disrupted.count, row.recovered.count, row.recovered.of) == (6, 4, 6)
    assert (row.missed.count, row.missed.of) == (6, 6)
    assert row.false_alarms is None
    assert summary.rows[0].false_alarms == 0.0
    assert [(twin.scheduler, twin.runs) for twin in summary.twins] == [("greedylr", 6), ("cosine", 6)]
    assert summary.without_twin == ()


def test_order_does_not_matter_and_twins_must_be_there():
    results = several()
    backwards = summarize_robustness(reversed(results))
    assert sorted(backwards.rows, key=repr) == sorted(summarize_robustness(results).rows, key=repr)
    alone = a_result(seed=7)
    summary = summarize_robustness([*results, alone])
    assert summary.without_twin == (alone.run,)
    assert summary.rows == summarize_robustness(results).rows


def test_rows_by_kind_and_by_perturbation():
    results = [a_result(perturbation=name) for name in ("none", "gradient-noise:1", "gradient-noise:3", "rollback:0.2")]
    found = {by: [row.perturbations for row in summarize_robustness(results, by).rows] for by in ("place", "kind")}
    assert found == {"place": ["gradient", "state"], "kind": ["gradient-noise", "rollback"]}
    assert len(summarize_robustness(results, "perturbation").rows) == 3


def test_failed_twins_are_left_out_and_counted():
    result = a_result()
    row = summarize_robustness([a_twin(result, final=2.0), result]).rows[0]
    assert (row.runs, row.unmeasured) == (1, 1)
    assert math.isnan(row.steps.value)
    assert row.missed.of == 0


def test_published_rows_prove_that_nothing_changed():
    same, other = (a_result(perturbation="published-drift:1", seed=seed) for seed in (0, 1))
    losses = [*DECREASING[:190], DECREASING[190] + 0.25, *DECREASING[191:]]
    changed = a_result(losses, "published-drift:1", seed=1)
    rows = {row.perturbation: row for row in summarize_published([same, changed, a_twin(same), a_twin(other)])}
    row = rows["published-drift:1"]
    assert (row.runs, row.identical, row.difference) == (2, 1, pytest.approx(0.25))
    assert rows["none"].identical == 2
    assert row.published_ratio == rows["none"].published_ratio == 2.0 / DECREASING[-1]
    with pytest.raises(ValueError, match="the twin of every run"):
        summarize_published([same])


def test_runs_of_unequal_length_are_not_identical():
    result = a_result([*DECREASING[:-1], math.nan], "published-drift:1")
    assert summarize_published([result, a_twin(result)])[0].difference == math.inf
    result = a_result(DECREASING[:-1], "published-drift:1")
    assert summarize_published([result, a_twin(result)])[0].difference == math.inf


def test_the_tables_hold_what_is_there():
    console = Console(width=240, record=True, file=io.StringIO())
    for table in robustness_tables(summarize_robustness(several())):
        console.print(table)
    published = a_result(perturbation="published-drift:1")
    console.print(published_table(summarize_published([published, a_twin(published)])))
    text = console.export_text()
    assert "[10…∞]" in text
    assert "6 of 6" in text
    assert "1 of 1" in text
    assert "Robustness at 1 times the good learning rate" in text


def test_twin_of():
    run = a_result().run
    assert twin_of(run) == a_twin(a_result()).run
    assert isinstance(measured(a_result()), Recovery)
