"""The machine that a measurement was made on, and how busy it is."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnxruntime as ort

_KIB = 1024


@dataclass(frozen=True)
class Machine:
    """What a reader needs to judge a time.

    Attributes
    ----------
    cpu
        The processor's model name.
    cores
        Logical cores this process may use.
    memory_bytes
        Physical memory; `None` where the system does not say.
    os, python, onnxruntime, onnx, numpy
        Names and versions.
    """

    cpu: str
    cores: int
    memory_bytes: int | None
    os: str
    python: str
    onnxruntime: str
    onnx: str
    numpy: str


def current() -> Machine:
    """Describe this machine."""
    return Machine(
        cpu=cpu_model(),
        cores=usable_cores(),
        memory_bytes=_memory_field("MemTotal"),
        os=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        onnxruntime=str(ort.__version__),
        onnx=version("onnx"),
        numpy=version("numpy"),
    )


def available_memory() -> int | None:
    """Bytes that a new process can get without swapping; `None` where the system does not say."""
    return _memory_field("MemAvailable")


def cpu_pressure() -> float | None:
    """Share of the last 10 s, in percent, in which some task waited for a core (Linux)."""
    try:
        words = Path("/proc/pressure/cpu").read_text(encoding="ascii").split()
    except OSError:
        return None
    for word in words:
        if word.startswith("avg10="):
            return float(word.removeprefix("avg10="))
    return None


def cpu_model() -> str:
    """Return the processor's model name."""
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, text = line.partition(":")
        if name.strip() == "model name":
            return text.strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many logical cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_field(name: str) -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        key, _, text = line.partition(":")
        if key == name:
            return int(text.split()[0]) * _KIB
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
