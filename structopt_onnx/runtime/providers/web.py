"""XNNPACK as onnxruntime-web carries it, run under node: the only place it can be had on a desktop.

The last release with it is 1.16.3, whose onnxruntime knows opset 19 and file format 9.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.runtime.providers.placement import logged
from structopt_onnx.runtime.providers.ran import Ran
from structopt_onnx.runtime.providers.status import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from structopt_onnx.runtime.providers.catalogue import ProviderSpec
    from structopt_onnx.runtime.session import Feeds

NEWEST_OPSET = 19
NEWEST_IR = 9

_PATIENCE_S = 300.0
_SCRIPT = Path(__file__).with_name("xnnpack.cjs")


def run_in_web(
    spec: ProviderSpec, model: Path, feeds: Sequence[Feeds], folder: Path, packages: str
) -> Ran:
    """Run a model once per feed.

    Parameters
    ----------
    spec
        The provider.
    model
        A file with fixed shapes, an opset and a format that the package knows.
    feeds
        Inputs.
    folder
        Where to write what is of use until the end.
    packages
        The folder ``node_modules`` with onnxruntime-web or the one around it; empty leaves it to
        ``NODE_PATH``.

    Raises
    ------
    Unavailable
        Without node or the package, or when it fails.
    """
    node = shutil.which("node")
    if node is None:
        raise Unavailable("node is not installed")
    job, result = folder / "web_job.json", folder / "web_result.json"
    given = [{name: _packed(array) for name, array in feed.items()} for feed in feeds]
    job.write_text(json.dumps({"model": str(model), "feeds": given}))
    try:
        done = subprocess.run(  # noqa: S603 - our own script, no shell
            [node, str(_SCRIPT), str(job), str(result)],
            env=os.environ | {"NODE_PATH": _node_path(packages)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"no result after {_PATIENCE_S:.0f} s") from error
    if not result.exists():
        raise Unavailable(f"node ended with exit code {done.returncode}")
    found = json.loads(result.read_text())
    if found.get("code") == "MODULE_NOT_FOUND":
        raise Unavailable("no onnxruntime-web in NODE_PATH or the folder given")
    if "error" in found:
        raise Unavailable(str(found["error"]).splitlines()[0])
    return Ran(
        placement=logged(done.stderr + done.stdout, spec.key),
        outputs=[{n: _unpacked(value) for n, value in run.items()} for run in found["outputs"]],
        engine=f"wasm, onnxruntime-web {found['version']} under {_version(node)}",
    )


def _node_path(packages: str) -> str:
    if not packages:
        return os.environ.get("NODE_PATH", "")
    return os.pathsep.join([packages, str(Path(packages) / "node_modules")])


def _version(node: str) -> str:
    said = subprocess.run(  # noqa: S603 - node itself
        [node, "--version"], capture_output=True, text=True, check=False
    )
    return f"node {said.stdout.strip().removeprefix('v')}"


def _packed(array: npt.NDArray[Any]) -> Mapping[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"type": array.dtype.name, "dims": list(array.shape), "data": data}


def _unpacked(value: Mapping[str, Any]) -> npt.NDArray[Any]:
    data = base64.b64decode(value["data"])
    return np.frombuffer(data, np.dtype(value["type"])).reshape(value["dims"])
