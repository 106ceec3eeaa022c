"""Who won is said as it is, also when GreedyLR lost, a run diverged, or one is missing."""

import math

import pytest

from greedylr.lab.report.demo.table import compare, summary


@pytest.fixture
def row(runs, made_up):
    """One row, from the final losses of each scheduler by seed."""

    def build(**losses):
        results = [made_up(run, losses[run.scheduler][run.seed]) for run in runs if run.scheduler in losses]
        (row,) = compare(runs, results)
        return row

    return build


def verdict(row):
    return row.verdict("greedylr")


def test_the_lowest_mean_wins_and_is_compared_with_the_next_best(row):
    made = row(greedylr=(0.3, 0.5), paper=(0.5, 0.7), cosine=(0.6, 0.7), constant=(1.0, 1.0))
    assert made.winner.scheduler == "greedylr"
    assert made.winner.mean == pytest.approx(0.4)
    assert str(made.winner) == "0.400 ± 0.141"
    assert verdict(made) == "GreedyLR won, 33.3% below GreedyLR.paper"
    assert summary([made]) == {"digits": "GreedyLR won 1 of 1. 1×: GreedyLR won, 33.3% below GreedyLR.paper."}


def test_a_loss_of_greedylr_is_said_with_its_size(row):
    made = row(greedylr=(0.4, 0.4), paper=(0.3, 0.3), cosine=(0.2, 0.2), constant=(0.3, 0.3))
    assert verdict(made) == "cosine with warmup won, 50.0% below GreedyLR"
    assert summary([made])["digits"].startswith("GreedyLR won 0 of 1.")


def test_a_win_that_a_seed_contradicts_is_qualified(row):
    made = row(greedylr=(0.1, 0.5), paper=(0.2, 0.45), cosine=(0.9, 0.9), constant=(0.9, 0.9))
    assert verdict(made) == "GreedyLR won, 7.7% below GreedyLR.paper, not on every seed"


@pytest.mark.parametrize("loss", [math.nan, math.inf, 2.0, 1.99])
def test_a_diverged_run_counts_against_its_scheduler(row, loss):
    made = row(greedylr=(0.1, loss), paper=(0.8, 0.8), cosine=(0.7, 0.7), constant=(0.9, 0.9))
    assert verdict(made) == "cosine with warmup won, GreedyLR diverged in 1 of 2"
    assert str(made.cells[0]).endswith("1 of 2 diverged")
    assert math.isfinite(loss) or "not finite" in str(made.cells[0])


def test_nobody_wins_where_all_diverged(row):
    made = row(**dict.fromkeys(("greedylr", "paper", "cosine", "constant"), (math.nan, 3.0)))
    assert made.winner is None
    assert verdict(made) == "every scheduler diverged"


def test_nobody_wins_an_unfinished_row(row):
    made = row(greedylr=(0.1, 0.1), cosine=(0.2, 0.2))
    assert made.winner is None
    assert verdict(made) == "not finished"
    assert [str(cell) for cell in made.cells] == ["0.100 ± 0.000", "–", "0.200 ± 0.000", "–"]
    assert summary([made]) == {"digits": "Nobody won: no row is complete."}


def test_one_seed_has_no_spread(runs, made_up):
    first = [run for run in runs if run.seed == 0]
    (made,) = compare(first, [made_up(run) for run in first])
    assert made.cells[0].spread is None
    assert str(made.cells[0]) == "0.500"
