"""The commands as functions: optimize, explain, validate, benchmark and the others."""

from structopt_onnx.api.benchmark import benchmark
from structopt_onnx.api.bisect import Bisection, bisect
from structopt_onnx.api.bundle import Bundle, bundle
from structopt_onnx.api.densify import DensifyResult, densify
from structopt_onnx.api.explain import explain
from structopt_onnx.api.inspect import Inspection, inspect
from structopt_onnx.api.optimize import optimize
from structopt_onnx.api.providers import compare_providers, providers
from structopt_onnx.api.result import Result
from structopt_onnx.api.validate import ValidationReport, validate

__all__ = [
    "Bisection",
    "Bundle",
    "DensifyResult",
    "Inspection",
    "Result",
    "ValidationReport",
    "benchmark",
    "bisect",
    "bundle",
    "compare_providers",
    "densify",
    "explain",
    "inspect",
    "optimize",
    "providers",
    "validate",
]
