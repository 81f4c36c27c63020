"""`--report` and `--plots`: what is written, and what is refused before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "models" / "sparse_linear_regression.onnx"


def test_the_suffix_says_the_form(run, calls, tmp_path):
    files = [tmp_path / f"r{suffix}" for suffix in (".html", ".md", ".json", "", ".HTML")]
    words = [word for path in files for word in ("--report", path)]
    done = run("optimize", "a.onnx", "b.onnx", *words)
    assert (done.code, done.err) == (0, "")
    html, markdown, as_json, bare, upper = (path.read_text(encoding="utf-8") for path in files)
    assert html.startswith("<!doctype html>")
    assert upper == html
    assert markdown.startswith("**in.onnx")
    assert json.loads(as_json)["source"] == "in.onnx"
    assert bare == as_json


def test_explain_writes_one_too(run, calls, tmp_path):
    done = run("explain", "a.onnx", "--report", tmp_path / "r.html")
    assert (done.code, done.err) == (0, "")
    assert "<!doctype html>" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert run("explain", "a.onnx", "--report", "a.onnx").code == 2


def test_plots_go_to_a_folder_that_is_made(run, calls, tmp_path):
    folder = tmp_path / "plots"
    assert run("optimize", "a.onnx", "b.onnx", "--plots", folder).code == 0
    assert folder.is_dir()


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--report", "r.pdf"), "r.pdf: reports are .html, .md or .json, not .pdf"),
        (("--plots", "file"), "file: --plots needs a folder, and this is a file"),
        (("--plots", "missing/plots"), "missing/plots: no such folder for --plots"),
    ],
)
def test_what_can_not_be_written_stops_the_run_at_once(run, calls, words, said):
    Path("file").touch()
    done = run("optimize", "a.onnx", "b.onnx", *words)
    assert (done.code, done.err) == (2, f"error: {said}\n")
    assert calls == {}


@pytest.mark.usefixtures("in_tmp_path")
@pytest.mark.parametrize(
    "missing",
    [
        ("jinja2", ("--report", "r.html"), "HTML reports"),
        ("matplotlib", ("--plots", "p"), "plots"),
    ],
    ids=lambda missing: missing[0],
)
def test_a_missing_extra_is_told_before_any_work(run, calls, monkeypatch, missing):
    module, words, what = missing
    monkeypatch.setitem(sys.modules, module, None)
    done = run("optimize", "a.onnx", "b.onnx", *words)
    told = f"error: {what} need {module}: pip install 'structopt-onnx[report]'\n"
    assert (done.code, done.err) == (2, told)
    assert calls == {}
    assert run("optimize", "a.onnx", "b.onnx", "--report", "r.md", "--report", "r.json").code == 0


@pytest.mark.parametrize(("words", "wanted"), [((), set()), (("--report", "r.html"), {"jinja2"})])
def test_what_draws_is_loaded_only_when_it_is_asked_for(tmp_path, words, wanted):
    code = (
        "import sys; from structopt_onnx.cli import main; code = main(sys.argv[1:]); "
        "print(*{m.partition('.')[0] for m in sys.modules}); sys.exit(code)"
    )
    command = ["optimize", str(TINY), "out.onnx", "--no-benchmark", "--quiet", *words]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "onnxruntime" in loaded
    assert loaded & {"jinja2", "matplotlib"} == wanted
