from __future__ import annotations

import numpy as np
import onnx.helper
import onnx_ir as ir

from structopt_onnx.model.inference import infer_outputs, node_proto

_OPSETS = {"": 17}


def _known(dtype: ir.DataType, *dims: int | str) -> ir.TypeAndShape:
    return ir.TypeAndShape(ir.TensorType(dtype), ir.Shape(dims))


def _infer(op_type: str, inputs, constants=(), *, attributes=(), domain="", opsets=_OPSETS):
    proto = node_proto(op_type, domain, list(inputs), ["out"], attributes)
    return infer_outputs(proto, inputs, dict(constants), opsets).get("out")


def test_types_and_shapes_follow_the_operator():
    x, w = _known(ir.DataType.FLOAT16, "N", 3), _known(ir.DataType.FLOAT16, 3, 4)
    found = _infer("MatMul", {"x": x, "w": w})
    assert found.type == ir.TensorType(ir.DataType.FLOAT16)
    assert found.shape == ["N", 4]


def test_small_constants_are_looked_at():
    x, s = _known(ir.DataType.FLOAT, 6), _known(ir.DataType.INT64, 2)
    shape = ir.tensor(np.array([2, 3]), name="s")
    assert _infer("Reshape", {"x": x, "s": s}, {"s": shape}).shape == [2, 3]


def test_attributes_count():
    perm = ir.AttrInt64s("perm", [1, 0])
    x = _known(ir.DataType.FLOAT, 2, 3)
    assert _infer("Transpose", {"x": x}, attributes=[perm]).shape == [3, 2]


def test_nothing_is_known_about_what_has_no_schema():
    x = _known(ir.DataType.FLOAT, 2)
    assert _infer("Unheard", {"x": x}) is None
    assert _infer("Relu", {"x": x}, domain="my") is None
    assert _infer("Relu", {"x": x}, opsets={"my": 1}) is None
    assert _infer("Relu", {"x": x}, domain="my", opsets={"my": 1}) is None


def test_inputs_that_contradict_each_other_give_nothing():
    x, w = _known(ir.DataType.FLOAT16, 2, 3), _known(ir.DataType.FLOAT, 3, 4)
    assert _infer("MatMul", {"x": x, "w": w}) is None
    assert _infer("MatMul", {"x": w, "w": w}) is None


def test_missing_optional_inputs_are_left_out():
    x = _known(ir.DataType.FLOAT, 4)
    high = _known(ir.DataType.FLOAT)
    proto = onnx.helper.make_node("Clip", ["x", "", "high"], ["out"])
    assert infer_outputs(proto, {"x": x, "high": high}, {}, _OPSETS)["out"].shape == [4]
