"""Many processes give what one gives. How they end is tested with the command line, which ends them."""

import pytest

from greedylr.lab.execution.engines.pool import train_all
from greedylr.lab.execution.engines.processes import worker_count
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.runs import Run

RUNS = [
    Run("digits", 1.0, "greedylr", 0, 30),
    Run("stdlib-text", 10.0, "cosine", 1, 10),
    Run("digits", 0.1, "paper", 1, 30),
    Run("stdlib-text", 1.0, "greedylr", 0, 10),
]


def in_order(results):
    return sorted(results, key=lambda result: result.run)


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers():
    results = []
    train_all(RUNS, 2, results.append)
    assert in_order(results) == in_order(map(train, RUNS))  # as a single worker does: one after the other


def test_there_are_no_more_workers_than_runs():
    assert worker_count(1) == 1
    assert worker_count(10**6) >= 1
