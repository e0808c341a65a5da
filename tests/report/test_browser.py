"""The page in a real browser."""

import base64
import json
import re
import shutil

import numpy as np
import pytest
from pages import HOSTILE


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver on the PATH")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    chrome = webdriver.Chrome(options=options, service=service)
    yield chrome
    chrome.quit()


def show(browser, path, width, colours="light"):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    media = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(path.as_uri())
    assert browser.execute_script("return window.innerWidth") == width


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(browser, run_directory, width):
    show(browser, run_directory / "report.html", width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # Content may be wider than its own scrolling box, and nothing else.
    outside = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll table')"
        " && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_every_figure_is_there(browser, run_directory):
    show(browser, run_directory / "report.html", 1280)
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) > 20
    assert min(widths) > 0


def test_no_error_and_no_request(browser, run_directory):
    browser.get_log("performance")
    browser.get_log("browser")
    show(browser, run_directory / "report.html", 1280)
    assert browser.get_log("browser") == []
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in urls if not url.startswith("data:")} == {
        (run_directory / "report.html").as_uri()
    }


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_contrast(browser, run_directory, colours):
    show(browser, run_directory / "report.html", 1280, colours)
    pairs = browser.execute_script(
        "return ['body', '.note', '.chip', 'figcaption', 'a'].map(s => {"
        " let e = document.querySelector(s), text = getComputedStyle(e).color;"
        " while (getComputedStyle(e).backgroundColor == 'rgba(0, 0, 0, 0)') e = e.parentElement;"
        " return [s, text, getComputedStyle(e).backgroundColor]; })"
    )
    for selector, *colour in pairs:
        dark, light = sorted(map(luminance, colour))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (selector, colour)
    (_, text, background), *_ = pairs
    assert (luminance(text) > luminance(background)) == (colours == "dark")


def luminance(colour):
    """Relative luminance by WCAG 2 of a CSS ``rgb(…)``."""
    rgb = np.array([int(x) for x in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_hostile_names_in_a_browser(browser, hostile):
    browser.get_log("browser")
    show(browser, hostile, 360)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert HOSTILE[0] in browser.find_element("tag name", "body").text


def test_prints(browser, run_directory):
    show(browser, run_directory / "report.html", 1280)
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
