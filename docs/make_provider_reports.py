"""Make reports of models on every execution provider that is asked for, and pictures of them.

    python docs/make_provider_reports.py crepe_tiny.onnx crepe_calibration.npz
    python docs/make_provider_reports.py MODEL CALIBRATION --provider cpu --provider xnnpack=DIR

Exact passes alone. Run from the repository's root; the pictures need playwright and a Chromium on
PATH, the providers what `structopt-onnx providers` says.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import structopt_onnx as so

_DOCS = Path("docs")
_PROVIDERS = ("cpu", "qnn", "xnnpack", "nnapi", "coreml", "cuda")


def main() -> None:
    """Optimize, compare on the providers, write the page, look at it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--provider", action="append", metavar="NAME[=DIR]")
    given = parser.parse_args()
    # Names without folders are what a page should show.
    model, made = given.model.name, f"{given.model.stem}_optimized.onnx"
    data = shutil.copy(given.calibration, folder := tempfile.mkdtemp())
    shutil.copy(given.model, folder)
    with contextlib.chdir(folder):
        report = so.optimize(model, made, calibration=Path(data).name).report
        table = so.compare_providers(
            model, made, providers=given.provider or _PROVIDERS, data=Path(data).name
        )
    shutil.rmtree(folder)
    page = report.to_html(_DOCS / f"providers_{given.model.stem}.html", providers=table.rows)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        view = browser.new_page(viewport={"width": 1120, "height": 1500})
        view.goto(page.resolve().as_uri())
        view.screenshot(path=page.with_suffix(".png"))
        browser.close()
    print(report)


if __name__ == "__main__":
    main()
