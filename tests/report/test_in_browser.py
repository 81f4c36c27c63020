"""The page in a real browser: nothing is complained about, nothing is loaded, nothing overflows.

Needs playwright and a Chromium, of playwright's own or on PATH; skipped without.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from structopt_onnx.report.html.page import render_html

playwright = pytest.importorskip("playwright.sync_api")

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A browser in a container has no sandbox of its own.
_ARGUMENTS = ["--no-sandbox"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        path = own if Path(own).exists() else next(filter(None, map(shutil.which, _NAMES)), None)
        if path is None:
            pytest.skip("no Chromium on PATH")
        opened = driver.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def page_of(make, tmp_path):
    """Write a page with names as long and as odd as models have them."""
    long = "/encoder/layer.0/attention/self/query/MatMul_with_a_very_long_name_and_no_spaces" * 2
    evil = "<script>window.evil = true</script>"
    sites = (make.site(long, "rank 8", "chosen"), make.site(evil, None, "over the budget"))
    report = replace(
        make.lossy(),
        source=f"models/{long}.onnx",
        plan=make.plan(*sites, undone=(long,)),
        before=replace(make.lossy().before, operators={evil: 3, "Relu": 2}),
        notes=(evil,),
    )
    path = tmp_path / "report.html"
    path.write_text(render_html(report), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_is_readable_and_silent(browser, page_of, scheme, width):
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_of.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_of.as_uri()]
    assert page.evaluate("window.evil") is None
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("svg").count() == 7
    for drawing in page.locator("svg").all():
        box = drawing.bounding_box()
        assert box["width"] > 150
        assert box["height"] > 80
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = max(map(int, background[4:-1].split(","))) < 128
    assert dark == (scheme == "dark")
    text = page.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)")
    assert text >= 12
    if folder := os.environ.get("STRUCTOPT_SCREENSHOTS"):  # for eyes
        page.screenshot(path=Path(folder) / f"report-{scheme}-{width}.png", full_page=True)
    page.close()


def test_a_notebook_s_frame_shows_the_page(browser, make, tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><body>{make.lossy()._repr_html_()}</body>", encoding="utf-8")
    page = browser.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    frame = page.frame_locator("iframe")
    assert frame.locator("h1").inner_text().startswith("digits.onnx")
    assert frame.locator("svg").count() == 7
    assert said == []
    page.close()
