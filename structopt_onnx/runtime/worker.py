"""The measuring process: `python -m structopt_onnx.runtime.worker JOB.json RESULT.json`.

It lives for one job, so that nothing of the caller (its memory, its threads, its garbage
collector) is in the numbers, and so that a crash in onnxruntime costs a message only. It ends
when its standard input does: nobody is there any more to read the result.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from structopt_onnx.errors import StructoptError
from structopt_onnx.runtime.arm import HOST, Arm, TypedFeed
from structopt_onnx.runtime.device_memory import device_memory_used
from structopt_onnx.runtime.exchange import read_feeds
from structopt_onnx.runtime.measuring import Plan, measure
from structopt_onnx.runtime.options import Provider, SessionSettings
from structopt_onnx.runtime.providers.execution import execute
from structopt_onnx.runtime.rounds import micro

_KIB = 1024
_PROBE_RUNS = 5
_PROBE_SECONDS = 1.0


def main(arguments: list[str]) -> int:
    """Do one job and write its result; an expected error is a result too."""
    gc.disable()
    job_path, result_path = map(Path, arguments)
    job = json.loads(job_path.read_text(encoding="utf-8"))
    try:
        result = _KINDS[job["kind"]](job)
    except StructoptError as error:
        result = {"error": type(error).__name__, "message": str(error)}
    result_path.write_text(json.dumps(result), encoding="utf-8")
    return 0


def _probe(job: dict[str, Any]) -> dict[str, Any]:
    """Load one model and run it once: the memory and the time that takes in a fresh process."""
    settings = _settings(job["settings"])
    before = _device_memory(settings)
    arm = Arm(Path(job["models"][0]), _feeds(job), settings)
    peak = _peak_memory_bytes()
    after = _device_memory(settings)
    cpu_ms: list[float] = []
    wall_ms: list[float] = []
    end = time.perf_counter() + _PROBE_SECONDS
    while not cpu_ms or (len(cpu_ms) < _PROBE_RUNS and time.perf_counter() < end):
        cpu, wall = arm.sample(0, 1)
        cpu_ms.append(cpu)
        wall_ms.append(wall)
    return {
        "creation_ms": arm.creation_ms,
        "first_run_ms": arm.first_run_ms,
        "cpu_ms": cpu_ms,
        "wall_ms": wall_ms,
        "peak_rss_bytes": peak,
        "device_bytes": None if before is None or after is None else after - before,
    }


def _compare(job: dict[str, Any]) -> dict[str, Any]:
    """Measure the models for the verdict, then, where asked, as deployed."""
    feeds = _feeds(job)
    paths = [Path(path) for path in job["models"]]
    plan = Plan(**job["plan"])
    samples = measure(paths, feeds, _settings(job["settings"]), plan, job["control"])
    result: dict[str, Any] = {"verdict": asdict(samples)}
    deployed = job["deployed"]
    if deployed is not None and not samples.too_slow:
        # Without a control: nothing is decided by these numbers.
        settings = _settings(deployed["settings"])
        again = measure(paths, feeds, settings, Plan(**deployed["plan"]), "none")
        result["deployed"] = asdict(again)
    return result


_KINDS = {"probe": _probe, "compare": _compare, "micro": micro, "execute": execute}


def _feeds(job: dict[str, Any]) -> list[TypedFeed]:
    return read_feeds(Path(job["feeds"]), job["feed_index"])


def _settings(fields: dict[str, Any]) -> SessionSettings:
    return SessionSettings(
        threads=fields["threads"],
        spinning=fields["spinning"],
        libraries=tuple(Path(path) for path in fields["libraries"]),
        provider=Provider(**fields["provider"]),
    )


def _device_memory(settings: SessionSettings) -> int | None:
    return None if settings.provider.device == HOST else device_memory_used()


def _peak_memory_bytes() -> int | None:
    """Peak resident memory of this process.

    Linux's `ru_maxrss` outlives exec, so it would hold the caller's peak; VmHWM does not.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return _peak_of_resource_usage()
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * _KIB
    return None


def _peak_of_resource_usage() -> int | None:
    try:
        import resource  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


def _end_with_the_caller() -> None:
    """Wait for the end of standard input, which the caller holds open, and leave at once."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    raise SystemExit(main(sys.argv[1:]))
