"""The one place that knows each provider: where it is from, how it is run, what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from structopt_onnx.errors import UsageError
from structopt_onnx.runtime.options import CPU, Provider

if TYPE_CHECKING:
    from collections.abc import Mapping

Way: TypeAlias = Literal["session", "web", "lists"]
"""A session here (built in or a plugin); onnxruntime-web under node; lists of operators alone."""

SINGLE = 1e-3
"""Relative error from the CPU's values that arithmetic in float32 may make."""

HALF = 2e-2
"""The same for providers that compute in float16 or TF32 by default."""


@dataclass(frozen=True)
class ProviderSpec:
    """A provider of onnxruntime.

    Attributes
    ----------
    name
        What the user calls it.
    provider
        What a session is opened with.
    package
        What to install for it.
    takes
        In words, what it computes with and what it does not take.
    way
        How it is reached on this machine; any of them may also be run on an attached phone.
    tolerance
        Relative error from the CPU's values up to which it is said to compute the model.
    timed
        Whether a time measured on it is a time of the device that it is for.
    predicted
        Whether onnxruntime's lists of operators stand in where it can't be run.
    """

    name: str
    provider: Provider
    package: str
    takes: str
    way: Way = "session"
    tolerance: float = SINGLE
    timed: bool = False
    predicted: bool = False

    @property
    def key(self) -> str:
        """The name that onnxruntime has for it."""
        return self.provider.name


# The simulator computes in float32 unless it is told a chip; a phone computes in float16. Numbers
# differ between architectures, so one is pinned: Snapdragon 8 Gen 3.
_QNN = Provider(
    "QNNExecutionProvider",
    {"backend_type": "htp", "enable_htp_fp16_precision": "1"},
    plugin="onnxruntime_qnn",
    simulator_options={"htp_arch": "75", "soc_model": "57"},
)

_SPECS = (
    ProviderSpec("cpu", CPU, "onnxruntime", "all operators", timed=True),
    ProviderSpec(
        "cuda",
        Provider("CUDAExecutionProvider", device="cuda"),
        "onnxruntime-gpu",
        "float32, float16, integers; NVIDIA with the CUDA that the package names",
        tolerance=HALF,
        timed=True,
    ),
    ProviderSpec(
        "tensorrt",
        Provider("TensorrtExecutionProvider", device="cuda"),
        "onnxruntime-gpu",
        "float32, float16, int8; NVIDIA with TensorRT",
        tolerance=HALF,
        timed=True,
    ),
    ProviderSpec(
        "openvino",
        Provider("OpenVINOExecutionProvider", {"device_type": "CPU", "num_of_threads": "1"}),
        "onnxruntime-openvino",
        "float32, float16, int8; Intel CPU, GPU and NPU, here the CPU",
        tolerance=HALF,
        timed=True,
    ),
    ProviderSpec(
        "directml",
        Provider("DmlExecutionProvider"),
        "onnxruntime-directml",
        "float32, float16, integers; Windows with DirectX 12",
        tolerance=HALF,
        timed=True,
    ),
    ProviderSpec(
        "webgpu",
        Provider("WebGpuExecutionProvider", plugin="onnxruntime_ep_webgpu"),
        "onnxruntime-ep-webgpu",
        "float32, float16; any GPU with Vulkan, Metal or DirectX 12",
    ),
    ProviderSpec(
        "coreml",
        Provider("CoreMLExecutionProvider", {"ModelFormat": "MLProgram"}),
        "onnxruntime for macOS",
        "float32, float16; fixed shapes; no recurrences and loops",
        tolerance=HALF,
        timed=True,
        predicted=True,
    ),
    ProviderSpec(
        "nnapi",
        Provider("NnapiExecutionProvider"),
        "onnxruntime for Android",
        "float32, 8-bit QDQ; fixed shapes; no recurrences and loops",
        way="lists",
        tolerance=HALF,
        predicted=True,
    ),
    ProviderSpec(
        "xnnpack",
        Provider("XnnpackExecutionProvider"),
        "onnxruntime-web 1.16.3 (npm) and node",
        "float32; 2-D Conv, pools, Gemm, MatMul, Softmax, Resize; opset 19 at most",
        way="web",
    ),
    ProviderSpec(
        "qnn",
        _QNN,
        "onnxruntime-qnn",
        "float16, 8- and 16-bit QDQ; fixed shapes; LSTM and GRU unrolled",
        tolerance=HALF,
        timed=True,
        predicted=True,
    ),
)

PROVIDERS: Mapping[str, ProviderSpec] = {spec.name: spec for spec in _SPECS}


def provider_spec(name: str) -> ProviderSpec:
    """Return a provider by the user's name for it.

    Raises
    ------
    UsageError
        When there is none.
    """
    if name not in PROVIDERS:
        raise UsageError(f"provider {name!r} is none of {', '.join(PROVIDERS)}")
    return PROVIDERS[name]
