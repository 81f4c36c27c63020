from __future__ import annotations

import importlib
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import structopt_onnx as so


@pytest.fixture
def source(models):
    return models / "sparse_linear_regression.onnx"


def test_sparse_becomes_dense_with_the_same_outputs(source, models, tmp_path, error_between):
    out = tmp_path / "dense.onnx"
    result = so.densify(source, out)
    assert (result.count, result.verified) == (1, True)
    assert result.bytes_before == source.stat().st_size
    assert result.bytes_after == out.stat().st_size > result.bytes_before
    graph = onnx.load(out).graph
    assert not graph.sparse_initializer
    assert {t.name for t in graph.initializer} >= {
        t.values.name for t in onnx.load(source).graph.sparse_initializer
    }
    onnx.checker.check_model(out, full_check=True)
    with np.load(models / "sparse_linear_regression_test.npz") as arrays:
        assert error_between(source, out, [{"x": arrays["x"]}]) == 0


def test_it_may_be_done_in_place(source, tmp_path):
    path = tmp_path / "model.onnx"
    shutil.copyfile(source, path)
    result = so.densify(path, path)
    assert result.bytes_before == source.stat().st_size
    assert not onnx.load(path).graph.sparse_initializer
    assert so.densify(path, path).count == 0


def test_a_sparse_constant_becomes_dense(tmp_path):
    sparse = onnx.SparseTensorProto(dims=[2, 3])
    sparse.values.CopyFrom(helper.make_tensor("", TensorProto.FLOAT, [1], [5.0]))
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [1], [4]))
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=sparse),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    before = model.SerializeToString()
    result = so.densify(model, tmp_path / "dense.onnx")
    assert result.count == 1
    constant = onnx.load(tmp_path / "dense.onnx").graph.node[0].attribute[0]
    assert (constant.name, list(constant.t.dims)) == ("value", [2, 3])
    assert model.SerializeToString() == before


def test_a_model_that_can_not_be_run_is_written_unverified(source, tmp_path):
    proto = onnx.load(source)
    last = proto.graph.node[-1]
    proto.graph.node.append(helper.make_node("Mystery", [last.output[0]], ["mystery"], domain="my"))
    proto.opset_import.add(domain="my", version=1)
    proto.graph.output.add().CopyFrom(proto.graph.output[0])
    proto.graph.output[-1].name = "mystery"
    result = so.densify(proto, tmp_path / "dense.onnx")
    assert (result.count, result.verified) == (1, False)


def test_other_outputs_are_not_written(source, tmp_path, monkeypatch):
    module = importlib.import_module("structopt_onnx.api.densify")
    real = module.validate_models
    monkeypatch.setattr(
        module,
        "validate_models",
        lambda *models, **options: replace(real(*models, **options), interface=("planted",)),
    )
    out = tmp_path / "dense.onnx"
    with pytest.raises(so.ValidationFailed, match="not densified: planted"):
        so.densify(source, out)
    assert list(tmp_path.iterdir()) == []
