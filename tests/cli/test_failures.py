from __future__ import annotations

import re
from pathlib import Path

import pytest

from structopt_onnx.errors import (
    DataError,
    InternalError,
    ModelError,
    UsageError,
    ValidationFailed,
)


@pytest.fixture(autouse=True)
def _temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValidationFailed("nothing can be saved"), 1),
        (UsageError("no pass 'frob'"), 2),
        (ModelError("a.onnx: truncated"), 3),
        (DataError("a.npz: no array for input 'x'"), 3),
    ],
)
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_each_error_is_one_line_with_its_exit_code(run, calls, error, code, json):
    calls.answer("optimize", error)
    done = run("optimize", "a.onnx", "b.onnx", *json)
    assert (done.code, done.out, done.err) == (code, "", f"error: {error}\n")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("max_error is a number from 0 up, not -1", "--max-error is a number from 0 up, not -1"),
        ("a lossy rewrite needs a max_error", "a lossy rewrite needs a --max-error"),
        ("benchmark_seconds is at least 0", "--benchmark-seconds is at least 0"),
        ("replicates must be at least 8, not 3", "--replicates must be at least 8, not 3"),
        ("target is one of cpu, not 'moon'", "--target is one of cpu, not 'moon'"),
        ("seconds.onnx: no threads must be", "seconds.onnx: no threads must be"),
        ("/data/max_error: is a folder", "/data/max_error: is a folder"),
        ("'max_error' is no input", "'max_error' is no input"),
    ],
)
def test_options_are_named_as_they_are_typed(run, calls, message, said):
    calls.answer("optimize", UsageError(message))
    assert run("optimize", "a.onnx", "b.onnx").err == f"error: {said}\n"


def test_an_error_that_points_at_a_character_keeps_its_lines(run, calls):
    calls.answer("optimize", UsageError("pipeline, character 3: no\n  a{b\n    ^"))
    assert run("optimize", "a", "b").err == "error: pipeline, character 3: no\n  a{b\n    ^\n"


@pytest.mark.parametrize(
    ("bug", "said"),
    [
        (ZeroDivisionError("division\nby zero"), "ZeroDivisionError: division"),
        (InternalError("factor-matmul: KeyError: 'w'"), "factor-matmul: KeyError: 'w'"),
        (RecursionError(), "RecursionError"),
        (OSError(22, "Invalid argument"), "OSError: [Errno 22] Invalid argument"),
    ],
)
def test_a_bug_leaves_a_file_to_report_and_no_traceback_on_the_screen(run, calls, bug, said):
    calls.answer("validate", bug)
    done = run("validate", "a b.onnx", "c.onnx", "--json")
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith(f"error: internal error: {said}")
    assert done.err.count("\n") == 1
    path = Path(re.search(r"are in (\S+)$", done.err)[1])
    text = path.read_text(encoding="utf-8")
    assert "structopt-onnx validate 'a b.onnx' c.onnx --json" in text
    assert "Traceback (most recent call last)" in text
    assert type(bug).__name__ in text


def test_a_bug_is_told_even_where_no_file_can_be_written(run, calls, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    calls.answer("explain", ZeroDivisionError("x"))
    done = run("explain", "a.onnx")
    assert done.code == 4
    assert "ZeroDivisionError: x; the traceback could not be saved" in done.err


def test_interrupting_ends_with_130(run, calls, tmp_path):
    calls.answer("optimize", KeyboardInterrupt())
    done = run("optimize", "a", "b")
    assert (done.code, done.out, done.err) == (130, "", "interrupted\n")
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_no_bug(run, calls):
    calls.answer("optimize", MemoryError())
    done = run("optimize", "a", "b")
    assert done.code == 3
    assert done.err.startswith("error: out of memory")


def test_names_in_an_error_can_not_steer_the_terminal(run, calls):
    calls.answer("optimize", ModelError("node '\x1b[2J\u202e': wrong"))
    assert run("optimize", "a", "b").err == "error: node '\\x1b[2J\\u202e': wrong\n"


def test_a_failed_validation_is_shown_and_ends_with_1(run, calls, failing):
    calls.answer("validate", failing)
    done = run("validate", "a.onnx", "b.onnx")
    assert done.code == 1
    assert done.out.startswith("b against a: FAILED on 4 synthetic inputs: 1 failure\n")
    assert "- output 'y': relative L2 error 0.2 is over the limit 1e-05" in done.out
    assert done.err == ""
    quiet = run("validate", "a.onnx", "b.onnx", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (1, "", "")
