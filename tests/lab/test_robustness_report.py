"""The report on disturbed runs: it says what the summaries say, shows what the reader selects, and stays small."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
from rich.console import Console
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from greedylr.lab.analysis.robustness import put_together, summarize_robustness, worst
from greedylr.lab.analysis.summary import summarize
from greedylr.lab.catalogue.perturbations import KINDS, find
from greedylr.lab.catalogue.schedulers import SCHEDULERS
from greedylr.lab.report import page, words
from greedylr.lab.report.curves import POINTS, Curves
from greedylr.lab.report.disturbed import are_disturbed, gather
from greedylr.lab.report.robustness_tables import cells, median_text
from greedylr.lab.report.terminal import show_disturbed
from greedylr.lab.report.trajectories import Scene, Trajectories
from greedylr.lab.results import Result, record
from greedylr.lab.runs import Run

STEPS = 200
FALLING = np.linspace(2.0, 1.0, STEPS)
# How far above its twin a scheduler is pushed, by the place a disturbance acts on.
PUSHED = {
    "greedylr": {"gradient": 0.9, "data": 0.2, "observation": 0.3},
    "paper": {"gradient": 0.3, "data": 0.4, "observation": 0.6},
    "cosine": {"gradient": 0.5, "data": 0.3},
    "exponential": {"gradient": 0.1, "data": 0.6},
}
PERTURBATIONS = ("gradient-noise:1", "gradient-noise:3", "label-noise:1", "observed-nan:1")


def made(run):
    """A result: after a disturbance the run comes back slowly, the sooner the weaker it was."""
    found = find(run.perturbation)
    losses = (FALLING + 0.01 * run.seed).tolist()
    clean, final = [], 1.0 + run.seed / 10
    if found is not None and found.kind.acts_on != "nothing":
        begin, _ = found.span(STEPS)
        push = (
            PUSHED[run.scheduler][found.kind.acts_on] * (1 + found.strength / 10) / (1 if run.problem == "mlp" else 2)
        )
        away = [push * math.exp(-max(0, step - begin) / 40) * (step >= begin) for step in range(STEPS)]
        pushed = [loss + more for loss, more in zip(losses, away, strict=True)]
        final += push
        losses, clean = (pushed, []) if found.kind.acts_on != "data" else ([9.0] * STEPS, pushed)
    lrs = [0.1 * run.multiplier] * (STEPS + 1)
    return Result(run, record(losses, lrs, {0: 2.5, STEPS: final}, clean_losses=clean))


def runs(perturbations=("none", *PERTURBATIONS), schedulers=tuple(PUSHED), problems=("mlp", "logistic"), seeds=2):
    return [
        Run(problem, multiplier, scheduler, seed, STEPS, "adamw", perturbation)
        for perturbation in perturbations
        for seed in range(seeds)
        for problem in problems
        for multiplier in (0.1, 1.0)
        for scheduler in schedulers
        if not perturbation.startswith("observed") or SCHEDULERS[scheduler].kind == "feedback"
    ]


def rendered(results):
    disturbed = gather(results)
    curves = Curves()
    summary = summarize(curves.watch(disturbed.measured.twins))
    about = page.About("shaken", "for tests", "greedylr lab run shaken", disturbed.runs, {"torch": "1.2.3"})
    return page.render(about, summary, curves, disturbed), disturbed


@pytest.fixture(scope="module")
def report():
    return rendered(map(made, runs()))


PROTOCOL = ("none", "published-drift:1", "published-burst:1")


@pytest.fixture(scope="module")
def protocol():
    return rendered(map(made, runs(PROTOCOL)))


def texts(browser, table):
    read = "return [...document.querySelectorAll(arguments[0] + ' tr')]"
    read += ".map(row => [...row.cells].map(cell => cell.innerText.trim().replace('\\n', ' ')))"
    return browser.execute_script(read, table)[1:]


def plain(text):
    """A cell of the terminal as the page has it: the interval on a line of its own, without brackets."""
    return text.replace("[", "").replace("]", "")


def select(browser, what, value):
    Select(browser.find_element(By.CSS_SELECTOR, what)).select_by_value(value)


@pytest.fixture
def go(browser, show, report, wait):
    """Shows the report and goes to the trajectories, which are drawn then."""
    show(report[0])
    browser.execute_script("document.getElementById('trajectories').scrollIntoView()")
    wait(lambda driver: driver.find_elements(By.CSS_SELECTOR, "#trajectories .scatterlayer .trace"))


def drawn(browser):
    """Losses and learning rates by the name of the line."""
    read = "return document.getElementById('trajectories').data.map(one => [one.name, one.yaxis, one.x, one.y])"
    return {(name, axis): (x, y) for name, axis, x, y in browser.execute_script(read)}


# What is said


@pytest.mark.parametrize("by", ["place", "kind", "perturbation"])
def test_the_table_says_what_the_summary_says(browser, show, report, by):
    show(report[0])
    expected = summarize_robustness(map(made, runs()), by).rows
    select(browser, "#level", by)
    for multiplier in ("0.1", "1"):
        select(browser, "#level-rate", multiplier)
        shown = [row for row in texts(browser, "#robustness-table") if len(row) > 1]
        rows = [row for row in expected if row.multiplier == float(multiplier)]
        assert shown == [
            [words.title(row.scheduler), plain(median_text(row.final)), *map(plain, cells(row))] for row in rows
        ]
    groups = [row[0] for row in texts(browser, "#robustness-table") if len(row) == 1]
    assert (
        groups
        == {
            "place": ["on the gradient", "on the data", "on the observation"],
            "kind": ["gradient noise", "label noise", "NaN observations"],
            "perturbation": ["gradient noise, 1", "gradient noise, 3", "label noise, 1", "NaN observations, 1"],
        }[by]
    )


def test_where_it_loses_comes_first_and_leads_to_the_curves(browser, show, wait, report):
    html, disturbed = report
    show(html)
    rows = texts(browser, ".worst-disturbances[data-measure=excess]")
    found = worst(disturbed.robustness("kind"), "greedylr", "excess")
    assert [row[0] for row in rows] == [KINDS[one.own.perturbations].title for one in found]
    assert rows[0][0] == "gradient noise"
    assert rows[0][2] == plain(median_text(found[0].own.excess, ".3f"))
    assert rows[0][4:6] == ["exponential", plain(median_text(found[0].best.excess, ".3f"))]
    assert html.index('class="worst-disturbances"') < html.index('id="robustness-beside"') < html.index('id="worst"')
    button = browser.find_elements(By.CSS_SELECTOR, ".worst-disturbances [data-scene]")[0]
    browser.execute_script("arguments[0].click()", button)
    wait(lambda driver: driver.find_elements(By.CSS_SELECTOR, "#trajectories .scatterlayer .trace"))
    # The stronger, on the problem that is pushed further.
    chosen = [one.get_attribute("value") for one in browser.find_elements(By.CSS_SELECTOR, "[data-where]")]
    assert chosen[:3] == ["gradient-noise:3", "mlp", "adamw"]


def test_worst_is_sorted_by_what_is_between_it_and_the_best_other():
    summary = summarize_robustness(map(made, runs()), "kind")
    for measure in ("excess", "validation_ratio"):
        found = worst(summary, "greedylr", measure)
        assert [one.behind for one in found] == sorted((one.behind for one in found), reverse=True)
        # With labels and observations disturbed it is the best itself.
        assert {one.own.perturbations for one in found} == {"gradient-noise"}
        assert len(found) == 2
        for one in found:
            own, best = (getattr(row, measure).value for row in (one.own, one.best))
            assert one.behind == own - best
            assert one.best.scheduler != one.own.scheduler == "greedylr"
    assert worst(summarize_robustness(map(made, runs(schedulers=("greedylr",))), "kind"), "greedylr", "excess") == []


def test_the_published_medians_stand_beside_ours(browser, show, report):
    show(report[0])
    rows = texts(browser, "#robustness-beside")
    side = {(row.scheduler, row.multiplier): row for row in report[1].robustness("side").rows
            if row.perturbations == "training"}  # fmt: skip
    assert len(rows) == len(side) + 4
    ours = side["greedylr", 0.1]
    assert rows[0] == ["GreedyLR", "0.1×", plain(median_text(ours.final)), plain(median_text(ours.steps, ".0f")),
                       plain(median_text(ours.published_ratio))]  # fmt: skip
    assert ours.runs == 12  # without those of which only the observation is disturbed
    assert [row[2:] for row in rows[-4:]] == [
        ["0.148", "12", "134"], ["0.232", "45", "132"], ["0.226", "–", "–"], ["0.249", "–", "–"]
    ]  # fmt: skip
    assert "They measured clean training" in browser.find_element(By.TAG_NAME, "body").text


def test_final_losses_that_are_none_are_infinite():
    every = [made(run) for run in runs(("none", "gradient-noise:1"), ("cosine",), ("mlp",), seeds=1)]
    every[2].failure = "ValueError: x"
    row = summarize_robustness(every).rows[0]
    assert row.final.value == math.inf
    assert row.multiplier == 0.1


def test_the_published_protocol_has_its_table_with_the_proof(browser, show, protocol):
    html, disturbed = protocol
    show(html)
    body = browser.find_element(By.TAG_NAME, "body").text
    assert "In 64 of 64 runs every loss and every learning rate equals" in body
    rows = texts(browser, "#protocol")
    assert len(rows) == len(disturbed.published) == 12
    assert rows[0] == ["GreedyLR", "none", "8", "", "", "1", "2"]
    assert [row[1:5] for row in rows[4:8]] == [["published-drift:1", "8", "8 of 8", "0"]] * 4
    assert texts(browser, "#protocol-beside")[0] == ["GreedyLR", "–", "1", "–", "2"]
    # Curves that equal their twins' are not worth drawing.
    assert not browser.find_elements(By.ID, "trajectories")
    assert not browser.find_elements(By.ID, "robustness-beside")


def test_both_kinds_of_perturbations_can_be_in_one_suite(browser, show):
    html, disturbed = rendered(map(made, runs((*PROTOCOL, "gradient-noise:1"))))
    assert len(disturbed.published) == 12
    assert len(disturbed.measured.recoveries) == 32
    show(html)
    for table in ("#protocol", "#protocol-beside", "#robustness-beside", "#robustness-table"):
        assert texts(browser, table)


def test_what_lacks_its_twin_counts_nowhere_and_is_said_to():
    every = [made(run) for run in runs()]
    html, disturbed = rendered(every[1:])
    assert disturbed.runs == len(every) - 1
    assert "4 runs without a twin, so far" in html
    alone = [made(run) for run in runs(("published-drift:1",))]
    assert gather(alone).published == ()
    assert "greedylr lab run shaken" in rendered(alone)[0]


def test_the_general_sections_are_of_the_twins_alone(browser, show, report):
    show(report[0])
    body = browser.find_element(By.TAG_NAME, "body").text
    assert f"{len(runs())} of {len(runs())} runs" in body
    assert "All that follows is of the 32 runs that nothing disturbs." in body
    assert report[0].count('id="case-') == 1 + 4  # its table, and a case for each problem and learning rate
    assert not browser.find_elements(By.CSS_SELECTOR, "[data-choice=perturbation]")


def test_the_terminal_has_the_worst_the_places_and_the_published_figures(report, protocol):
    def printed(disturbed):
        console = Console(width=200, record=True, file=io.StringIO())
        show_disturbed(console, disturbed)
        return " ".join(console.export_text().split())

    text = printed(report[1])
    titles = ("loses most to a disturbance: excess", "loses most to a disturbance: final loss / twin's",
              "Robustness at 0.1 times", "Robustness at 1 times", "The twins", "Beside the published")  # fmt: skip
    assert [text.index(title) for title in titles] == sorted(text.index(title) for title in titles)
    for row in report[1].robustness("place").rows:
        assert f"{words.title(row.scheduler)} {cells(row)[0]}" in text
    assert "published, cosine with restarts 0.01 0.226" in text
    assert "8 of 8" in printed(protocol[1])
    assert "Robustness at" not in printed(protocol[1])


# What is shown


def test_a_run_its_twin_and_their_learning_rates_are_drawn(browser, go):
    select(browser, "[data-where=problem]", "mlp")
    lines = drawn(browser)
    names = [words.title(name) for name in ("greedylr", "paper", "cosine")]
    assert set(lines) == {(name + of, axis) for name in names for of in ("", ", undisturbed") for axis in ("y", "y2")}
    x, y = lines["GreedyLR", "y"]
    assert x == [4 * (number + 1) for number in range(POINTS)]
    _, twin = lines["GreedyLR, undisturbed", "y"]
    assert twin[0] == pytest.approx(FALLING[:4].mean() + 0.005)
    assert y[:20] == twin[:20]
    assert y[20] > twin[20] + 0.5
    spans = browser.execute_script(
        "return document.getElementById('trajectories').layout.shapes.map(s => [s.x0, s.x1])"
    )
    assert spans == [[80, 100], [80, 100]]


def test_selecting_something_else_redraws(browser, go, wait):
    for what, value in (("perturbation", "label-noise:1"), ("problem", "logistic"), ("multiplier", "1")):
        before = drawn(browser)
        select(browser, f"[data-where={what}]", value)
        wait(lambda driver, before=before: drawn(driver) != before)
    lines = drawn(browser)
    # The clean losses, not those of the wrong labels, which are 9.
    assert max(lines["cosine with warmup", "y"][1]) < 3
    assert lines["GreedyLR", "y2"][1] == pytest.approx([0.1] * POINTS)
    select(browser, "[data-where=perturbation]", "observed-nan:1")
    wait(lambda driver: ("cosine with warmup", "y") not in drawn(driver))
    assert ("GreedyLR.paper", "y") in drawn(browser)
    assert not browser.find_element(By.ID, "no-scene").is_displayed()


def test_what_was_not_run_is_said_to_be_so(browser, show, wait):
    some = [run for run in runs() if run.problem == "mlp" or "label" not in run.perturbation]
    show(rendered(map(made, some))[0])
    browser.execute_script("document.getElementById('trajectories').scrollIntoView()")
    wait(lambda driver: driver.find_elements(By.CSS_SELECTOR, "#trajectories .scatterlayer .trace"))
    select(browser, "[data-where=perturbation]", "label-noise:1")
    select(browser, "[data-where=problem]", "logistic")
    wait(lambda driver: driver.find_element(By.ID, "no-scene").is_displayed())
    assert drawn(browser) == {}


def test_the_legend_hides_a_scheduler(browser, go, wait):
    browser.find_element(By.CSS_SELECTOR, "[data-legend=trajectories] [value=paper]").click()
    wait(lambda driver: not any("paper" in name for name, _ in drawn(driver)))
    assert ("GreedyLR", "y") in drawn(browser)


def test_it_fits_a_small_screen_and_every_choice_has_a_label(browser, go, resize):
    resize(400)
    unlabelled = "return [...document.querySelectorAll('select, input')].filter(one => !one.labels.length).length"
    assert browser.execute_script(unlabelled) == 0
    # A choice of one is none.
    assert not browser.find_element(By.CSS_SELECTOR, "[data-where=optimizer]").is_displayed()


# How large it is


def test_trajectories_are_medians_over_seeds_and_of_few_schedulers():
    kept = Trajectories(("cosine",))
    every = [made(run) for run in runs(("none", "label-noise:1"), ("cosine", "paper"), ("mlp",), seeds=3)]
    for result in every:
        kept.keep(result)
    assert [scene.perturbation for scene in kept.scenes()] == ["label-noise:1"] * 2
    scene = kept.scenes()[0]
    assert scene == Scene("label-noise:1", "mlp", "adamw", 0.1, STEPS)
    data = json.loads(json.dumps(kept.data(scene)))
    assert data["span"] == [80, 100]
    assert list(data["curves"]) == ["cosine"]
    losses, lrs = (np.frombuffer(base64.b64decode(text), "<f4") for text in data["curves"]["cosine"])
    clean = made(Run("mlp", 0.1, "cosine", 1, STEPS, "adamw", "label-noise:1")).clean_losses
    np.testing.assert_allclose(losses, np.reshape(clean, (POINTS, 4)).mean(1), rtol=1e-6)
    np.testing.assert_allclose(lrs, 0.01, rtol=1e-6)
    assert kept.data(scene.twins())["span"] is None


def test_a_run_that_broke_down_leaves_a_gap_and_infinite_losses_too():
    kept = Trajectories(("cosine",))
    run = Run("mlp", 1.0, "cosine", 0, 4, "adamw", "gradient-noise:1")
    kept.keep(Result(run, record([4.0, math.inf, 1e300], [0.1] * 4, {0: 2.0}), failure="ValueError: x"))
    losses, lrs = kept.middle(kept.scenes()[0], "cosine")
    np.testing.assert_array_equal(losses, np.array([4, np.nan, np.nan, np.nan], np.float32))
    np.testing.assert_array_equal(lrs, np.array([0.1, 0.1, 0.1, np.nan], np.float32))


def test_a_scene_takes_little_room():
    sizes = []
    for strengths in (1, 3):
        perturbations = [f"gradient-noise:{number + 1}" for number in range(strengths)]
        html, disturbed = rendered(map(made, runs(("none", *perturbations))))
        sizes.append(len(html))
    # Two strengths on two problems at two learning rates; the full suite has about 2,000 such scenes.
    assert (sizes[1] - sizes[0]) / 8 < 4000
    assert not re.search(r"NaN|Infinity", html[html.index('id="scenes-') : html.index('id="robustness-contents"')])
    assert put_together(disturbed.measured, "kind").rows == disturbed.robustness("kind").rows


def test_whether_runs_are_disturbed_is_seen_from_the_runs():
    assert are_disturbed(runs())
    assert not are_disturbed(runs(("none",)))
