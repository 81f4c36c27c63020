"""Starts the measuring process for one job and brings back its result, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from structopt_onnx.errors import ModelError, UsageError

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_MODULE = "structopt_onnx.runtime.worker"


def run_job(
    job: dict[str, Any], timeout: float, what: str, packages: str = ""
) -> dict[str, Any] | None:
    """Run a job in a process of its own.

    Parameters
    ----------
    job
        JSON for the measuring process.
    timeout
        Seconds after which it is killed.
    what
        The model or models, for the message when it dies.
    packages
        A folder whose packages it imports before all others; empty for none.

    Returns
    -------
    dict or None
        Its result; `None` if it was killed because the time was up.

    Raises
    ------
    ModelError
        If the process died (a crash in onnxruntime, or killed for its memory), or reports that
        the model can't be loaded or run.
    UsageError
        If it reports a wrong option.
    """
    with TemporaryDirectory(prefix="structopt-onnx-", ignore_cleanup_errors=True) as folder:
        job_path = Path(folder) / "job.json"
        result_path = Path(folder) / "result.json"
        job_path.write_text(json.dumps(job), encoding="utf-8")
        # -P: no module of the user's folder may stand in for one of the library's.
        command = [sys.executable, "-P", "-m", _MODULE, str(job_path), str(result_path)]
        # The process ends when this pipe is closed, even if this one here is killed.
        lifeline, held = os.pipe()
        try:
            done = subprocess.run(  # noqa: S603 - our own module, no shell
                command,
                env=_environment(packages),
                stdin=lifeline,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        finally:
            os.close(lifeline)
            os.close(held)
        if done.returncode != 0 or not result_path.exists():
            why = _cause_of_death(done.returncode, done.stderr)
            raise ModelError(f"{what}: the measuring process died: {why}")
        result: dict[str, Any] = json.loads(result_path.read_text(encoding="utf-8"))
    if "error" in result:
        kind = UsageError if result["error"] == UsageError.__name__ else ModelError
        raise kind(result["message"])
    return result


def _environment(packages: str) -> dict[str, str]:
    """Let the process import this very package, from wherever it was imported here."""
    paths = [packages, str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _cause_of_death(code: int, stderr: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"{name} (out of memory?)" if name == "SIGKILL" else name
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"
