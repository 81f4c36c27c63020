"""A tiny model with known values: a convolution, a Relu and a product, in float32."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

_TEXT = """
<ir_version: 8, opset_import: ["": 13]>
probe (float[1,3,8,8] x) => (float[1,4] y) {
  c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, b)
  r = Relu(c)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  y = Gemm<transB = 1>(f, m)
}
"""


def probe_model() -> onnx.ModelProto:
    """Make the model; its weights are drawn with a fixed seed."""
    proto = onnx.parser.parse_model(_TEXT)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (8, 3, 3, 3)), ("b", (8,)), ("m", (4, 8))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def probe_feed() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Make an input for it."""
    array = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    return {"x": array}
