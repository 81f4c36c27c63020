"""Structural optimization of ONNX models for edge deployment, proved and measured.

::

    import structopt_onnx as so

    result = so.optimize("in.onnx", max_error=0.01, calibration="samples.npz")
    result.save("out.onnx")
    print(result.report)

Each command is loaded when it is first asked for: importing the package imports no other library.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from structopt_onnx.errors import (
    DataError,
    InternalError,
    ModelError,
    StructoptError,
    UsageError,
    ValidationFailed,
)

if TYPE_CHECKING:
    from structopt_onnx.api.benchmark import benchmark
    from structopt_onnx.api.bisect import Bisection, bisect
    from structopt_onnx.api.bundle import Bundle, bundle
    from structopt_onnx.api.densify import DensifyResult, densify
    from structopt_onnx.api.explain import explain
    from structopt_onnx.api.export import export
    from structopt_onnx.api.inspect import Inspection, inspect
    from structopt_onnx.api.optimize import optimize
    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.api.providers import compare_providers, providers
    from structopt_onnx.api.recipe import read_recipe
    from structopt_onnx.api.recover_result import recover
    from structopt_onnx.api.result import Result
    from structopt_onnx.api.validate import ValidationReport, validate
    from structopt_onnx.model.scipy_matrices import from_scipy, to_scipy
    from structopt_onnx.report.record import Report
    from structopt_onnx.runtime.comparison import Comparison
    from structopt_onnx.runtime.providers.table import ProviderList, ProviderTable

__version__ = "0.1.0"

__all__ = [
    "Bisection",
    "Bundle",
    "Comparison",
    "DataError",
    "DensifyResult",
    "Inspection",
    "InternalError",
    "ModelError",
    "OptimizeOptions",
    "ProviderList",
    "ProviderTable",
    "Report",
    "Result",
    "StructoptError",
    "UsageError",
    "ValidationFailed",
    "ValidationReport",
    "benchmark",
    "bisect",
    "bundle",
    "compare_providers",
    "densify",
    "explain",
    "export",
    "from_scipy",
    "inspect",
    "optimize",
    "providers",
    "read_recipe",
    "recover",
    "to_scipy",
    "validate",
]

_MODULES = {
    "Bisection": "api.bisect",
    "Bundle": "api.bundle",
    "Comparison": "runtime.comparison",
    "DensifyResult": "api.densify",
    "Inspection": "api.inspect",
    "OptimizeOptions": "api.options",
    "ProviderList": "runtime.providers.table",
    "ProviderTable": "runtime.providers.table",
    "Report": "report.record",
    "Result": "api.result",
    "ValidationReport": "api.validate",
    "benchmark": "api.benchmark",
    "bisect": "api.bisect",
    "bundle": "api.bundle",
    "compare_providers": "api.providers",
    "densify": "api.densify",
    "explain": "api.explain",
    "export": "api.export",
    "from_scipy": "model.scipy_matrices",
    "inspect": "api.inspect",
    "optimize": "api.optimize",
    "providers": "api.providers",
    "read_recipe": "api.recipe",
    "recover": "api.recover_result",
    "to_scipy": "model.scipy_matrices",
    "validate": "api.validate",
}

# Whoever wants to hear of it adds a handler of their own.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Straight from a checkout, passes/ lies beside this folder; installed, it lies inside it.
if not (Path(__file__).parent / "passes").is_dir():
    __path__.append(str(Path(__file__).parent.parent))


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not, and nothing that this module itself uses."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
