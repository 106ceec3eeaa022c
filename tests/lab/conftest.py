"""One thread, as in the pool's workers; results to compare and draw without training; a browser to show pages in."""

import os
import shutil

import pytest
import torch
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from greedylr.lab.runs import Event, Result, Run


@pytest.fixture(autouse=True, scope="module")  # before what a module trains once for all its tests
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_up(run, final_loss=0.5, events=()):
    """A result of a run that was never trained."""
    steps = [0, run.steps]
    return Result(run, [1.0] * run.steps, [0.1] * run.steps, steps, [2.0, final_loss], list(events))


def event(step=2, kind="raise", sentence="raised: the loss improved", **evidence):
    return Event(step, kind, sentence, 0.7, 0.1, 0.2, evidence or {"mean": 0.5})


@pytest.fixture(name="made_up")
def _made_up():
    return made_up


@pytest.fixture(name="event")
def _event():
    return event


@pytest.fixture
def runs():
    """A row: one problem at one learning rate, four schedulers, two seeds."""
    names = ("greedylr", "paper", "cosine", "constant")
    return [Run("digits", 1.0, name, seed, 5) for seed in range(2) for name in names]


@pytest.fixture(scope="session")
def browser():
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if chromium is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium to show the page in")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def wait(browser):
    """Waits until a function of the browser gives something, and returns that."""
    return WebDriverWait(browser, 20, poll_frequency=0.05).until


@pytest.fixture
def show(browser, tmp_path):
    """Opens a page from disk, and fails if the browser had anything to complain about."""

    def open_page(html):
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        # From here on, any request that is not for the file itself fails, and is a complaint.
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
        browser.get(file.as_uri())

    yield open_page
    assert browser.get_log("browser") == []
