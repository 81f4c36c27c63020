"""The measuring process's part: run a model on a provider once per feed and tell what happened."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from structopt_onnx.errors import ModelError
from structopt_onnx.runtime.exchange import read_feeds, write_feeds
from structopt_onnx.runtime.options import (
    Provider,
    SessionSettings,
    device_type,
    first_line,
    open_session,
    plugin_devices,
)
from structopt_onnx.runtime.providers.placement import assigned, profiled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RECORD = "session.record_ep_graph_assignment_info"
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_ERROR = re.compile(r"\[E:onnxruntime:[^\]]*\]\s*(.*)")
# In front of what went wrong stand the source file, the function and the code.
_ORIGIN = re.compile(r"^.*\[ONNXRuntimeError\] : \d+ : \w+ : ")
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/:]+/)+")


def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Run a model on a provider.

    Parameters
    ----------
    job
        ``model``, ``feeds``, ``feed_index``, ``provider``, ``package`` (what it is from),
        ``libraries`` with custom operators, ``folder`` for what onnxruntime writes, and
        ``outputs``, the file for what the model gives.

    Returns
    -------
    dict
        ``absent``: why this onnxruntime does not have the provider; or ``failed``: the first
        error line of onnxruntime; or ``placement``, ``device``, ``engine`` and ``output_index``.
    """
    provider = Provider(**job["provider"])
    reason = _absence(provider, job["package"])
    if reason:
        return {"absent": reason}
    settings = SessionSettings(
        libraries=tuple(Path(path) for path in job["libraries"]),
        provider=replace(provider, entries={**provider.entries, _RECORD: "1"}),
        profile_prefix=Path(job["folder"]) / "profile",
    )
    with _standard_error() as said:
        try:
            session = open_session(Path(job["model"]), "the model", settings)
            feeds = read_feeds(Path(job["feeds"]), job["feed_index"])
            outputs = [_run(session, feed) for feed in feeds]
            device = device_type(plugin_devices(provider)[0]) if provider.plugin else ""
        except Exception as error:  # noqa: BLE001 - whatever fails there is the answer
            return {"failed": first_error(said()) or _plain(first_line(error.__cause__ or error))}
    profile = Path(session.end_profiling())
    # Older releases have no such method, and an empty list means that it does not know.
    groups: list[Any] = getattr(session, "get_provider_graph_assignment_info", list)()
    place = assigned(groups, provider.name) if groups else profiled(profile, provider.name)
    return {
        "placement": asdict(place),
        "device": device,
        "engine": _engine(job["package"]),
        "output_index": write_feeds(Path(job["outputs"]), outputs),
    }


def first_error(log: str) -> str:
    """Return the first error that onnxruntime wrote to a log, without where in its source."""
    found = _ERROR.search(_COLOR.sub("", log))
    return _plain(found[1]) if found else ""


def _plain(text: str) -> str:
    """Shorten an error to what went wrong: no codes, no folders of this machine."""
    return _FOLDERS.sub("", _ORIGIN.sub("", text)).strip()


def _absence(provider: Provider, package: str) -> str:
    if provider.plugin:
        found = find_spec(provider.plugin) is not None
        return "" if found else f"{package} is not installed"
    if provider.name in ort.get_available_providers():
        return ""
    return f"not in onnxruntime {ort.__version__}; {package} has it"


def _run(session: ort.InferenceSession, feed: dict[str, Any]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {name: array for name, (array, _) in feed.items()})
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, np.ndarray):
            raise ModelError(f"output {name!r} is no tensor, so it can't be compared")
    return dict(zip(names, values, strict=True))


def _engine(package: str) -> str:
    runtime = f"onnxruntime {ort.__version__}"
    try:
        own = f"{package} {version(package)}"
    except PackageNotFoundError:
        return runtime
    return runtime if own == runtime else f"{runtime}, {own}"


@contextmanager
def _standard_error() -> Iterator[Callable[[], str]]:
    """Keep what libraries write to standard error; it is passed on at the end."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        real = os.dup(2)
        os.dup2(kept.fileno(), 2)

        def said() -> str:
            kept.seek(0)
            return kept.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(real, 2)
            os.close(real)
            sys.stderr.write(said())
