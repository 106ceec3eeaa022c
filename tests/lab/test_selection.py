"""Conditions choose a part of a suite, and what no run meets is an error that says what there is."""

import re

import pytest

from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.selection import KEYS, properties, select
from greedylr.lab.catalogue.suites import SUITES

RUNS = SUITES["breadth"].runs()


def test_without_conditions_all_are_chosen():
    assert select(RUNS, []) == RUNS


def test_conditions_of_one_key_are_alternatives_and_those_of_others_all_hold():
    chosen = select(RUNS, ["task=translation", "task=summarization", "optimizer=sgd", "architecture=t5"])
    assert {run.problem for run in chosen} == {"t5-french", "t5-german", "t5-summaries"}
    assert {run.optimizer for run in chosen} == {"sgd"}
    assert chosen == [run for run in RUNS if run in set(chosen)], "the order is kept"


def test_a_suite_can_be_had_a_seed_at_a_time():
    parts = [select(RUNS, [f"seed={seed}"]) for seed in range(2)]
    assert [run for part in parts for run in part] == RUNS  # Suites are in the order of seeds.


def test_values_may_have_wildcards():
    assert {run.problem for run in select(RUNS, ["data=t*"])} == {
        "bert-types",
        "electra-types",
        "vit-tiles",
        "resnet-tiles",
        "convnext-tiles",
    }


def test_other_problems_have_a_kind_and_no_task():
    runs = SUITES["quick"].runs()
    assert {run.problem for run in select(runs, ["kind=analytic"])} == {"quadratic-noisy"}
    with pytest.raises(ValueError, match="no run has task=translation: values of task here are none"):
        select(runs, ["task=translation"])


@pytest.mark.parametrize("condition", ["task", "task=", "=translation", "what=ever", ""])
def test_what_is_no_condition_is_refused(condition):
    with pytest.raises(ValueError, match=re.escape(f"with a KEY of {', '.join(KEYS)}, got {condition!r}")):
        select(RUNS, [condition])


def test_conditions_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="no run meets all of the conditions task=translation architecture=bert"):
        select(RUNS, ["task=translation", "architecture=bert"])


def test_every_run_of_every_problem_has_its_properties():
    for run in {run._replace(seed=0) for suite in SUITES.values() for run in suite.runs()}:
        found = properties(run)
        assert set(found) <= set(KEYS)
        assert ("task" in found) == (PROBLEMS[run.problem].kind == "architecture")
