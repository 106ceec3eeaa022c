"""The page, as its bytes and as a browser shows it."""

import base64
import itertools
import json
import re
import time
import zlib
from datetime import date

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import greedylr
from greedylr import Action
from greedylr.pulse import Recorder
from greedylr.pulse.diagnosis.reading import read
from greedylr.pulse.report import render, write

ATTACK = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture
def show(show, wait):
    """Opens a page, and waits until its chart is drawn."""

    def open_page(html):
        show(html)
        wait(lambda driver: driver.find_elements(By.CSS_SELECTOR, "#chart .main-svg"))

    return open_page


def play(moves=6, spikes=(), marks=(), domain="web"):
    """A run that is raised and cut every 40 steps."""

    def run(script, recorder):
        r = np.random.default_rng(0)
        for step in range(1, 40 * moves + 60):
            raised = step // 40 % 2
            action, factor = (Action.RAISED, 1.5) if raised else (Action.CUT, 0.5)
            if step % 40 or step > 40 * moves:
                action, factor = Action.SPIKE if step in spikes else Action.GATHERING, 1.0
            loss = 20.0 if step in spikes else 3 - step / 200 + 0.1 * r.standard_normal()
            script.step(loss, action, factor, composition={"domain": domain}, mean=1.25)
            if step % 20 == 0:
                recorder.log(val_loss=3 - step / 300)
            if step in marks:
                recorder.mark("shard")

    return run


@pytest.fixture
def reading(record):
    def make(name="run", meta=None, **settings):
        record(play(**settings), name=name, meta=meta)
        return name

    return make


def pages(tmp_path, *names):
    return render(read([tmp_path / name for name in names]))


def markers(browser):
    return browser.execute_script(
        "return document.getElementById('chart').data.filter((one) => one.name === 'decisions')"
        ".map((one) => [one.x.length, one.hovertext])"
    )


def test_every_move_and_spike_has_its_marker_and_its_reason(browser, show, reading, tmp_path):
    reading(moves=6, spikes=(100, 101))
    show(pages(tmp_path, "run"))
    (count, texts), on_lr = markers(browser)
    assert count == on_lr[0] == 8
    # Plotly reads it as HTML.
    assert "Step 40, raised: the loss improved (mean 1.25). LR 0.1 → 0.15." in texts[0].replace("&#x27;", "'")
    assert re.search(r"(Confirmed|Refuted|Undecidable): ", texts[0])
    assert sum("spike: held" in text for text in texts) == 2


def drawn_markers(browser):
    """Sizes, and whether they are drawn, of the decisions on the loss and on the learning rate."""
    return browser.execute_script(
        "return document.getElementById('chart').data.filter((one) => one.name === 'decisions')"
        ".map((one) => [[...one.marker.size], [...one.y].map((y) => !Number.isNaN(y))])"
    )


def test_of_hundreds_of_moves_those_are_large_that_stand_apart_or_were_refuted(browser, show, wait, reading, tmp_path):
    reading(moves=300, spikes=(6020,))
    (one,) = read([tmp_path / "run"])
    show(render([one]))
    refuted = {move.decision.step for move in one.audit.moves if move.verdict.short == "refuted"}
    steps = [move.step for move in one.trace.decisions if move.raised or move.cut or move.action is Action.SPIKE]
    (on_loss, there), (on_lr, all_there) = drawn_markers(browser)
    expected = [step in refuted or step == 6020 for step in steps]
    assert sum(expected) < 100
    assert on_loss == on_lr == [9 if large else 4 for large in expected]
    assert there == expected
    assert all(all_there)
    assert "zoom in to tell them apart" in browser.find_element(By.ID, "some").text
    browser.execute_script("Plotly.relayout('chart', {'xaxis.range': [0, 1000]})")
    wait(lambda driver: drawn_markers(driver)[0][0] == [9] * 301)
    assert all(drawn_markers(browser)[0][1])


def test_keys_and_buttons_go_from_decision_to_decision(browser, show, wait, reading, tmp_path):
    reading(moves=4)
    show(pages(tmp_path, "run"))
    chart, said = browser.find_element(By.ID, "chart"), browser.find_element(By.ID, "said")
    assert said.text == "No decision chosen."
    for number, key in enumerate([Keys.ARROW_RIGHT] * 3 + [Keys.ARROW_LEFT], start=1):
        chart.send_keys(key)
        step = 40 * (number if number < 4 else 2)
        wait(lambda _, step=step: said.text.startswith(f"Step {step}, "))
    browser.find_element(By.ID, "next").click()
    wait(lambda _: said.text.startswith("Step 120, "))
    assert said.get_attribute("aria-live") == "polite"


def test_a_finding_is_named_shaded_and_shown(browser, show, wait, record, tmp_path):
    def broken(script, recorder):
        for step in range(400):
            script.step(1.0 + 0.1 * np.sin(step))
        script.step(float("nan"), Action.NON_FINITE, 0.5)
        for step in range(99):
            script.step(1.0 + 0.1 * np.sin(step))

    record(broken)
    show(pages(tmp_path, "run"))
    row = browser.find_element(By.CSS_SELECTOR, ".findings tbody tr")
    assert "the loss was not finite" in row.text
    assert "401" in row.text
    assert "Look at that batch" in row.text
    shown = browser.execute_script("const { shapes, annotations } = chart.layout; return [shapes, annotations]")
    assert [shape["x0"] for shape in shown[0]] == [401]
    assert [one["text"] for one in shown[1]] == ["the loss was not finite"]
    row.find_element(By.TAG_NAME, "button").click()
    wait(lambda _: browser.execute_script("return chart._fullLayout.xaxis.range[0]") > 300)
    browser.find_element(By.ID, "whole").click()
    wait(lambda _: browser.execute_script("return chart._fullLayout.xaxis.range[0]") < 50)


def test_findings_have_a_strip_above_the_charts_a_row_each(browser, show, record, tmp_path):
    def troubled(script, recorder):
        for step in range(600):
            bad = step in (200, 400)
            loss = float("nan") if bad else 1.0 + 0.1 * np.sin(step) + 2.0 * (step >= 300)
            script.step(loss, Action.NON_FINITE if bad else Action.GATHERING, 0.5 if bad else 1.0)
            recorder.log(val_loss=1.0)

    record(troubled)
    show(pages(tmp_path, "run"))
    highest = browser.execute_script("return chart._fullLayout.yaxis.domain[1]")
    read = "return chart.layout.shapes.filter((one) => one.y0 >= arguments[0]).map((one) => [one.y0, one.y1])"
    rows = sorted(browser.execute_script(read, highest))
    assert len(rows) == len(browser.find_elements(By.CSS_SELECTOR, ".findings tbody tr")) >= 2
    assert all(below[1] <= above[0] for below, above in itertools.pairwise(rows))
    names = "[...document.querySelectorAll('#chart .annotation-text')]"
    boxes = browser.execute_script(f"return {names}.map((one) => one.getBoundingClientRect().toJSON())")
    assert len(boxes) == len(rows)
    boxes.sort(key=lambda box: box["top"])
    assert all(above["bottom"] <= below["top"] + 1 for above, below in itertools.pairwise(boxes))


def test_the_course_is_on_the_first_screen_and_the_end_of_the_annealing_leaves_the_panel(
    browser, show, record, tmp_path
):
    def annealed(script, recorder):
        for step in range(1, 401):
            script.step(3 - step / 200, Action.ANNEALING, (400.5 - step) / (401.5 - step))
            recorder.log(val_accuracy=step / 400, val_loss=3 - step / 300)

    record(annealed)
    browser.set_window_size(1280, 800)
    show(pages(tmp_path, "run"))
    box = browser.execute_script("return chart.getBoundingClientRect().toJSON()")
    assert box["top"] >= 0
    assert box["bottom"] <= 800
    loss, lr = browser.execute_script("return [chart._fullLayout.yaxis.domain, chart._fullLayout.yaxis2.domain]")
    assert loss[1] - loss[0] == pytest.approx(lr[1] - lr[0])
    # From a twentieth of the run before its end on: not four decades for a straight line.
    low, high = browser.execute_script("return chart._fullLayout.yaxis2.range")
    assert high - low < 1.5
    assert browser.execute_script("return Math.log10(Math.min(...runs[0].lr))") < low
    # Of what was logged the loss comes first.
    assert browser.execute_script("return chart.layout.yaxis3.title.text") == "val_loss"


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        ({"sharpness": [4.0, -1.0, 0.0, 10.0]}, [0.5, 0.2]),
        ({"stability_limit": [0.3, float("inf"), 0.4, 0.5], "sharpness": [1.0] * 4}, [0.3, 0.4, 0.5]),
        ({"other": [1.0] * 4}, []),
        ({"sharpness": [-1.0] * 4}, []),
    ],
)
def test_the_stability_limit_stands_beside_the_learning_rate(browser, show, record, tmp_path, logged, expected):
    def measured(script, recorder):
        for step in range(40):
            script.step(1.0 + 0.1 * np.sin(step))
            if step % 10 == 9:
                recorder.log(**{name: values[step // 10] for name, values in logged.items()})

    record(measured)
    show(pages(tmp_path, "run"))
    drawn = browser.execute_script(
        "return chart.data.filter((one) => one.name === 'stability limit')"
        ".map((one) => [one.yaxis, [...one.y], [...one.x]])"
    )
    assert [limits for _, limits, _ in drawn] == ([expected] if expected else [])
    assert all(axis == "y2" and set(steps) <= {10, 20, 30, 40} for axis, _, steps in drawn)


def test_loss_rate_and_validation_share_one_axis(browser, show, reading, tmp_path):
    reading(marks=(100,))
    show(pages(tmp_path, "run"))
    axes = browser.execute_script("return chart.data.map((one) => [one.xaxis ?? 'x', one.yaxis ?? 'y'])")
    assert {x for x, _ in axes} == {"x"}
    assert {y for _, y in axes} == {"y", "y2", "y3"}
    assert browser.execute_script("return chart.layout.yaxis3.title.text") == "val_loss"


@pytest.mark.parametrize("logged", [True, False])
def test_the_charts_of_one_axis_do_not_overlap(browser, show, record, tmp_path, logged):
    def run(script, recorder):
        for step in range(100):
            script.step(1.0 + 0.1 * np.sin(step))
            if logged:
                recorder.log(val_loss=1.0)

    record(run)
    show(pages(tmp_path, "run"))
    read = "return ['yaxis', 'yaxis2', 'yaxis3'].flatMap((one) => chart._fullLayout[one]?.domain ?? [])"
    ends = browser.execute_script(read)
    assert len(ends) == (6 if logged else 4)
    pairs = sorted(zip(ends[::2], ends[1::2], strict=True))
    assert all(below[1] < above[0] for below, above in itertools.pairwise(pairs))


def test_several_runs_are_compared(browser, show, wait, reading, tmp_path):
    reading("a", moves=4)
    reading("b", moves=2)
    show(pages(tmp_path, "a", "b"))
    legend = browser.find_elements(By.CSS_SELECTOR, "#runs-shown button")
    assert [entry.text for entry in legend] == ["a", "b"]
    assert markers(browser)[0][0] == 4
    visible = "return chart.data.filter((one) => one.mode === 'lines' && one.name === 'b').map((one) => one.visible)"
    assert set(browser.execute_script(visible)) == {True}
    legend[1].click()
    wait(lambda driver: set(driver.execute_script(visible)) == {False})
    assert legend[1].get_attribute("aria-pressed") == "false"
    legend[1].click()
    wait(lambda driver: set(driver.execute_script(visible)) == {True})
    browser.find_element(By.CSS_SELECTOR, "#front option[value='1']").click()
    wait(lambda _: markers(browser)[0][0] == 2)


def test_a_metric_may_have_any_name(browser, show, wait, record, tmp_path):
    odd = "constructor", "toString", "__proto__"

    def logs(*metrics):
        def run(script, recorder):
            for step in range(100):
                script.step(1.0 + 0.1 * np.sin(step))
                recorder.log(**dict.fromkeys(metrics, step))

        return run

    record(logs("val_loss"), name="a")
    record(logs(*odd), name="b")
    show(pages(tmp_path, "a", "b"))
    shown = (
        "return [chart.layout.yaxis3.title.text,"
        "...chart.data.filter((one) => one.yaxis === 'y3').map((one) => one.name)]"
    )
    assert browser.execute_script(shown) == ["val_loss", "a"]
    for option in browser.find_elements(By.CSS_SELECTOR, "#metric option")[1:]:
        option.click()
        wait(lambda driver, name=option.text: driver.execute_script(shown) == [name, "b"])


def test_ten_runs_leave_room_for_the_chart(browser, show, resize, reading, tmp_path):
    names = [f"run-with-a-long-descriptive-name-{number}" for number in range(10)]
    for name in names:
        reading(name, moves=1)
    show(pages(tmp_path, *names))
    for width in (400, 1200):
        resize(width)
        overlap = (
            "const box = (one) => document.querySelector(one).getBoundingClientRect();"
            "return [box('#runs-shown').bottom <= box('#chart').top, box('#runs-shown').height,"
            "document.querySelectorAll('#chart .legend').length, chart._fullLayout._size.h]"
        )
        apart, height, legends, plot = browser.execute_script(overlap)
        assert apart
        assert legends == 0
        assert height < 200 < 400 < plot


def test_long_names_of_others_wrap(show, resize, record, tmp_path):
    def run(script, recorder):
        for step in range(400):
            script.step(1.0 + 0.1 * np.sin(step), composition={"c" * 300: float(step % 7), "d": "ab"[step % 2]})
        recorder.mark("m" * 2000)
        recorder.log(**{"v" * 300: 1.0})
        recorder.fail(RuntimeError("e" * 900))

    names = ["r" * 200, "s" * 200]
    for name in names:
        record(run, name=name, meta={"n" * 300: "w" * 900, name: 1})
    html = pages(tmp_path, *names)
    assert "m" * 60 not in html
    show(html)
    resize(400)  # which waits until it fits


def test_of_many_marks_some_are_shown(browser, show, reading, tmp_path):
    reading(moves=30, marks=range(1, 1000))
    show(pages(tmp_path, "run"))
    read = "return chart.layout.shapes.filter((one) => one.type === 'line').map((one) => one.x0)"
    lines = browser.execute_script(read)
    assert len(lines) == 200
    assert (lines[0], lines[-1]) == (1, 999)
    assert browser.find_element(By.ID, "some").text == "200 of 999 marks are shown."


def test_the_settings_are_folded_and_the_chart_says_that_it_takes_keys(browser, show, reading, tmp_path):
    reading()
    show(pages(tmp_path, "run"))
    settings = browser.find_element(By.CSS_SELECTOR, "details dl")
    assert not settings.is_displayed()
    browser.find_element(By.CSS_SELECTOR, "details summary").click()
    lines = [one.text.split("\n") for one in settings.find_elements(By.TAG_NAME, "div")]
    assert [" ".join(line) for line in lines if line[0].startswith(("family", "window"))] == [
        "family DefaultConfig",
        "window 20",
    ]
    chart = browser.find_element(By.ID, "chart")
    assert (chart.aria_role, chart.get_attribute("tabindex")) == ("application", "0")
    assert "arrow keys" in chart.accessible_name


def test_it_follows_the_colour_scheme_and_fits_the_screen(show, adapts, reading, tmp_path):
    reading("a-run-with-a-rather-long-name-that-has-to-break-somewhere-or-else")
    reading("b")
    show(pages(tmp_path, "a-run-with-a-rather-long-name-that-has-to-break-somewhere-or-else", "b"))
    adapts(".xtick text")


def test_no_text_becomes_code(browser, show, wait, tmp_path, script):
    rule = script()
    name = ATTACK.replace("/", "∕")
    with Recorder(tmp_path / name, rule, meta={"task": ATTACK, ATTACK: 1}) as recorder:
        play(domain=ATTACK)(rule, recorder)
        recorder.log(**{f"val_{ATTACK}": 1.0})
        recorder.mark(ATTACK)
        recorder.fail(RuntimeError(ATTACK))
    html = pages(tmp_path, name)
    assert "<script>window.hacked" not in html
    assert "<img src=x" not in html
    show(html)
    browser.find_element(By.ID, "next").click()
    for option in browser.find_elements(By.CSS_SELECTOR, "#metric option"):
        option.click()
    time.sleep(0.3)
    assert browser.execute_script("return window.hacked") is None
    assert "window.hacked = 1" in browser.find_element(By.CSS_SELECTOR, ".findings").text


@pytest.mark.parametrize("losses", [[], [1.0], [float("nan")] * 30, [1e300, -1e300] * 30])
def test_odd_runs_have_a_page(browser, show, losses, record, tmp_path):
    def run(script, recorder):
        for loss in losses:
            script.step(loss, Action.GATHERING if np.isfinite(loss) else Action.NON_FINITE)

    record(run)
    show(pages(tmp_path, "run"))


def test_it_loads_nothing_and_a_long_run_stays_light(record, tmp_path):
    def long(script, recorder):
        r = np.random.default_rng(0)
        for step, loss in enumerate(r.standard_normal(100_000).tolist()):
            moves = step % 10 == 0
            script.step(loss, Action.CUT if moves else Action.GATHERING, 0.9999 if moves else 1.0, mean=loss)

    record(long)
    html = pages(tmp_path, "run")
    assert len(html) < 2.2e6  # The library alone takes 1.8.
    (data,) = re.findall(r'<script type="application/json" class="run" data-squeezed>(.*?)</script>', html, re.DOTALL)
    data = json.loads(zlib.decompress(base64.b85decode(data.replace(",", "<"))))
    assert data["decisions_in_all"] == 10_000
    assert len(data["decisions"]["step"]) == 3000
    ours = re.sub(r"data-squeezed>.*?</script>", "", html, flags=re.DOTALL)
    assert len(ours) < len(html) / 10
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", ours)
    assert "url(" not in ours
    assert "@import" not in ours


def test_a_page_of_others_is_not_overwritten(record, tmp_path):
    record(play())
    readings = read([tmp_path / "run"])
    write(tmp_path / "out" / "page.html", readings)
    write(tmp_path / "out" / "page.html", readings)
    (tmp_path / "mine.html").write_text("my own")
    with pytest.raises(FileExistsError, match=r"it has a mine\.html that greedylr did not write"):
        write(tmp_path / "mine.html", readings)
    assert (tmp_path / "mine.html").read_text() == "my own"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["page.html"]


def test_it_says_when_and_how_it_was_made_and_its_charts_can_be_saved(browser, show, reading, tmp_path):
    show(pages(tmp_path, reading()))
    footer = browser.find_element(By.TAG_NAME, "footer").text
    assert date.today().isoformat() in footer
    assert f"greedylr {greedylr.__version__}: greedylr report" in footer
    assert str(tmp_path / "run") in footer
    browser.execute_script("Plotly.downloadImage = (chart, how) => { window.saved = [chart.data.length, how]; }")
    button = browser.find_element(By.CSS_SELECTOR, ".chart + .save")
    button.send_keys(Keys.ENTER)
    traces, how = browser.execute_script("return window.saved")
    assert traces > 0
    assert how["format"] == "svg"
    assert how["filename"].startswith("pulse-of")
    assert min(how["width"], how["height"]) > 200


def test_the_question_at_the_top_is_answered_there(browser, show, reading, record, tmp_path):
    reading(moves=6)
    (one,) = read([tmp_path / "run"])
    shares = one.audit.shares
    show(render([one]))
    answer = (
        f"Of 6 moves the losses that followed confirm {shares.confirmed}, refute {shares.refuted}, and leave "
        f"{shares.undecidable} undecided."
    )
    assert answer in browser.find_element(By.TAG_NAME, "body").text
    record(lambda script, recorder: script.step(1.0), name="still")
    show(pages(tmp_path, "still"))
    assert "It was not changed for the loss." in browser.find_element(By.TAG_NAME, "body").text
