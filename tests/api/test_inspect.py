from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import structopt_onnx as so
from structopt_onnx.report.json import to_json


def model_of(nodes, inputs, outputs, initializers=(), **keywords):
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(initializers))
    keywords.setdefault("opset_imports", [helper.make_opsetid("", 18)])
    return helper.make_model(graph, ir_version=10, **keywords)


def floats(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_a_trained_network(models):
    path = models / "digits_mlp.onnx"
    found = so.inspect(path)
    assert found.source == str(path)
    assert found.producer.startswith("pytorch")
    assert found.ir_version == 10
    assert found.opsets == {"": 18}
    assert found.inputs == (("x", "tensor(float)", "[batch, 64]"),)
    assert found.outputs == (("logits", "tensor(float)", "[batch, 10]"),)
    assert found.file_bytes == path.stat().st_size
    assert list(found.operators.items()) == [("Gemm", 3), ("Relu", 2)]
    assert found.cost.parameters == 64 * 256 + 256 + 256 * 256 + 256 + 2560 + 10
    assert found.cost.seconds > 0
    assert found.tensors[0].name == "2.weight"
    assert (found.tensors[0].dtype, found.tensors[0].shape) == ("float32", "[256, 256]")
    assert found.tensors[0].bytes == 4 * 65536
    sizes = [row.bytes for row in found.tensors]
    assert sizes == sorted(sizes, reverse=True)
    assert to_json(found)


def test_macs_are_those_of_the_sample(models, rows):
    path = models / "digits_mlp.onnx"
    found = so.inspect(path, data=[{"x": rows[:1]}])
    assert found.cost.macs == 64 * 256 + 256 * 256 + 2560
    assert so.inspect(path, data=[{"x": rows[:5]}]).cost.macs == 5 * found.cost.macs


def test_sparse_weights_are_told(models):
    found = so.inspect(models / "sparse_linear_regression.onnx")
    (weight,) = [row for row in found.tensors if row.bytes == 285 * 4]
    assert weight.zeros == pytest.approx(1 - 18 / 285)
    assert (weight.stored, weight.encoding) == ("initializer", "initializer")
    assert 0 < 285 * 4 - weight.saved < (models / "sparse_linear_regression.onnx").stat().st_size
    (bias,) = [row for row in found.tensors if row.bytes == 4]
    assert (bias.stored, bias.encoding, bias.saved) == ("dense", None, 0)
    assert "tensors stored sparse: 1, which take 1140 bytes when dense" in found.notes


def test_external_data_and_repeated_tensors_are_told(padded, tmp_path):
    path = tmp_path / "out.onnx"
    so.optimize(padded, path, passes="normalize", benchmark=False, external_data=True)
    found = so.inspect(path)
    (data,) = set(tmp_path.iterdir()) - {path}
    assert found.file_bytes == path.stat().st_size + data.stat().st_size
    assert any(data.name in note for note in found.notes)
    assert "tensors that repeat the bytes of another: 1, 1024 bytes" in found.notes


def test_a_model_that_can_not_be_run_is_inspected_all_the_same():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Mystery", ["h"], ["y"], domain="my"),
    ]
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    model = model_of(
        nodes, [floats("x", [3, 4])], [floats("y", None)], [weight], opset_imports=opsets
    )
    model.graph.value_info.append(floats("h", [3, 4]))
    model.metadata_props.add(key="licence", value="mine")
    found = so.inspect(model)
    assert found.operators == {"MatMul": 1, "my::Mystery": 1}
    assert found.opsets == {"": 18, "my": 1}
    assert found.cost.macs == 3 * 4 * 4
    assert found.metadata == ("licence",)
    assert found.outputs == (("y", "tensor(float)", "?"),)
    assert any(note.startswith("not run, so MACs are counted by declared") for note in found.notes)
    assert found.tensors[0].zeros == 0.75


def test_subgraphs_functions_and_unusual_types():
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "inner"], ["t"])],
        "then",
        [],
        [floats("t", [2])],
        initializer=[numpy_helper.from_array(np.zeros(2, np.float32), "inner")],
    )
    other = helper.make_graph(
        [helper.make_node("my.twice", ["x"], ["e"], domain="my")], "else", [], [floats("e", [2])]
    )
    twice = helper.make_function(
        "my", "my.twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 18)],
    )  # fmt: skip
    narrow = np.array([0, 1, 0, 2], ml_dtypes.bfloat16)
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=other),
        helper.make_node("Cast", ["narrow"], ["z"], to=TensorProto.FLOAT),
        helper.make_node(
            "Constant", [], ["k"], value=numpy_helper.from_array(np.array(["", "word"]), "k")
        ),
    ]
    model = model_of(
        nodes,
        [floats("x", [2]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [floats("y", [2]), floats("z", [4])],
        [onnx.helper.make_tensor("narrow", TensorProto.BFLOAT16, [4], narrow.astype(np.float32))],
        functions=[twice],
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("my", 1)],
    )
    found = so.inspect(model)
    rows = {row.name: row for row in found.tensors}
    assert rows["inner"].scope.startswith("graph/If")
    assert (rows["narrow"].dtype, rows["narrow"].zeros) == ("bfloat16", 0.5)
    assert (rows["k"].dtype, rows["k"].zeros, rows["k"].bytes) == ("string", None, 4)
    assert found.functions == ("my::my.twice",)
    assert found.operators["Add"] == 2


def test_data_that_does_not_fit_is_an_error(models):
    with pytest.raises(so.DataError, match="does not fit"):
        so.inspect(models / "digits_mlp.onnx", data={"x": np.zeros((2, 3), np.float32)})


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(so.ModelError, match="no such file"):
        so.inspect(tmp_path / "nothing.onnx")


def test_what_weights_could_take(tmp_path):
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((64, 64)) < 0.1, rng.standard_normal((64, 64)), 0)
    signed = np.where(weight == 0, -0.0, weight).astype(np.float32)
    tensors = {"w": weight.astype(np.float32), "v": weight.astype(np.float32), "s": signed}
    nodes = [helper.make_node("Sum", ["x", *tensors], ["y"], name="sum")]
    given = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    model = model_of(nodes, [floats("x", [64, 64])], [floats("y", [64, 64])], given)
    rows = {row.name: row for row in so.inspect(model).tensors}
    assert rows["w"].zeros == rows["s"].zeros == pytest.approx(0.9, abs=0.02)
    assert rows["w"].density == pytest.approx(1 - rows["w"].zeros)
    assert (rows["s"].density, rows["s"].encoding, rows["s"].saved) == (1, None, 0)
    assert (rows["w"].repeats, rows["v"].repeats) == (None, "w")
    before = model.ByteSize()
    so.optimize(model, tmp_path / "b.onnx", passes="encode-sparse", only=("w",), benchmark=False)
    saved = before - len(onnx.load(tmp_path / "b.onnx").SerializeToString())
    assert abs(rows["w"].saved - saved) < 1024
    found = so.inspect(tmp_path / "b.onnx")
    assert rows["w"].encoding in {"initializer", "delta"}
    assert rows["w"].stored == "dense"
    forms = {row.stored for row in found.tensors if row.name not in {"s", "v"}}
    assert forms == ({"initializer"} if rows["w"].encoding == "initializer" else {"part"})
    assert any(
        note.startswith(("tensors decoded", "tensors stored sparse: 1")) for note in found.notes
    )


def test_dead_channels_are_told():
    weight = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    weight[:, [2, 5]] = 0
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["y"]),
        ],
        [floats("x", ["N", 4])],
        [floats("y", ["N", 3])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.ones((8, 3), np.float32), "v"),
        ],
    )
    assert "channels that remove-dead-channels would take out: 2 of w" in so.inspect(model).notes
