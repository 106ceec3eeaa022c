"""The page, as its bytes and as a browser shows it."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from greedylr import Action
from greedylr.lab.execution.reference_loop import train
from greedylr.lab.report.demo import PROBLEMS, SCHEDULERS
from greedylr.lab.report.demo.page import SEEDS_SHOWN, render
from greedylr.lab.runs import Run

ATTACK = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture
def show(show, wait):
    """Opens a page, and waits until its charts are drawn."""

    def open_page(html):
        show(html)
        drawn = "return [...document.querySelectorAll('.chart')].every(chart => chart.querySelector('.legend'))"
        wait(lambda driver: driver.execute_script(drawn))

    return open_page


@pytest.fixture(scope="module")
def trained():
    """Real runs of two seeds, short but long enough for raises, cuts and spikes."""
    runs = [
        Run("digits", 10.0, name, seed, 200)
        for seed in range(2)
        for name in ("greedylr", "paper", "cosine", "constant")
    ]
    return [train(run) for run in runs]


def decisions(results, seed):
    return [one for result in results if result.run.seed == seed for one in result.decisions]


def markers(browser):
    return browser.find_elements(By.CSS_SELECTOR, ".chart .scatterlayer .point")


def test_every_raise_cut_and_spike_has_its_marker_and_words(browser, show, wait, trained):
    show(render([result.run for result in trained], trained, {}))
    for seed in range(2):
        browser.find_element(By.CSS_SELECTOR, f"input[name=seed][value='{seed}']").click()
        wanted = decisions(trained, seed)
        assert wanted
        wait(lambda _, wanted=wanted: len(markers(browser)) == len(wanted))
        words = browser.execute_script(
            "return [...document.querySelectorAll('.chart')].flatMap(chart => chart.data)"
            ".filter(trace => trace.mode === 'markers').flatMap(trace => trace.hovertext)"
        )
        steps = Counter(int(re.search(r"step (\d+)", text)[1]) for text in words)
        assert steps == Counter(one.step for one in wanted)


def test_the_words_are_shown_when_one_points_at_a_marker(browser, show, wait, made_up, decision, runs):
    raised = decision(step=3, mean=0.25)
    results = [made_up(run, decisions=[raised] if run.scheduler == "greedylr" else []) for run in runs]
    show(render(runs, results, {}))
    (marker,) = markers(browser)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", marker)
    ActionChains(browser).move_to_element(marker).perform()
    hover = wait(lambda driver: driver.find_element(By.CSS_SELECTOR, ".hoverlayer .hovertext").text)
    for part in ("GreedyLR, step 3", "raised: the loss improved", "LR 0.1 → 0.2", "minibatch loss 0.7", "mean 0.25"):
        assert part in hover


def test_the_legend_hides_a_scheduler_with_its_markers_and_other_seeds_leave_it_hidden(
    browser, show, wait, made_up, decision, runs
):
    of_seed = {0: [decision()], 1: [decision(), decision(action=Action.SPIKE)]}
    show(
        render(
            runs, [made_up(run, decisions=of_seed[run.seed] if run.scheduler == "paper" else []) for run in runs], {}
        )
    )
    assert len(markers(browser)) == 1
    browser.find_elements(By.CSS_SELECTOR, ".chart .legendtoggle")[1].click()
    wait(lambda _: not markers(browser))
    browser.find_element(By.CSS_SELECTOR, "input[name=seed][value='1']").click()
    hidden = "return document.querySelector('.chart').data.filter(trace => trace.visible === 'legendonly').length"
    assert browser.execute_script(hidden) == 5
    assert not markers(browser)


def test_the_x_axes_of_a_chart_are_linked(browser, show, made_up, runs):
    show(render(runs, [made_up(run) for run in runs], {}))
    ranges = browser.execute_async_script(
        "const [done] = arguments, chart = document.querySelector('.chart');"
        "Plotly.relayout(chart, {'xaxis.range': [1, 2]}).then(() => done("
        "['xaxis', 'xaxis2', 'xaxis3'].map(axis => chart._fullLayout[axis].range)))"
    )
    assert ranges == [[1, 2]] * 3


def test_it_follows_the_colour_scheme_and_fits_the_screen(show, adapts, made_up, runs):
    show(render(runs, [made_up(run, 3.0) for run in runs], {}))
    adapts(".legendtext")


def test_no_text_becomes_code(browser, show, wait, made_up, decision, runs, monkeypatch):
    monkeypatch.setitem(PROBLEMS, "digits", replace(PROBLEMS["digits"], title=ATTACK))
    for name, scheduler in list(SCHEDULERS.items()):
        monkeypatch.setitem(SCHEDULERS, name, replace(scheduler, title=ATTACK))
    attack = decision(**{ATTACK: 1.0})
    html = render(runs, [made_up(run, decisions=[attack]) for run in runs], {ATTACK: ATTACK})
    assert "<script>window.hacked" not in html
    assert "<img src=x" not in html
    show(html)
    marker = markers(browser)[0]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", marker)
    ActionChains(browser).move_to_element(marker).perform()
    hover = wait(lambda driver: driver.find_element(By.CSS_SELECTOR, ".hoverlayer .hovertext").text)
    assert "window.hacked = 1" in hover
    assert browser.execute_script("return window.hacked") is None


def test_the_table_has_every_row_and_cell_and_marks_the_winner(browser, show, made_up, runs):
    losses = {"greedylr": 0.3, "paper": 0.2, "cosine": 3.0, "constant": float("nan")}
    show(render(runs, [made_up(run, losses[run.scheduler]) for run in runs], {"torch": "1.2.3"}))
    cells = [cell.text.replace("\n", " ") for cell in browser.find_elements(By.CSS_SELECTOR, "td")]
    assert cells == [
        "0.300 ± 0.000",
        "★ 0.200 ± 0.000",
        "3.000 ± 0.000 2 of 2 diverged",
        "not finite 2 of 2 diverged",
    ]
    body = browser.find_element(By.TAG_NAME, "body").text
    assert "GreedyLR won 0 of 1. 1×: GreedyLR.paper won, 33.3% below GreedyLR." in body
    assert "torch 1.2.3" in body
    assert "Stopped early" not in body


def test_it_begins_with_a_picture_of_the_final_losses(browser, show, wait, made_up, runs):
    losses = {"greedylr": 0.3, "paper": 0.2, "cosine": 3.0, "constant": float("nan")}
    show(render(runs, [made_up(run, losses[run.scheduler]) for run in runs], {}))
    wait(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".picture .scatterlayer .trace"))
    browser.execute_script("Plotly.downloadImage = (chart, how) => { window.saved = how.filename; }")
    browser.find_element(By.CSS_SELECTOR, ".picture + .save").click()
    assert browser.execute_script("return window.saved").endswith("-digits")
    shown = "document.querySelector('.picture').data"
    lines = browser.execute_script(f"return {shown}.map(one => [one.name, one.x, one.y, one.marker.symbol])")
    assert [line[0] for line in lines] == [scheduler.title for scheduler in SCHEDULERS.values()]
    assert [line[1:] for line in lines] == [
        [[1], [pytest.approx(0.3)], ["circle"]],
        [[1], [pytest.approx(0.2)], ["circle"]],
        [[1], [pytest.approx(3.0)], ["x"]],
        [[1], [None], ["x"]],
    ]
    first = browser.execute_script("return document.querySelector('h2').nextElementSibling.className")
    assert first == "pictures"


def test_what_is_not_finished_is_said_to_be_so(browser, show, made_up, runs):
    show(render(runs, [made_up(run) for run in runs[:3]], {}))
    body = browser.find_element(By.TAG_NAME, "body").text
    assert "Stopped early: 3 of 8 runs are finished." in body
    assert "Nobody won: no row is complete." in body


def test_it_loads_nothing_and_stays_light(made_up, decision):
    runs = [Run("digits", 1.0, name, seed, 1000) for seed in range(2 * SEEDS_SHOWN) for name in SCHEDULERS]
    html = render(runs, [made_up(run, decisions=[decision(step) for step in range(1, 101)]) for run in runs], {})
    ours = html.split('<script type="application/json"')[0]
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", ours)
    assert "url(" not in ours
    assert "@import" not in ours
    assert f'value="{SEEDS_SHOWN - 1}"' in ours
    assert f'value="{SEEDS_SHOWN}"' not in ours
    assert len(html) < 3e6
