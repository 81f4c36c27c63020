"""Make example_report.html from a model of this repository, and pictures of it.

Run from the repository's root; the pictures need playwright and a Chromium on PATH.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

import structopt_onnx as so

_DOCS = Path("docs")
# Width, height, colour scheme.
_PICTURES = {
    "example_report.png": (1120, 1500, "light"),
    "example_report_phone.png": (390, 844, "dark"),
}


def main() -> None:
    """Optimize, write the page, look at it."""
    report = so.optimize(
        "models/digits_cnn.onnx",
        calibration="models/digits_cnn_calibration.npz",
        max_error=0.05,
    ).report
    page = report.to_html(_DOCS / "example_report.html")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (width, height, scheme) in _PICTURES.items():
            view = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
            )
            view.goto(page.resolve().as_uri())
            view.screenshot(path=_DOCS / name)
        browser.close()
    print(report)


if __name__ == "__main__":
    main()
