"""What holds for every test: Hypothesis is deterministic, slow tests wait to be asked for, CUDA tests need CUDA.

And what several parts need: one thread, a browser to show pages in, processes to interrupt and kill.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("greedylr", derandomize=True, deadline=None)
settings.load_profile("greedylr")


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        slow = [item for item in items if "slow" in item.keywords]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]
    on_cuda = [item for item in items if "cuda" in item.keywords]
    if on_cuda and not _has_cuda():
        for item in on_cuda:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_cuda():
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="module")  # before what a module trains once for all its tests
def one_thread():
    """As in the pool's workers."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the command line in this process and in an empty folder; ``words`` is what it said, one blank apart."""
    from typer.testing import CliRunner

    from greedylr.cli.app import app

    monkeypatch.chdir(tmp_path)

    def invoke(*arguments, width=160):
        result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": str(width)})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        result.words = " ".join(result.output.split())
        return result

    return invoke


@pytest.fixture(scope="session")
def browser():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

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
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 20, poll_frequency=0.05).until


@pytest.fixture
def show(browser, wait, tmp_path):
    """Opens a page from disk, and fails if the browser had anything to complain about."""

    def open_page(html):
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        # From here on, any request that is not for the file itself fails, and is a complaint.
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
        browser.get(file.as_uri())
        if "data-squeezed" in html:
            wait(lambda driver: driver.execute_script("return 'ready' in document.documentElement.dataset"))

    yield open_page
    assert browser.get_log("browser") == []


@pytest.fixture
def resize(browser, wait):
    """Shows the page on a screen of a certain width, until the end of the test, and waits until it fits in there."""

    def to(width):
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        # Charts follow the window a moment later.
        wait(lambda driver: driver.execute_script("return document.documentElement.scrollWidth") <= width)

    yield to
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def adapts(browser, wait, resize):
    """Makes sure that the page fits small and large screens, and has the colours of the scheme that is chosen there.

    It is told what text to look at, of a chart or of the page itself, as a CSS selector.
    """
    brightness = "return Number(getComputedStyle({})[{}].match(/\\d+/)[0])"

    def look(of):
        ground = browser.execute_script(brightness.format("document.body", "'backgroundColor'"))
        element = f"document.querySelector({of!r})"
        paint = f"{element} instanceof SVGElement ? 'fill' : 'color'"
        text = browser.execute_script(brightness.format(element, paint))
        return "light" if ground > 200 > 100 > text else "dark" if ground < 100 < 200 < text else "unreadable"

    def check(of):
        for width in (400, 1200):
            resize(width)
            for scheme in ("dark", "light"):
                feature = {"name": "prefers-color-scheme", "value": scheme}
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
                wait(lambda _, scheme=scheme: look(of) == scheme)
            resize(width)  # The charts were drawn anew.

    yield check
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture
def start(tmp_path):
    """Starts Python in a process group of its own, as a shell starts a command; at the end of the test, none is left.

    The signals of the group are for the workers too.
    """
    import greedylr

    started = []

    def begin(*arguments):
        # The package that is tested is the one that is run, installed or not.
        environment = os.environ | {"PYTHONPATH": str(Path(greedylr.__file__).parents[1])}
        # Where the tests run in the background, interrupts are ignored, and what they start would ignore them as well.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=tmp_path,
                env=environment,
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
            )
        finally:
            signal.signal(signal.SIGINT, before)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def wait_for():
    """Waits until something is so."""

    def until(condition, seconds=120):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    return until
