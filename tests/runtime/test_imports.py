"""Telemetry is off before onnxruntime is imported, and the measuring process stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "ORT_DISABLE_TELEMETRY"


def python(code, **variables):
    environment = {name: text for name, text in os.environ.items() if name != VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


WATCH = f"""
import builtins, json, os, sys
seen = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            seen.append(os.environ.get("{VARIABLE}"))
sys.meta_path.insert(0, Watch())
import structopt_onnx.runtime.session
print(json.dumps(seen))
"""


@pytest.mark.parametrize(("variables", "expected"), [({}, "1"), ({VARIABLE: "0"}, "0")])
def test_telemetry_is_off_before_onnxruntime_unless_the_user_set_it(variables, expected):
    assert python(WATCH, **variables) == [expected]


def test_the_room_itself_imports_nothing_heavy():
    code = "import json, sys, structopt_onnx.runtime; print(json.dumps(list(sys.modules)))"
    assert {"onnxruntime", "onnx", "onnx_ir", "numpy"}.isdisjoint(python(code))


def test_the_measuring_process_imports_onnxruntime_and_numpy_alone():
    code = "import json, sys, structopt_onnx.runtime.worker; print(json.dumps(list(sys.modules)))"
    modules = set(python(code))
    assert {"onnxruntime", "numpy"} <= modules
    assert {"onnx", "onnx_ir", "onnxscript", "scipy"}.isdisjoint(modules)
