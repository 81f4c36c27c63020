"""The package's logger: progress as INFO, and silence where nobody listens."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import structopt_onnx as so

MODEL = Path(__file__).resolve().parents[2] / "models" / "sparse_linear_regression.onnx"


def test_progress_goes_to_the_logger_too(caplog):
    said = []
    with caplog.at_level(logging.INFO, logger="structopt_onnx"):
        so.optimize(MODEL, benchmark=False, progress=said.append)
    assert said[:2] == ["load", "samples"]
    records = [(r.name, r.levelno, r.getMessage()) for r in caplog.records]
    assert records == [("structopt_onnx", logging.INFO, text) for text in said]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="structopt_onnx"):
        so.explain(MODEL)
    assert caplog.messages[:2] == ["load", "samples"]


def test_nothing_is_written_where_nobody_listens():
    code = """
import logging, sys, structopt_onnx as so
assert any(type(h) is logging.NullHandler for h in logging.getLogger("structopt_onnx").handlers)
so.optimize(sys.argv[1], benchmark=False)
logging.getLogger("structopt_onnx").error("not shown")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(MODEL)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
