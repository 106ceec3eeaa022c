"""``greedylr theory``, as a user meets it."""

import re

import numpy as np
import pytest
import torch

from greedylr import GreedyLR
from greedylr.pulse import Recorder, Trace
from greedylr.theory import convergence_bound, growth_rate, mean_growth_rate


@pytest.fixture
def recorded(tmp_path):
    """Learning rates 0.1, 0.1, 0.2, 0.4, …: the core rule while the loss falls."""
    scheduler = GreedyLR.core(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), factor=0.5)
    with Recorder(tmp_path / "run", scheduler):
        for step in range(6):
            scheduler.step(1.0 - step / 10)
    return tmp_path / "run"


def test_the_learning_rates_of_a_trace_are_those_that_were_used(recorded):
    used = [0.1, 0.1, 0.2, 0.4, 0.8, 1.6]
    trace = Trace.load(recorded)
    assert trace.lrs[:, 0].tolist() == pytest.approx([*used[1:], 3.2])
    known = convergence_bound(used, smoothness=0.25, distance=3.0, noise=0.1)
    assert convergence_bound(trace, smoothness=0.25, distance=3.0, noise=0.1).value == pytest.approx(known.value)


def test_the_bound_of_a_run_is_said(call, recorded):
    result = call("theory", "bound", recorded, "--smoothness", 0.25, "--distance", 3)
    assert result.exit_code == 0
    assert "run: 6 steps." in result.words
    assert "below 1 / (2 × smoothness) = 2. It holds." in result.words
    value = convergence_bound([0.1, 0.1, 0.2, 0.4, 0.8, 1.6], smoothness=0.25, distance=3.0).value
    assert f"at most {value:.4g} above its minimum" in result.words


def test_where_the_condition_is_violated_is_said(call, recorded):
    result = call("theory", "bound", recorded, "--smoothness", 2, "--distance", 3)
    assert "violated at 50.0% of the steps, at first at step 4" in result.words
    assert "Up to there: on average" in result.words
    result = call("theory", "bound", recorded, "--smoothness", 20, "--distance", 3)
    assert "at first at step 1" in result.words
    assert "Up to there" not in result.words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing", "--smoothness", 1, "--distance", 1), "holds no trace"),
        (("run", "--smoothness", 0, "--distance", 1), "smoothness must be a number with 0 < smoothness"),
        (("run", "--smoothness", 1, "--distance", -1), "distance must be a number with 0 <= distance"),
    ],
)
def test_what_cannot_be_is_said(call, recorded, arguments, said):
    result = call("theory", "bound", *arguments)
    assert result.exit_code == 1
    assert said in result.words


def test_the_factors_are_compared(call, tmp_path):
    arguments = ("--factor", 0.25, "--factor", 0.5, "--condition", 10, "--dimensions", 3, "--out", "figure.html")
    result = call("theory", "factor", *arguments, width=200)
    assert result.exit_code == 0
    curvatures = np.geomspace(0.1, 1.0, 3).tolist()
    for factor in (0.25, 0.5):
        core, hard = growth_rate(factor, curvatures), growth_rate(factor, curvatures, cut=factor**2)
        cells = [f"{factor:g}", f"{mean_growth_rate(factor):+.4f}", f"{core.mean:+.4f}", f"{core.diverging:.0%}"]
        cells += [f"{hard.mean:+.4f}", f"{hard.diverging:.0%}"]
        assert re.search(r"\s+".join(map(re.escape, cells)), result.output)
    assert "3 dimensions, condition 10" in result.words
    page = (tmp_path / "figure.html").read_text()
    assert "<h1>Growth of the distance to the minimum under the core rule</h1>" in page
    assert len(page) < 2.0e6
    assert call("theory", "factor", *arguments).exit_code == 0  # over its own page
    (tmp_path / "figure.html").write_text("mine")
    refused = call("theory", "factor", *arguments)
    assert refused.exit_code == 1
    assert "did not write" in refused.words


def test_a_factor_outside_its_range_is_said(call):
    result = call("theory", "factor", "--factor", 1.5)
    assert result.exit_code == 1
    assert "factor must be a number with 0 < factor < 1, got 1.5" in result.words


def test_the_figure_is_drawn(call, browser, show, tmp_path):
    call("theory", "factor", "--factor", 0.25, "--factor", 0.5, "--dimensions", 3, "--out", "figure.html")
    show((tmp_path / "figure.html").read_text())
    drawn = browser.execute_script(
        "return document.getElementById('figure').data.map((one) => [one.name, one.y.length])"
    )
    assert drawn == [
        ["one dimension, in closed form", 2],
        ["3 dimensions, condition 100", 2],
        ["cut by F², raise by 1/F", 2],
    ]
    cells = browser.find_elements("css selector", "tbody tr:first-child td")
    assert cells[0].text == "0.25"
    assert cells[1].text == f"{mean_growth_rate(0.25):+.4f}"
