"""A provider in a session of onnxruntime, in a process of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.errors import ModelError
from structopt_onnx.runtime.exchange import read_feeds, write_feeds
from structopt_onnx.runtime.process import run_job
from structopt_onnx.runtime.providers.placement import Placement
from structopt_onnx.runtime.providers.ran import Ran
from structopt_onnx.runtime.providers.status import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from structopt_onnx.runtime.options import Provider
    from structopt_onnx.runtime.providers.case import Case
    from structopt_onnx.runtime.providers.catalogue import ProviderSpec

PATIENCE_S = 300.0
"""A simulator takes seconds per run; what takes longer than this is given up."""


class NotHere(Unavailable):
    """The onnxruntime installed does not have the provider at all."""


def run_in_session(spec: ProviderSpec, case: Case, folder: Path, packages: str) -> Ran:
    """Run a model once per feed of a case.

    Parameters
    ----------
    spec
        The provider.
    case
        The model, its inputs, and the libraries with custom operators.
    folder
        Where to write what is of use until the end.
    packages
        A folder whose packages are imported before all others; empty for none.

    Raises
    ------
    NotHere
        If the provider is not in this onnxruntime.
    Unavailable
        If it fails; with onnxruntime's first error line.
    """
    provider = replace(_dumping(spec, folder), packages=packages)
    job = {
        "kind": "execute",
        "model": str(case.path),
        "feeds": str(folder / "feeds.npz"),
        "feed_index": write_feeds(folder / "feeds.npz", case.feeds),
        "provider": asdict(provider),
        "package": spec.package,
        "libraries": [str(path) for path in case.libraries],
        "folder": str(folder),
        "outputs": str(folder / "outputs.npz"),
    }
    try:
        found = run_job(job, PATIENCE_S, "the model", packages)
    except ModelError as error:
        raise Unavailable(str(error)) from error
    if found is None:
        raise Unavailable(f"no result after {PATIENCE_S:.0f} s")
    if "absent" in found:
        raise NotHere(found["absent"])
    if "failed" in found:
        raise Unavailable(found["failed"])
    arrays = read_feeds(folder / "outputs.npz", found["output_index"])
    return Ran(
        placement=Placement(**found["placement"]),
        outputs=[{name: array for name, (array, _) in run.items()} for run in arrays],
        engine=_engine(spec, found),
        simulated=_is_simulated(spec, found["device"]),
        graph_ops=_graph_ops(folder),
        context_bytes=_context_bytes(folder),
    )


def _is_simulated(spec: ProviderSpec, device: str) -> bool:
    """Whether all that a plugin for other devices finds is the CPU."""
    return bool(spec.provider.simulator_options) and device == "CPU"


def _engine(spec: ProviderSpec, found: dict[str, Any]) -> str:
    if _is_simulated(spec, found["device"]):
        chip = spec.provider.simulator_options["htp_arch"]
        return f"HTP simulator, arch {chip}; {found['engine']}"
    return str(found["engine"])


def _dumping(spec: ProviderSpec, folder: Path) -> Provider:
    """Ask QNN for what it makes of the graph: its operators, and the binary for the device."""
    if spec.name != "qnn":
        return spec.provider
    options = {"dump_json_qnn_graph": "1", "json_qnn_graph_dir": str(folder)}
    entries = {
        "ep.context_enable": "1",
        "ep.context_file_path": str(folder / "context.onnx"),
        "ep.context_embed_mode": "0",
    }
    return replace(spec.provider, options={**spec.provider.options, **options}, entries=entries)


def _graph_ops(folder: Path) -> int | None:
    graphs = [p for p in folder.glob("QNN*.json") if not p.name.endswith("tensor_log.json")]
    counts = [len(json.loads(path.read_text())["graph"]["nodes"]) for path in graphs]
    return sum(counts) if counts else None


def _context_bytes(folder: Path) -> int | None:
    binaries = list(folder.glob("context*.bin"))
    return sum(path.stat().st_size for path in binaries) if binaries else None
