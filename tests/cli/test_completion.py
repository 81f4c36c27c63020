"""Shell completion: it completes, ends well, and loads nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from structopt_onnx.cli import export

_HEAVY = """
import sys
from structopt_onnx.cli import main
code = main(sys.argv[1:])
assert not {"onnx", "onnxruntime", "numpy", "scipy", "onnx_ir"} & set(sys.modules)
sys.exit(code)
"""


def program(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", _HEAVY, *words],
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "completed"),
    [("structopt-onnx opt", "optimize"), ("structopt-onnx optimize --write", "--write-recipe")],
)
def test_commands_and_options_are_completed(line, completed):
    done = program(
        _STRUCTOPT_ONNX_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split()) - 1),
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [completed], "")


def test_completion_is_installed_where_the_shell_looks(tmp_path):
    shown = program("--show-completion", "bash")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "complete -o default -F _structopt_onnx_completion structopt-onnx" in shown.stdout
    done = program("--install-completion", "bash", HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "structopt-onnx" in (tmp_path / ".bashrc").read_text()


def test_a_user_s_function_that_exits_is_no_success(run, calls, monkeypatch):
    monkeypatch.setattr(export, "load_function", lambda *_: sys.exit)
    done = run("export", "a:b", "out.onnx")
    assert done.code == 4
    assert "SystemExit" in done.err
    assert calls == {}
