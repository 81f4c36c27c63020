from __future__ import annotations

from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper
from convolution_nets import assert_kept
from hypothesis import event, given

from structopt_onnx.passes.convolution import merge_matmuls
from structopt_onnx.passes.convolution.merge_matmuls import MergeMatmuls


@st.composite
def products(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a row of Gemms and MatMuls with all that they may have."""
    double, rows, width = onnx.TensorProto.DOUBLE, 3, draw(st.integers(1, 5))
    nodes, constants, value = [], [], "x"
    rng = np.random.default_rng(draw(st.integers(0, 99)))

    def constant(*dims: int) -> str:
        name = f"w{len(constants)}"
        constants.append(onnx.numpy_helper.from_array(rng.standard_normal(dims), name))
        return name

    first = draw(st.booleans())
    shape = [width, rows] if first else [rows, width]
    for index in range(draw(st.integers(2, 4))):
        columns = draw(st.integers(1, 5))
        turned = draw(st.booleans())
        kind = "Gemm" if index == 0 and first else draw(st.sampled_from(["Gemm", "MatMul"]))
        attributes = {}
        dims = (width, columns)
        if kind == "Gemm":
            attributes = {"alpha": draw(st.sampled_from([0.5, 2.0])), "transB": int(turned)}
            attributes |= {"beta": draw(st.sampled_from([0.5, 1.0])), "transA": int(first)}
            dims = (columns, width) if turned else dims
            first = False
        inputs = [value, constant(*dims)]
        if kind == "Gemm" and draw(st.booleans()):
            kinds = [(), (1,), (columns,), (1, columns), (rows, columns)]
            inputs.append(constant(*draw(st.sampled_from(kinds))))
        value = f"v{index}"
        nodes.append(onnx.helper.make_node(kind, inputs, [value], **attributes))
        width = columns
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "net", [info("x", double, shape)], [info(value, double, [rows, width])], constants
    )
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)


@given(products())
def test_one_product_does_the_same(proto: onnx.ModelProto):
    # Whether it pays is policy; here every pair that may be merged is.
    with patch.object(merge_matmuls, "_pays", lambda one, two: True):
        event(f"{assert_kept(proto, MergeMatmuls())} patches")
