"""Sizes behind convolutions and pools are those that ONNX's own inference finds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.passes.recurrence.dims import Unknown
from structopt_onnx.passes.recurrence.sizes import Sizes

CASES = [
    "Conv <pads = [1, 0, 0, 2]> (x, w)",
    "Conv <strides = [2, 3], dilations = [2, 1]> (x, w)",
    'Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)',
    'Conv <auto_pad = "VALID", strides = [2, 1]> (x, w)',
    "MaxPool <kernel_shape = [3, 2], strides = [2, 2], pads = [1, 1, 1, 0]> (x)",
    'MaxPool <kernel_shape = [3, 2], strides = [3, 2], auto_pad = "SAME_LOWER"> (x)',
    "AveragePool <kernel_shape = [2, 2], strides = [3, 3], ceil_mode = 1> (x)",
    "AveragePool <kernel_shape = [1, 2], strides = [2, 2]> (x)",
]


def _model(node):
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N,4,9,7] x) => (float[N,C,H,W] z) {{ y = {node} z = Relu(y) }}"""
    )
    weight = np.ones((5, 4, 3, 2), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


@pytest.mark.parametrize("node", CASES)
def test_behind_a_window(node):
    model = _model(node)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.value_info
    (shape,) = [v.type.tensor_type.shape for v in inferred if v.name == "y"]
    expected = [d.dim_param or d.dim_value for d in shape.dim]
    read = load(model)
    (y,) = [n.outputs[0] for n in read.graph if n.op_type != "Relu"]
    found = Sizes(read.graph, Facts(read)).dims(y)
    # Where the last window may be partial nothing is said.
    compared = [(f, e) for f, e in zip(found, expected, strict=True) if not isinstance(f, Unknown)]
    assert found[:2] == tuple(expected[:2])
    assert len(compared) == (4 if "ceil_mode" not in node else 2)
    assert all(f == e for f, e in compared)


def test_a_size_that_is_free_stays_so():
    model = _model(CASES[0])
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "rows"
    read = load(model)
    (y,) = [n.outputs[0] for n in read.graph if n.op_type != "Relu"]
    batch, channels, rows, columns = Sizes(read.graph, Facts(read)).dims(y)
    assert (batch, channels, columns) == ("N", 5, 8)
    assert isinstance(rows, Unknown)
