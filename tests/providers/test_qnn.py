"""QNN on the simulator of its HTP backend, where the package is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest

import structopt_onnx as so

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None,
    reason="needs the extra `qnn`",
)


@pytest.fixture
def feed():
    return [{"x": np.random.default_rng(5).standard_normal((2, 3, 8, 8)).astype(np.float32)}]


def test_an_open_model_is_simulated_with_its_shapes_fixed(free_batch, feed):
    table = so.compare_providers(free_batch, providers=["qnn"], data=feed, seconds=1)
    (row,) = table.rows
    assert row.status.text == "simulated"
    assert row.engine.startswith("HTP simulator, arch 75; onnxruntime ")
    assert table.shapes == ("x float32[2,3,8,8]",)
    assert row.taken == row.nodes
    assert row.partitions == 1
    # One operator of the device's graph per node, give or take its changes of layout.
    assert 4 <= row.graph_ops <= 10
    assert row.context_bytes > 10_000
    # In float16, so near the CPU and not equal to it.
    assert 1e-6 < row.relative_error < 1e-2
    # What a simulator takes is no time of the device.
    assert (row.p50_ms, row.runs) == (None, 0)
    assert not table.comparisons


def test_nodes_that_it_leaves_to_the_cpu_are_told(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[2,2] x) => (float[2,2] z) { a = Sigmoid(x)  b = Det(a)  c = Mul(a, b)  z = Tanh(c) }
    """
    proto = onnx.parser.parse_model(text)
    path = tmp_path / "det.onnx"
    onnx.save(proto, path)
    feed = [{"x": np.array([[1, -2], [3, 4]], np.float32)}]
    (row,) = so.compare_providers(path, providers=["qnn"], data=feed, seconds=1).rows
    assert row.status.text == "simulated"
    assert dict(row.left) == {"Det": 1}
    assert (row.taken, row.nodes) == (3, 4)
    assert row.partitions == 2


def test_two_models_stand_side_by_side(free_batch, feed):
    table = so.compare_providers(free_batch, free_batch, providers=["qnn"], data=feed, seconds=1)
    first, second = table.rows
    assert first.graph_ops == second.graph_ops
    assert first.context_bytes == second.context_bytes
