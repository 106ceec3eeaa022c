"""What the demonstration trains."""

from greedylr.lab.report.demo import plan


def test_the_plan_pairs_every_scheduler_with_every_problem_learning_rate_and_seed():
    runs = plan(seeds=2)
    assert len(set(runs)) == len(runs) == 2 * 3 * 4 * 2
    for scheduler in ("greedylr", "paper", "cosine", "constant"):
        assert {run._replace(scheduler="") for run in runs if run.scheduler == scheduler} == {
            run._replace(scheduler="") for run in runs
        }
    assert not set(runs) & set(plan(2, quick=True))
    assert set(plan(1)) < set(runs)
