"""Measured times on disk, so that a shape is timed once per machine and not once per run."""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort

from structopt_onnx.model.whole_file import write_whole
from structopt_onnx.runtime.machine import cpu_model

VERSION = 1
"""Of the file and of how times are taken; another one's times are not looked at."""

_FILE = "region_times.json"
_MOST_ENTRIES = 50_000


def cache_folder() -> Path:
    """Return where caches lie.

    ``STRUCTOPT_ONNX_CACHE``, or ``structopt-onnx`` in the user's folder for caches:
    ``LOCALAPPDATA`` on Windows, ``~/Library/Caches`` on macOS, else ``XDG_CACHE_HOME`` or
    ``~/.cache``.
    """
    own = os.environ.get("STRUCTOPT_ONNX_CACHE")
    if own:
        return Path(own)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser()
    elif sys.platform == "darwin":
        base = Path("~/Library/Caches").expanduser()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "structopt-onnx"


class CostCache:
    """Seconds by description, for one processor, version of onnxruntime and thread count.

    The file is JSON: ``{"version": 1, "times": {environment: {description: seconds}}}``. One that
    is damaged or of another version counts as empty and is written anew. A folder that can't be
    written costs the memory, not the run.

    Parameters
    ----------
    threads
        Threads inside one operator.
    folder
        Where the file lies; by default `cache_folder`.
    """

    def __init__(self, threads: int = 1, folder: Path | None = None) -> None:
        self.path = (folder or cache_folder()) / _FILE
        self.environment = f"{cpu_model()}, onnxruntime {ort.__version__}, {threads} threads"
        self._known = self._read().get(self.environment, {})
        self._fresh: dict[str, float] = {}

    def get(self, description: str) -> float | None:
        """Return what was measured, in seconds, or None."""
        return self._known.get(description)

    def put(self, description: str, seconds: float) -> None:
        """Remember a time; `save` writes it."""
        self._known[description] = self._fresh[description] = seconds

    def save(self) -> None:
        """Write what was put, beside what other processes have written meanwhile."""
        if not self._fresh:
            return
        times = self._read()
        held = times.setdefault(self.environment, {})
        held.update(self._fresh)
        for old in list(held)[: max(0, len(held) - _MOST_ENTRIES)]:
            del held[old]
        text = json.dumps({"version": VERSION, "times": times}, indent=1)
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, text.encode())
        self._fresh = {}

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            raw = json.loads(self.path.read_text(encoding="utf-8"))
            if raw["version"] != VERSION:
                return {}
            return {
                str(environment): {str(k): float(v) for k, v in held.items() if _plausible(v)}
                for environment, held in raw["times"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def _plausible(seconds: object) -> bool:
    return isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0
