from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = str(Path(__file__).parents[2] / "models" / "digits_cnn.onnx")
FULL = Path("/dev/full")


def _run(words: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    """Run a command line with its streams redirected by a shell."""
    script = f'exec "$@" {redirection}'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "structopt_onnx", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
@pytest.mark.parametrize(
    "words", [["passes"], ["passes", "--json"], ["inspect", MODEL], ["--help"], ["--version"]]
)
def test_standard_output_that_is_full_is_one_line(words):
    done = _run(words, "> /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output ")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")
def test_an_error_that_nobody_can_be_told_keeps_its_exit_code():
    assert _run(["inspect", "missing.onnx"], "2> /dev/full").returncode == 3
    assert _run(["passes"], "> /dev/full 2> /dev/full").returncode == 2


@pytest.mark.skipif(os.name == "nt", reason="the shell is that of POSIX")
def test_standard_output_that_is_closed_is_told_before_the_work(tmp_path):
    done = _run(["optimize", MODEL, str(tmp_path / "o.onnx"), "--no-benchmark"], ">&-")
    assert done.returncode == 2
    assert done.stderr == "error: standard output is closed; redirect it, or give --quiet\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="the shell is that of POSIX")
def test_closed_streams_do_not_matter_where_nothing_is_said(tmp_path):
    words = ["optimize", MODEL, str(tmp_path / "o.onnx"), "--no-benchmark", "--quiet"]
    assert _run(words, "<&- >&- 2>&-").returncode == 0
    assert (tmp_path / "o.onnx").stat().st_size > 0


@pytest.mark.skipif(os.name == "nt", reason="the shell is that of POSIX")
def test_no_file_takes_the_place_of_a_closed_stream():
    script = """
import os
from structopt_onnx.cli import main
main(["--version"])
file = os.open(os.devnull, os.O_RDONLY)
raise SystemExit(0 if file > 2 else 9)
"""
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script]
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_the_report_is_written_though_standard_output_is_full(
    run, calls, tmp_path, json, monkeypatch
):
    class Full:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return False

        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None:
            return None

        def fileno(self) -> int:
            raise OSError

    monkeypatch.setattr(sys, "stdout", Full())
    target = tmp_path / "report.json"
    done = run("optimize", "a.onnx", "b.onnx", "--report", target, *json)
    assert "optimize" in calls
    assert done.code == 2
    assert done.err.startswith("error: standard output can't be written (No space left on device)")
    assert target.stat().st_size > 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "standard output or the folder of "),
        (OSError(errno.EROFS, "Read-only file system", "/x/y.npz"), "/x/y.npz: Read-only file "),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "s"),
    ],
)
def test_a_full_disk_is_no_bug(run, calls, error, said):
    calls.answer("benchmark", error)
    done = run("benchmark", "a.onnx")
    assert done.code == 2
    assert done.err.startswith(f"error: {said}")
    assert done.err.endswith("; make room there\n")
    assert done.err.count("\n") == 1
