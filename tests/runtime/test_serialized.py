from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from structopt_onnx.model.loading import load
from structopt_onnx.runtime.serialized import serialized
from structopt_onnx.runtime.session import Session
from structopt_onnx.runtime.shapes import observed_shapes

_SIZE = 128


def _weight(name: str, dtype=np.float32, seed: int = 0) -> onnx.TensorProto:
    array = np.random.default_rng(seed).standard_normal((_SIZE, _SIZE))
    return numpy_helper.from_array((array * 10).astype(dtype), name)


def _model(weights, nodes=None, ir_version: int = 8) -> onnx.ModelProto:
    """x times each of the weights, cast to float."""
    nodes = list(nodes or [])
    value = "x"
    for number, weight in enumerate(weights):
        nodes.append(helper.make_node("Cast", [weight.name], [f"c{number}"], to=1))
        nodes.append(helper.make_node("MatMul", [value, f"c{number}"], [f"v{number}"]))
        value = f"v{number}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", _SIZE])
    inputs = [x]
    if ir_version < 4:
        inputs += [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights]
    y = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", _SIZE])
    graph = helper.make_graph(nodes, "g", inputs, [y], weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version
    )


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, _SIZE)).astype(np.float32)


def _size(model: ir.Model) -> tuple[int, set[str]]:
    with serialized(model, lambda _: None) as (source, weights):
        assert isinstance(source, bytes)
        return len(source), set(weights)


def _same(proto: onnx.ModelProto, x) -> None:
    (expected,) = Session(proto.SerializeToString()).run({"x": x}).values()
    (found,) = Session(load(proto)).run({"x": x}).values()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("ir_version", [3, 8])
def test_large_weights_are_shared(x, ir_version):
    weights = [
        _weight(f"w{n}", dtype, n)
        for n, dtype in enumerate([np.float32, np.float64, np.float16, np.int8, np.int64])
    ]
    proto = _model(weights, ir_version=ir_version)
    size, shared = _size(load(proto))
    assert shared == {f"w{n}" for n in range(5)}
    assert size < 4000
    _same(proto, x)


def test_weights_of_a_file_are_read_where_they_are(tmp_path, x):
    proto = _model([_weight("w")])
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=0)
    model = load(path)
    assert _size(model)[1] == {"w"}
    (expected,) = Session(path).run({"x": x}).values()
    (found,) = Session(model).run({"x": x}).values()
    np.testing.assert_array_equal(found, expected)


def test_other_types_travel_in_the_model(x):
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [_SIZE, _SIZE], [0.5] * _SIZE**2)
    assert not _size(load(_model([weight])))[1]


def test_a_constant_of_the_same_name_is_another_tensor(x):
    constant = _weight("w", seed=5)
    nodes = [
        helper.make_node("Constant", [], ["k"], value=constant),
        helper.make_node("MatMul", ["x", "k"], ["unread"]),
    ]
    proto = _model([_weight("w", seed=6)], nodes)
    assert _size(load(proto))[1] == {"w"}
    _same(proto, x)


def test_weights_of_branches_travel_in_the_model(x):
    def branch(seed: int) -> onnx.GraphProto:
        product = helper.make_node("MatMul", ["x", f"b{seed}"], [f"o{seed}"])
        out = helper.make_tensor_value_info(f"o{seed}", TensorProto.FLOAT, None)
        return helper.make_graph([product], f"g{seed}", [], [out], [_weight(f"b{seed}", seed=seed)])

    yes = numpy_helper.from_array(np.array(True), "yes")
    proto = _model([_weight("w")])
    node = helper.make_node("If", ["yes"], ["z"], then_branch=branch(1), else_branch=branch(2))
    proto.graph.node.append(node)
    proto.graph.initializer.append(yes)
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    assert _size(load(proto))[1] == {"w"}
    _same(proto, x)


def test_the_session_outlives_the_model(x):
    proto = _model([_weight("w")])
    model = load(proto)
    session = Session(model)
    (expected,) = session.run({"x": x}).values()
    value = model.graph.initializers["w"]
    value.const_value = ir.tensor(np.zeros((_SIZE, _SIZE), np.float32), name="w")
    del model, value
    (found,) = session.run({"x": x}).values()
    np.testing.assert_array_equal(found, expected)


def test_shapes_are_observed_with_shared_weights(x):
    shapes = observed_shapes(load(_model([_weight("w")])), {"x": x})
    assert shapes["w"] == (_SIZE, _SIZE)
    assert shapes["v0"] == (2, _SIZE)
