"""A store before production: every row against results for which its answer is known, the command, and its page."""

import io
import re
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from selenium.webdriver.common.by import By

from greedylr import Action, Decision
from greedylr.cli.pulse import fitting
from greedylr.lab.analysis.recovery import recovery
from greedylr.lab.analysis.summary import summarize
from greedylr.lab.catalogue.perturbations import PERTURBATIONS
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.catalogue.suites import SUITES, Suite
from greedylr.lab.execution import fingerprint
from greedylr.lab.execution.store import Store, is_store
from greedylr.lab.report import readiness
from greedylr.lab.report.readiness import evaluate, facts_of
from greedylr.lab.report.readiness_page import render
from greedylr.lab.results import Result, moves, record
from greedylr.lab.runs import Run, validation_steps
from greedylr.pulse.recording.storage import settings
from greedylr.pulse.report.readiness import Table

ATTACK = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(autouse=True)
def _same_code(monkeypatch):
    monkeypatch.setattr(
        fingerprint, "_code", lambda run, *, stacked: "the same"
    )  # Whoever works on the code changes it.


def falling(steps=200, seed=0):
    return 2 - np.arange(1, steps + 1) / steps + 0.01 * np.random.default_rng(seed).standard_normal(steps)


def made(run, losses=None, final=0.5, moves=(), failure=None, best_at=0.5, metric=0.9):
    """A result whose validation falls from 2 to ``final`` until a share of the run, and stays there."""
    losses = falling(run.steps) if losses is None else losses
    at = np.array(validation_steps(run.steps))
    towards = final if np.isfinite(final) else 1.0
    validations = np.where(at < best_at * run.steps, 2 - (2 - towards) * at / (best_at * run.steps), towards)
    validations[-1] = final
    actions = {"raise": (Action.RAISED, 0.2), "cut": (Action.CUT, 0.05)}
    decisions = [
        Decision(step, losses[step - 1], actions[kind][0], (0.1,), (actions[kind][1],), {}) for step, kind in moves
    ]
    lrs = [0.1] * (len(losses) + 1)
    config = {"mode": "min"}
    if run.scheduler.startswith(("greedylr", "paper")):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        config = settings(SCHEDULERS[run.scheduler].build(optimizer, run.steps).config)
    kept = record(losses, lrs, dict(zip(at.tolist(), validations.tolist())), decisions, config=config)
    return Result(run, kept, metric, failure)


@pytest.fixture
def kept(tmp_path):
    """Evaluates results after a way through a store."""

    def through(results):
        with Store(tmp_path / "kept.sqlite") as store:
            for result in results:
                store.save(result)
            return evaluate(store, store.present())

    return through


def cells(table):
    return dict(table.rows)


GREEDY, COSINE = Run("digits", 1.0, "greedylr", 0, 200), Run("digits", 1.0, "cosine", 0, 200)


def test_the_facts_of_a_run():
    losses = falling()
    losses[100:120] += 0.5  # After the first raise.
    losses[160:] -= 0.5  # After the second.
    found = facts_of(made(GREEDY, losses, moves=[(100, "raise"), (140, "cut"), (160, "raise"), (196, "raise")]))
    assert found.final == 0.5
    assert found.efficiency == 0.5
    assert not found.failed
    assert found.recoveries == []
    assert found.sensitivity is None
    assert found.moves == 20
    assert found.reversals == pytest.approx(2 / 3)
    # The cut falls amid the jump: its history is bent, and nothing can be told; of the last there is too little.
    assert found.refuted == 0.25


def test_moves_are_judged_over_the_window_of_the_rule(monkeypatch):
    seen = []
    judge = readiness.audits
    monkeypatch.setattr(readiness, "audits", lambda some: judge(seen.append(one.window) or one for one in some))
    for scheduler, steps in (("greedylr", 200), ("greedylr", 2000), ("greedylr-open", 2000), ("paper", 2000)):
        facts_of(made(GREEDY._replace(scheduler=scheduler, steps=steps), moves=[(100, "cut")]))
    assert seen == [20, 100, 50, 20]


@pytest.mark.parametrize("scheduler", ["cosine", "schedule-free", "adalrs"])
def test_schedulers_that_move_by_the_step_have_no_moves(scheduler):
    found = facts_of(made(GREEDY._replace(scheduler=scheduler)))
    assert (found.moves, found.reversals, found.refuted) == (None, None, None)


def test_schedulers_that_listen_and_do_not_say_why_they_move_are_judged_all_the_same():
    losses = falling(400)
    lrs = [0.1 if step < 200 else 0.05 for step in range(401)]
    kept = record(losses, lrs, {0: 2.0, 400: 1.0}, moves(losses.tolist(), lrs), config={"mode": "min"})
    found = facts_of(Result(GREEDY._replace(scheduler="plateau", steps=400), kept))
    assert (found.moves, found.refuted) == (2.5, 0.0)


def test_the_loss_is_no_judge_of_who_was_given_a_reward():
    moves = [(100, "raise"), (140, "cut")]
    assert facts_of(made(GREEDY, moves=moves)).refuted is not None
    found = facts_of(made(GREEDY._replace(problem="bandit"), moves=moves))
    assert found.moves == 10
    assert found.refuted is None


@pytest.mark.parametrize(
    "ended", [{"failure": "RuntimeError: singular"}, {"final": 1.99}, {"final": np.inf}, {"final": np.nan}]
)
def test_a_failed_run_counts_with_its_start(ended, kept):
    found = facts_of(made(GREEDY, **ended))
    assert found.failed
    assert found.final == 2
    table = kept([made(GREEDY, **ended), made(GREEDY._replace(seed=1), final=1.0)]).table
    assert cells(table)["failed or abandoned"] == ["1 of 2"]
    assert cells(table)["final validation loss, mean"] == ["1.5"]
    # It was at its best at once, which is no merit.
    assert cells(table)["steps to within 1% of the best, share"] == ["50%"]


def test_recovery_is_the_labs_own(kept):
    twin = made(GREEDY)
    away = falling()
    away[80:130] += 0.8
    disturbed = made(GREEDY._replace(perturbation="adversarial:1"), away)
    measured = recovery(disturbed, twin)
    assert measured.disrupted
    assert 20 < measured.steps < 35
    assert facts_of(disturbed, twin).recoveries == [measured.steps]
    calm = made(GREEDY._replace(perturbation="adversarial:0.25"))
    assert facts_of(calm, twin).recoveries == []
    lost = falling()
    lost[80:] += 0.8
    never = made(GREEDY._replace(perturbation="rollback:0.2"), lost)
    found = kept([disturbed, calm, never, twin])
    assert found.without_twin == 0
    assert cells(found.table)["steps to recover from a disruption, median"] == ["never in 1 of 2"]
    again = made(GREEDY._replace(perturbation="adversarial:0.75"), away)
    found = kept([again])
    assert cells(found.table)["steps to recover from a disruption, median"] == [f"{measured.steps}, never in 1 of 3"]


def test_disturbed_runs_without_a_twin_are_counted(kept):
    number = next(name for name in PERTURBATIONS if name.startswith("published-"))  # Changes nothing.
    found = kept([made(GREEDY._replace(perturbation=name)) for name in ("adversarial:1", number)])
    assert found.without_twin == 1
    assert cells(found.table)["steps to recover from a disruption, median"] == ["–"]


def test_one_case_has_plain_figures(kept):
    found = kept([made(run._replace(seed=seed), final=0.5 + seed / 10) for run in (GREEDY, COSINE) for seed in (0, 1)])
    assert (found.runs, found.schedulers, found.cases, found.seeds) == (4, 2, 1, 2)
    assert found.by_rate == {}
    assert found.table.columns == ["GreedyLR", "cosine with warmup"]
    rows = cells(found.table)
    assert rows["final validation loss, mean"] == ["0.55"] * 2
    assert rows["its standard deviation across seeds"] == ["0.07071"] * 2
    assert rows["accuracy, mean"] == ["0.9"] * 2
    assert rows["moves per 1,000 steps"] == ["0", "–"]
    assert rows["movement explained by composition"] == ["–", "–"]


def test_several_cases_have_regret_at_each_rate_and_in_all(kept):
    finals = {
        ("greedylr", 0.1): (0.6, 0.6),
        ("greedylr", 1.0): (0.5, 0.7),
        ("cosine", 0.1): (1.0, 1.0),
        ("cosine", 1.0): (0.4, 0.4),
    }
    results = [
        made(Run(problem, multiplier, scheduler, seed, 200), final=final * factor)
        for (scheduler, multiplier), both in finals.items()
        for seed, final in enumerate(both)
        for problem, factor in (("digits", 1), ("gru", 1.1))
    ]
    found = kept(results)
    assert found.cases == 4
    assert found.unfinished == 0
    rows = cells(found.table)
    assert rows["regret of the final loss, median"] == ["1.50", "1.75"]
    assert rows["… at learning rate 0.1×"] == ["1.50", "2.50"]
    assert rows["… at learning rate 1×"] == ["1.50", "1.00"]
    # Of 0.5 and 0.7 with a decrease of 1.6 at best on the one, a tenth more with 1.56 on the other.
    deviation = np.median([0, 0, 0.02**0.5 / 1.6, 1.1 * 0.02**0.5 / 1.56])
    assert rows["deviation across seeds, share of the decrease"] == [f"{deviation:.1%}", "0.0%"]
    assert list(found.by_rate) == [0.1, 1.0]
    alone = cells(found.by_rate[1.0])
    assert alone["runs"] == ["4", "4"]
    assert alone["regret of the final loss, median"] == ["1.50", "1.00"]
    assert not any(name.startswith("…") for name in alone)
    lab = {(one.scheduler, one.multiplier): one.median for one in summarize(results).regret_by_multiplier}
    assert {key: f"{value:.2f}" for key, value in lab.items()} == {
        (name, rate): cells(found.by_rate[rate])["regret of the final loss, median"][number]
        for rate in (0.1, 1.0)
        for number, name in enumerate(("greedylr", "cosine"))
    }


def test_rates_that_few_problems_were_run_at_have_no_row(kept):
    runs = [Run(problem, rate, "cosine", 0, 200) for problem in ("digits", "gru", "mlp") for rate in (1.0, 10.0)]
    found = kept([made(run) for run in [*runs, Run("digits", 0.3, "cosine", 0, 200)]])
    assert list(found.by_rate) == [1.0, 10.0]
    assert cells(found.table)["runs"] == ["7"]


def test_runs_of_two_lengths_are_not_compared(kept):
    runs = [run._replace(steps=steps) for run in (GREEDY, COSINE) for steps in (200, 400)]
    finals = [0.6, 0.9, 0.4, 0.3]
    found = kept([made(run, final=final) for run, final in zip(runs, finals)])
    assert found.cases == 2
    assert cells(found.table)["regret of the final loss, median"] == ["2.25", "1.00"]  # Of 1.5 and 3.


def test_where_no_fixed_schedule_ran_there_is_no_regret_and_elsewhere_what_lacks_is_counted(kept):
    feedback = [GREEDY, GREEDY._replace(perturbation="observed-nan:1")]
    found = kept([made(run) for run in feedback])
    assert cells(found.table)["regret of the final loss, median"] == ["–"]
    assert found.unfinished == 0
    found = kept([made(COSINE), made(COSINE._replace(multiplier=10.0)), made(GREEDY._replace(multiplier=0.1))])
    assert found.unfinished == 1


# The command.


@pytest.fixture
def stored(tmp_path):
    """Makes a store in the folder where commands are called."""

    def fill(*results, name="runs.sqlite"):
        with Store(tmp_path / name) as store:
            for result in results:
                store.save(result)

    return fill


@pytest.mark.slow
def test_a_store_that_was_trained_is_reported(call, tmp_path, monkeypatch):
    suite = Suite(
        "tiny",
        "",
        problems=("quadratic-100", "quadratic-noisy"),
        multipliers=(0.1, 1.0),
        seeds=2,
        schedulers=("greedylr", "paper", "cosine"),
        perturbations=("none", "adversarial:1"),
        steps=60,
    )
    monkeypatch.setitem(SUITES, "tiny", suite)
    assert call("lab", "run", "tiny", "--store", "runs.sqlite", "--jobs", 1).exit_code == 0
    result = call("report", "runs.sqlite")
    assert result.exit_code == 0, result.output
    assert "48/48 runs" in result.words
    assert "48 runs, 3 schedulers, 8 cases, 2 seeds." in result.words
    assert {"GreedyLR", "GreedyLR.paper", "cosine", "warmup"} <= set(result.words.split())
    for row in (
        r"runs 16 16 16",
        r"regret of the final loss, median \d+\.\d\d \d+\.\d\d \d+\.\d\d",
        r"… at learning rate 0.1× \d+\.\d\d \d+\.\d\d \d+\.\d\d",
        r"failed or abandoned \d of 16 \d of 16 \d of 16",
        r"steps to recover from a disruption, median .*\d .*\d .*\d",
        r"moves per 1,000 steps [\d.]+ [\d.]+ –",
    ):
        assert re.search(row, result.words), row
    assert "Every row is defined in docs/pulse.md" in result.words
    assert "runs.report.html" in result.words
    page = (tmp_path / "runs.report.html").read_text()
    assert page.count('<table class="compared">') == 3
    assert call("report", "runs.sqlite", "--out", "there/page.html").exit_code == 0
    assert (tmp_path / "there" / "page.html").exists()


def test_results_of_other_code_are_left_out(call, stored, tmp_path, monkeypatch):
    stored(made(GREEDY), made(COSINE))
    monkeypatch.setattr(fingerprint, "_code", lambda run, *, stacked: "another")
    result = call("report", "runs.sqlite")
    assert result.exit_code == 1
    assert "none of the 2 results in runs.sqlite is of this version and code" in result.words
    assert "greedylr lab run SUITE --store runs.sqlite trains them" in result.words
    assert not (tmp_path / "runs.report.html").exists()
    stored(made(GREEDY._replace(seed=1)))
    result = call("report", "runs.sqlite")
    assert "1 run, 1 scheduler, 1 case, 1 seed." in result.words
    assert "2 results of another version or of other code are left out." in result.words
    assert "2 results of another version" in (tmp_path / "runs.report.html").read_text()


def test_a_scheduler_that_is_gone_is_of_another_version(stored, tmp_path, monkeypatch):
    stored(made(GREEDY), made(COSINE))
    connection = sqlite3.connect(tmp_path / "runs.sqlite")
    connection.execute("UPDATE run SET scheduler = 'mine' WHERE scheduler = 'cosine'")
    connection.commit()
    connection.close()
    with Store(tmp_path / "runs.sqlite") as store:
        assert store.present() == [GREEDY]


def test_a_store_that_is_not_there_is_said_to_be_missing(call, tmp_path):
    result = call("report", "runs.sqlite")
    assert result.exit_code == 1
    assert "Stopped: there is no folder and no store runs.sqlite" in result.words
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_runs_says_how_to_get_some(call, stored):
    stored()
    result = call("report", "runs.sqlite")
    assert result.exit_code == 1
    assert "runs.sqlite holds no runs: greedylr lab run SUITE --store runs.sqlite trains them" in result.words


def test_a_file_that_is_no_store_is_named_and_not_touched(call, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty.sqlite").write_bytes(b"")
    connection = sqlite3.connect(tmp_path / "other.sqlite")
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(before) == 3
    for file in before:
        result = call("report", file.name)
        assert result.exit_code == 1
        assert f"{file.name} is neither a folder that a greedylr.pulse.Recorder wrote nor a store" in result.words
        assert not is_store(file)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_store_stands_alone(call, stored, tmp_path):
    stored(made(GREEDY))
    stored(made(GREEDY), name="more.sqlite")
    (tmp_path / "a").mkdir()
    for runs in (("runs.sqlite", "a"), ("a", "runs.sqlite")):
        result = call("report", *runs)
        assert result.exit_code == 1
        assert "a store and recorded runs cannot share a table: runs.sqlite is a store, a is not" in result.words
    result = call("report", "runs.sqlite", "more.sqlite")
    assert result.exit_code == 1
    assert "one store at a time: got 2, runs.sqlite, more.sqlite" in result.words


def test_a_page_of_somebody_else_is_left_alone_and_said_before_the_work(call, stored, tmp_path):
    stored(made(GREEDY))
    (tmp_path / "runs.report.html").write_text("mine")
    result = call("report", "runs.sqlite")
    assert result.exit_code == 1
    assert "it has a runs.report.html that greedylr did not write" in result.words
    assert "1/1" not in result.words
    assert (tmp_path / "runs.report.html").read_text() == "mine"


def test_ctrl_c_ends_it_with_a_word(call, stored, tmp_path, monkeypatch):
    stored(made(GREEDY), made(COSINE))
    load = Store.load

    def interrupted(self, runs):
        yield from load(self, runs[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "load", interrupted)
    result = call("report", "runs.sqlite")
    assert result.exit_code == 130
    assert "Interrupted. The store is as it was." in result.words
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs.report.html").exists()


@pytest.mark.parametrize("width", [60, 80, 120, 400])
def test_columns_that_do_not_fit_go_below(width):
    names = [f"scheduler [bold]{number}" for number in range(9)]
    compared = Table(names, [("[red]runs", [str(number) * 8 for number in range(9)]), ("others of them", ["–"] * 9)])
    console = Console(file=io.StringIO(), width=width)
    console.print(fitting("All \\[runs]", compared))
    said = console.file.getvalue()
    shown = said.count("All [runs]")
    assert all(len(line.rstrip()) <= width for line in said.splitlines())
    assert "…" not in said
    for number in range(9):
        assert len(re.findall(rf"(?<!\d){str(number) * 8}(?!\d)", said)) == 1
        assert len(re.findall(rf"\[bold\]{number}", said)) == 1
    assert said.count("[red]runs") == shown
    assert (shown == 1) == (width == 400)


# The page.


@pytest.fixture
def page(kept):
    runs = [
        Run(problem, rate, name, seed, 200)
        for problem in ("digits", "gru")
        for rate in (0.1, 1.0)
        for name in ("greedylr", "paper", "transformers-greedylr-smooth", "plateau", "cosine", "wsd")
        for seed in (0, 1)
    ]
    found = kept([made(run) for run in runs])
    return lambda name="runs.sqlite", others=0, **changed: render(name, replace(found, **changed), others)


def test_the_page_has_the_tables(browser, show, page):
    show(page(others=3))
    shown = browser.find_elements(By.CSS_SELECTOR, "table.compared")
    assert [table.find_element(By.XPATH, "../preceding-sibling::h2[1]").text for table in shown] == [
        "All runs",
        "Learning rate 0.1×",
        "Learning rate 1×",
    ]
    heads = [head.text for head in shown[0].find_elements(By.CSS_SELECTOR, "thead th")]
    assert heads[::5] == ["GreedyLR", "warmup, stable, decay"]
    rows = {
        row.find_element(By.TAG_NAME, "th").text: [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
        for row in shown[0].find_elements(By.CSS_SELECTOR, "tbody tr")
    }
    assert rows["runs"] == ["8"] * 6
    assert rows["… at learning rate 1×"] == ["1.00"] * 6
    assert "3 results of another version or of other code are left out." in browser.page_source


def test_the_names_of_the_rows_stay_in_sight_on_a_small_screen(browser, show, resize, page):
    show(page())
    resize(400)
    left = "return document.querySelector('.compared tbody th').getBoundingClientRect().left"
    before = browser.execute_script(left)
    to_the_right = "const it = document.querySelector('.scroll'); it.scrollLeft = 200; return it.scrollLeft"
    assert browser.execute_script(to_the_right) == 200
    assert browser.execute_script(left) == before


def test_it_follows_the_colour_scheme_and_fits_the_screen(show, adapts, page):
    show(page())
    adapts(".compared tbody td")


def test_no_text_becomes_code_and_nothing_is_loaded(browser, show, page):
    html = page(name=ATTACK, table=Table([ATTACK], [(ATTACK, [ATTACK])]))
    assert "<img src=x" not in html
    show(html)
    assert browser.execute_script("return window.hacked") is None
    assert "window.hacked = 1" in browser.find_element(By.TAG_NAME, "h1").text
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page())
    assert "url(" not in html
    assert len(html) < 30_000  # No library for charts that it does not have.
