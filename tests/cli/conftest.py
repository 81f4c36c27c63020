from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import structopt_onnx
from structopt_onnx.api.bisect import Bisection
from structopt_onnx.api.bundle import Bundle, BundledFile, Required
from structopt_onnx.api.densify import DensifyResult
from structopt_onnx.api.inspect import Inspection, TensorRow
from structopt_onnx.api.validate import ValidationReport
from structopt_onnx.cli import export, main
from structopt_onnx.report.record import Report, SampleReport, Size
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.record import Applied
from structopt_onnx.runtime.comparison import Comparison, Timing
from structopt_onnx.runtime.machine import Machine
from structopt_onnx.runtime.ort_format import Operator
from structopt_onnx.runtime.providers.status import Status
from structopt_onnx.runtime.providers.table import (
    ProbedProvider,
    ProviderList,
    ProviderRow,
    ProviderTable,
)
from structopt_onnx.validation.compare import Validation
from structopt_onnx.validation.models import ModelValidation

if TYPE_CHECKING:
    from collections.abc import Callable

MACHINE = Machine("Test CPU", 2, None, "Linux", "3.11", "1.23", "1.19", "2.0")
SIZE = Size(Cost(10, 40, 100, 2), 1000)
SAMPLES = SampleReport("synthetic", synthetic=True, count=4, shapes=("x float32[1,3,32,32]",))
REPORT = Report("in.onnx", "out.onnx", {}, "normalize", MACHINE, SIZE, SIZE, (), (), SAMPLES)
TIMING = Timing(0.5, 0.6, 0.4, 100, 1.0, 0.7, 50 << 20, 1000)
COMPARISON = Comparison(
    TIMING, TIMING, 1.0, 0.99, 1.01, 1.0, 0.001, "fresh session", "no difference shown",
    "the interval includes 1", "thread CPU time", None, 8, 30, 4, 9.0, "CPUExecutionProvider",
    MACHINE, ("x float32[2,4]",),
)  # fmt: skip

BISECTION = Bisection(
    source="in.onnx",
    optimized="out.onnx",
    samples=SAMPLES,
    max_error=0.05,
    culprit=Applied(7, "factor-matmul", "w: rank 8", "fc", Cost(), Cost()),
    failure="output 'y': relative L2 error 0.2 is over the limit 0.05",
    error=0.2,
    patches=12,
    evaluations=5,
)
INSPECTION = Inspection(
    source="in.onnx",
    producer="",
    ir_version=8,
    opsets={"": 17, "com.example": 1},
    inputs=(("x", "tensor(float)", "[batch, 64]"),),
    outputs=(("y", "tensor(float)", "?"),),
    cost=Cost(10, 40, 100, 2),
    file_bytes=1000,
    operators={f"Op{n}": 40 - n for n in range(20)},
    tensors=tuple(TensorRow(f"w{n}", "string", "[0]", 9, None, "graph") for n in range(20)),
    metadata=("author",),
    functions=("com.example::twice",),
    notes=("1 tensors repeat the bytes of another",),
)


def validation(*failures: str) -> ValidationReport:
    check = Validation((), failures, 4, {}, optimized=True, synthetic=True)
    verdict = ModelValidation((), check, check, {})
    return ValidationReport("a", "b", SAMPLES, verdict, None)


_EXECUTED = Status("executed", 9, 9)
_NO_GPU = Status("unavailable", reason="libcublasLt.so.13: cannot open shared object file")
PROVIDERS = ProviderList(
    (
        ProbedProvider("cpu", "CPUExecutionProvider", _EXECUTED, "onnxruntime 1", "o", "all", "V"),
        ProbedProvider("cuda", "CUDAExecutionProvider", _NO_GPU, "", "o-gpu", "floats", "V"),
    ),
    MACHINE,
)
PROVIDER_TABLE = ProviderTable(
    a="a.onnx",
    b="b.onnx",
    rows=(
        ProviderRow("cpu", "a.onnx", _EXECUTED, "onnxruntime 1", 9, 9, max_abs=1e-7, p50_ms=0.5),
        ProviderRow("cpu", "b.onnx", _EXECUTED, "onnxruntime 1", 9, 9, max_abs=1e-7, p50_ms=0.4),
        ProviderRow(
            "xnnpack", "a.onnx", Status("partial", 5, 9), "wasm", 9, 5, left={"Relu": 4},
        ),
        ProviderRow("xnnpack", "b.onnx", Status("unavailable", reason="opset 21")),
        ProviderRow("cuda", "a.onnx", _NO_GPU),
        ProviderRow("cuda", "b.onnx", _NO_GPU),
    ),
    shapes=("x float32[1,3]",),
    synthetic=False,
    comparisons={"cpu": COMPARISON},
    machine=MACHINE,
)  # fmt: skip

BUNDLE = Bundle(
    source="small.onnx",
    folder="app",
    files=(BundledFile("model.ort", 2000, "ab", 1e-7), BundledFile("model.onnx", 1000, "cd")),
    inputs=("x: float32[1,3]",),
    outputs=("y: float32[1,4]",),
    onnxruntime="1.32.0",
    required=(
        Required(
            "model.ort",
            (Operator("ai.onnx", "Conv", 11), Operator("ai.onnx", "Relu", 14)),
            (Operator("ai.onnx", "Relu", 14),),
        ),
        Required("model.with_runtime_opt.ort", (Operator("ai.onnx", "Conv", 11),)),
    ),
    before="model.onnx",
)

RESULTS = {
    "bundle": BUNDLE,
    "compare_providers": PROVIDER_TABLE,
    "providers": PROVIDERS,
    "optimize": SimpleNamespace(report=REPORT),
    "export": SimpleNamespace(report=REPORT),
    "explain": REPORT,
    "validate": validation(),
    "benchmark": COMPARISON,
    "bisect": BISECTION,
    "inspect": INSPECTION,
    "densify": DensifyResult(2, 1000, 2000, verified=True),
}


class Calls(dict[str, tuple[tuple[Any, ...], dict[str, Any]]]):
    """What each function of the package was called with, and what it shall do."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def answer(self, name: str, result: Any) -> None:
        def called(*args: Any, **options: Any) -> Any:
            self[name] = args, options
            if isinstance(result, BaseException):
                raise result
            return result() if callable(result) else result

        self._patch.setattr(structopt_onnx, name, called, raising=False)


@pytest.fixture
def calls(monkeypatch) -> Calls:
    """The package's functions, replaced by ones that only answer."""
    made = Calls(monkeypatch)
    for name, result in RESULTS.items():
        made.answer(name, result)
    monkeypatch.setattr(export, "load_function", lambda *_: lambda: (None, ()))
    return made


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys) -> Callable[..., SimpleNamespace]:
    """Run a command line: exit code, standard output, standard error."""

    def run(*words: str) -> SimpleNamespace:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run


@pytest.fixture
def bisection() -> Bisection:
    """A rewrite was found to be to blame."""
    return BISECTION


@pytest.fixture
def comparison() -> Comparison:
    """Two models that are equally fast."""
    return COMPARISON


@pytest.fixture
def inspection() -> Inspection:
    """A model with an open dimension."""
    return INSPECTION


@pytest.fixture
def failing() -> ValidationReport:
    """A validation that failed."""
    return validation("output 'y': relative L2 error 0.2 is over the limit 1e-05")
