"""onnxruntime's own file format for apps, and the operators that a reduced build must have."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TOOL = "onnxruntime.tools.convert_onnx_models_to_ort"

CONFIGS = {
    "model.ort": "required_operators_and_types.config",
    "model.with_runtime_opt.ort": "required_operators_and_types.with_runtime_opt.config",
}
"""What the tool makes of ``model.onnx``: each form of it, and what that form's build must have."""


@dataclass(frozen=True, order=True)
class Operator:
    """An operator that a build must have.

    Attributes
    ----------
    domain
        Its domain, ``ai.onnx`` for the default one.
    name
        Its name.
    opset
        Version of the domain that a model asks for.
    """

    domain: str
    name: str
    opset: int

    def __str__(self) -> str:
        """Return it as ``domain:Name, opset 17``."""
        return f"{self.domain}:{self.name}, opset {self.opset}"


def convert(folder: Path, libraries: Sequence[Path] = ()) -> None:
    """Convert the models of a folder, and list their operators and types.

    Two files come of each: one with all optimizations baked in, for the CPU, and one that keeps
    the operators that a provider such as NNAPI may claim and saves optimizations for the rest.

    Parameters
    ----------
    folder
        With ``.onnx`` files; the results are put beside them.
    libraries
        At most one shared library with custom operators.

    Raises
    ------
    ModelError
        With the last line of onnxruntime's tool, when it fails.
    UsageError
        For more libraries: the tool takes one.
    """
    if len(libraries) > 1:
        raise UsageError("the conversion takes one library with custom operators at most")
    # The format of quantized operators is chosen for phones; fusions for one machine are left out.
    command = [
        sys.executable, "-P", "-m", _TOOL, str(folder), "--optimization_style", "Fixed", "Runtime",
        "--enable_type_reduction", "--target_platform", "arm",
        *(word for path in libraries for word in ("--custom_op_library", str(path))),
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - onnxruntime's own tool, no shell
        command,
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise ModelError(f"onnxruntime's conversion failed: {lines[-1] if lines else '?'}")


def required_operators(config: Path) -> frozenset[Operator]:
    """Read a list of required operators, such as an app's build was made with.

    Raises
    ------
    UsageError
        When it can't be read.
    """
    # A package for tools has no place in the import of a session.
    from onnxruntime.tools.reduced_build_config_parser import parse_config  # noqa: PLC0415

    try:
        listed, _ = parse_config(str(config), enable_type_reduction=False)
    except Exception as error:
        raise UsageError(f"{config}: not a list of required operators: {error}") from error
    return frozenset(
        Operator(domain, name, opset)
        for domain, by_opset in (listed or {}).items()
        for opset, names in by_opset.items()
        for name in names
    )
