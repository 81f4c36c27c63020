"""Real wheels that can't be installed beside onnxruntime: give their folders to have them tried.

``pip install --no-deps --target DIR onnxruntime-gpu``, then ``STRUCTOPT_ONNX_CUDA=DIR pytest``;
the same with ``onnxruntime-openvino`` and ``STRUCTOPT_ONNX_OPENVINO``.
"""

from __future__ import annotations

import os

import pytest

import structopt_onnx as so
from structopt_onnx.runtime.device_memory import device_memory_used


def given(name):
    missing = not os.environ.get(name)
    return pytest.mark.skipif(missing, reason=f"needs {name}")


@given("STRUCTOPT_ONNX_CUDA")
@pytest.mark.skipif(device_memory_used() is not None, reason="there is a GPU")
def test_a_wheel_that_claims_cuda_gives_no_number_of_the_cpu(free_batch):
    table = so.compare_providers(free_batch, providers=["cuda"], seconds=1)
    (row,) = table.rows
    assert row.status.kind == "unavailable"
    # onnxruntime's own words, of the first library that it misses.
    assert row.status.reason.startswith("Failed to load library libonnxruntime_providers_cuda")
    assert "cannot open shared object file" in row.status.reason
    assert (row.p50_ms, row.nodes, row.relative_error) == (None, None, None)
    assert not table.comparisons


@given("STRUCTOPT_ONNX_OPENVINO")
def test_another_release_of_onnxruntime_runs_beside_this_one(free_batch):
    table = so.compare_providers(free_batch, free_batch, providers=["cpu", "openvino"], seconds=4)
    rows = table.rows[2:]
    assert [row.status.text for row in rows] == ["executed"] * 2
    assert all("onnxruntime-openvino" in row.engine for row in rows)
    assert table.rows[0].engine != rows[0].engine
    assert all(row.partitions == 1 and row.relative_error < 1e-4 for row in rows)
    timed = table.comparisons["openvino"]
    assert (timed.provider, timed.clock) == ("OpenVINOExecutionProvider", "wall")
