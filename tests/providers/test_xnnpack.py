"""XNNPACK in onnxruntime-web under node, where both are there; and what is said where not."""

from __future__ import annotations

import os
import shutil
import subprocess

import numpy as np
import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.runtime.providers.fixed import lowered
from structopt_onnx.runtime.providers.status import Unavailable

NAME = "xnnpack"


@pytest.fixture
def package(node):
    """Skip where node finds no onnxruntime-web."""
    folder = os.environ.get("STRUCTOPT_ONNX_XNNPACK", "")
    paths = [folder, f"{folder}/node_modules", os.environ.get("NODE_PATH", "")]
    found = subprocess.run(
        [node, "-e", "require.resolve('onnxruntime-web')"],
        env=os.environ | {"NODE_PATH": os.pathsep.join(paths)},
        capture_output=True,
        check=False,
    )
    if found.returncode:
        pytest.skip("needs onnxruntime-web in NODE_PATH or STRUCTOPT_ONNX_XNNPACK")


@pytest.mark.usefixtures("package")
def test_convolutions_and_products_run_on_it_and_the_rest_on_the_cpu(free_batch):
    (row,) = so.compare_providers(free_batch, providers=[NAME], seconds=1).rows
    assert row.status.kind == "partial"
    assert row.engine.startswith("wasm, onnxruntime-web 1.16.3 under node ")
    assert 2 <= row.taken < row.nodes
    assert "Conv" not in row.left
    assert "MatMul" not in row.left
    assert row.relative_error < 1e-5
    assert row.p50_ms is None


@pytest.mark.usefixtures("package")
def test_a_newer_opset_and_format_are_brought_down(free_batch, tmp_path):
    proto = onnx.version_converter.convert_version(onnx.load(free_batch), 21)
    proto.ir_version = 10
    newer = tmp_path / "newer.onnx"
    onnx.save(proto, newer)
    before = newer.read_bytes()
    (row,) = so.compare_providers(newer, providers=[NAME], seconds=1).rows
    assert row.status.kind == "partial"
    assert newer.read_bytes() == before


@pytest.mark.usefixtures("package")
def test_what_it_takes_no_node_of_is_unavailable(tmp_path):
    path = tmp_path / "erf.onnx"
    onnx.save(onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]> g (float[1,3] x) => (float[1,3] y) { y = Erf(x) }
    """), path)  # fmt: skip
    (row,) = so.compare_providers(path, providers=[NAME], seconds=1).rows
    assert row.status.text == "unavailable (it took none of 1 nodes)"


@pytest.mark.usefixtures("package")
def test_integers_and_booleans_travel_there_and_back(tmp_path):
    path = tmp_path / "types.onnx"
    onnx.save(onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2,3] x, int64[2] i, bool[3] b) => (float[2,3] y, int64[2] j, bool[3] n) {
          y = Softmax(x)  j = Neg(i)  n = Not(b)
        }
    """), path)  # fmt: skip
    feed = {
        "x": np.array([[1, 2, 3], [4, 5, 9]], np.float32),
        "i": np.array([1 << 40, -7]),
        "b": np.array([True, False, True]),
    }
    (row,) = so.compare_providers(path, providers=[NAME], data=[feed], seconds=1).rows
    assert row.status.text == "partial (1 of 3 nodes)"
    assert dict(row.left) == {"Neg": 1, "Not": 1}


def test_without_node_it_is_unavailable(free_batch, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (row,) = so.compare_providers(free_batch, providers=[NAME], seconds=1).rows
    assert row.status.text == "unavailable (node is not installed)"


@pytest.mark.usefixtures("node")
def test_without_the_package_it_is_unavailable(free_batch, monkeypatch, tmp_path):
    monkeypatch.delenv("STRUCTOPT_ONNX_XNNPACK", raising=False)
    monkeypatch.delenv("NODE_PATH", raising=False)
    (row,) = so.compare_providers(free_batch, providers=[f"{NAME}={tmp_path}"], seconds=1).rows
    assert row.status.reason == "no onnxruntime-web in NODE_PATH or the folder given"


def test_an_operator_that_has_no_way_down_is_the_reason():
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 22]> g (float[1,3] x) => (float[1,3] y) {
          y = Gelu(x)
        }
    """)
    assert lowered(proto, 22, 9).ir_version == 9
    with pytest.raises(Unavailable, match="opset 22, 19 is the newest there: "):
        lowered(proto, 19, 9)
