"""Suites are made of what the registries have, and pair every scheduler with the same conditions."""

from dataclasses import replace

import pytest

from greedylr.lab.catalogue.perturbations import PERTURBATIONS, find, suits
from greedylr.lab.catalogue.problems import PROBLEMS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.suites import SUITES
from greedylr.lab.execution.fingerprint import settings
from greedylr.lab.execution.setup import learning_rate


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_runs_are_distinct_paired_and_known(suite):
    runs = suite.runs()
    assert len(set(runs)) == len(runs)
    conditions = {run._replace(scheduler="") for run in runs}
    for scheduler in suite.schedulers:
        its = {run._replace(scheduler="") for run in runs if run.scheduler == scheduler}
        assert its == {
            one
            for one in conditions
            if SCHEDULERS[scheduler].suits(one.optimizer) and suits(one._replace(scheduler=scheduler))
        }
    assert all(run.steps == (suite.steps or PROBLEMS[run.problem].steps) for run in runs)
    for run in {run._replace(seed=0, multiplier=1.0, perturbation="none") for run in runs}:
        settings(run, arithmetic="cpu")
    assert max(run.seed for run in runs) < 100, "seeds from 100 are those that learning rates were tuned with"


def test_breadth_has_every_scheduler_and_every_problem_that_learns():
    suite = SUITES["breadth-small"]
    assert set(suite.schedulers) == set(SCHEDULERS)
    assert set(suite.problems) == {name for name, problem in PROBLEMS.items() if problem.kind == "learned"}
    assert (min(suite.multipliers), max(suite.multipliers)) == (0.03, 10.0)


def test_boundary_has_every_boundary_case():
    assert {PROBLEMS[name].kind for name in SUITES["boundary"].problems} == {"boundary"}


def test_a_whole_optimizer_takes_the_place_only_of_those_it_can():
    runs = SUITES["breadth-small"].runs()
    assert {run.optimizer for run in runs if run.scheduler == "prodigy"} == {"adamw"}
    assert {run.optimizer for run in runs if run.scheduler == "schedule-free"} == {"sgd", "adamw"}


@pytest.mark.parametrize("name", ["robustness", "robustness-published"])
def test_every_disturbed_run_has_its_twin_and_twins_come_first(name):
    met = set()
    for run in SUITES[name].runs():
        assert run.perturbation == "none" or run._replace(perturbation="none") in met
        met.add(run)


def test_robustness_is_larger_than_what_has_been_published():
    suite = SUITES["robustness"]
    runs = suite.runs()
    assert sum(run.perturbation != "none" for run in runs) >= 8100
    assert len(suite.problems) == 12
    assert suite.multipliers == (0.1, 1.0, 10.0)
    used = {run.perturbation for run in runs} - {"none"}
    assert used == {name for name, one in PERTURBATIONS.items() if one.kind.acts_on != "nothing"}
    assert {run.steps for run in runs} == {200}
    assert {"greedylr", "paper", "transformers-greedylr"} < {run.scheduler for run in runs}


def test_the_published_protocol_is_as_published():
    runs = SUITES["robustness-published"].runs()
    assert {learning_rate(run) for run in runs} == {0.01}
    assert {(run.optimizer, run.steps) for run in runs} == {("adam", 200)}
    found = {find(run.perturbation) for run in runs} - {None}
    assert {one.kind.acts_on for one in found} == {"nothing"}
    assert len(found) == 8


@pytest.mark.parametrize("kind", ["default", "fine-tuning", "long"])
def test_nothing_is_both_developed_on_and_confirmed_by(kind):
    developed, confirmed = (SUITES[f"{kind}-{side}"] for side in ("development", "confirmation"))
    assert not set(developed.problems) & set(confirmed.problems)
    assert developed == replace(confirmed, name=developed.name, note=developed.note, problems=developed.problems), (
        "the same question on either side"
    )


def test_what_is_pre_trained_is_on_one_side_or_the_other():
    sides = (SUITES[f"fine-tuning-{side}"].problems for side in ("development", "confirmation"))
    assert {name for side in sides for name in side} == {
        name for name, problem in PROBLEMS.items() if problem.kind == "pre-trained"
    }
