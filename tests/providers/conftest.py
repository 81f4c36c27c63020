"""A machine whose onnxruntime pretends to have a GPU, in the ways that providers fail."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

_PRETENDING = '''
"""onnxruntime as it is, but for a provider that it claims to have."""
import importlib
import os
import sys

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.remove(here)
del sys.modules["onnxruntime"]
real = importlib.import_module("onnxruntime")
CLAIMED = "CUDAExecutionProvider"
HOW = {how!r}


class Group:
    def __init__(self, group):
        self.ep_name = CLAIMED
        self.get_nodes = group.get_nodes


class InferenceSession(real.InferenceSession):
    def __init__(self, model, options, providers=None, **rest):
        if HOW == "absent":
            sys.stderr.write("2026 [W:onnxruntime:Default, a.cc:1 F] a warning before it\\n")
            sys.stderr.write(
                "\\x1b[1;31m2026 [E:onnxruntime:Default, b.cc:2 operator()] /src/b.cc:3 "
                "Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
                "/opt/x/libcuda_provider.so with error: libcublasLt.so: no such file\\n\\x1b[m"
                "2026 [E:onnxruntime:Default, c.cc:4 F] a later error\\n"
            )
            sys.stderr.flush()
        super().__init__(model, options, providers=["CPUExecutionProvider"], **rest)

    def get_providers(self):
        return super().get_providers() if HOW == "absent" else [CLAIMED, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self):
        groups = super().get_provider_graph_assignment_info()
        if HOW == "no nodes":
            return groups
        taken = len(groups) - 1 if HOW == "partial" else len(groups)
        return [Group(group) for group in groups[:taken]] + groups[taken:]

    def run(self, names, feeds, options=None):
        if HOW == "fails":
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        values = super().run(names, feeds, options)
        return [value * 1.1 for value in values] if HOW == "wrong" else values


real.InferenceSession = InferenceSession
real.get_available_providers = lambda: [CLAIMED, "CPUExecutionProvider"]
sys.modules["onnxruntime"] = real
'''


@pytest.fixture
def pretending(tmp_path):
    """Make a folder whose onnxruntime claims CUDA and fails at it in a certain way."""

    def pretending(how: str) -> Path:
        folder = tmp_path / "packages"
        (folder / "onnxruntime").mkdir(parents=True)
        (folder / "onnxruntime" / "__init__.py").write_text(_PRETENDING.format(how=how))
        return folder

    return pretending


@pytest.fixture
def free_batch(tmp_path) -> Path:
    """A model with an open dimension, of a convolution, a product and a Relu between."""
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,3,8,8] x) => (float[N,4] y) {
      c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)
      r = Relu(c)
      p = GlobalAveragePool(r)
      f = Flatten(p)
      y = MatMul(f, m)
    }
    """
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    for name, shape in (("w", (8, 3, 3, 3)), ("m", (8, 4))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = tmp_path / "free_batch.onnx"
    onnx.save(proto, path)
    return path


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found
