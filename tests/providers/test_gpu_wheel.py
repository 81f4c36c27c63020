"""The real onnxruntime-gpu on a machine without a GPU: give its folder to have it tried.

``pip install --no-deps --target DIR onnxruntime-gpu``, then ``STRUCTOPT_ONNX_CUDA=DIR pytest``.
"""

from __future__ import annotations

import os

import pytest

import structopt_onnx as so
from structopt_onnx.runtime.device_memory import device_memory_used

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("STRUCTOPT_ONNX_CUDA"), reason="needs STRUCTOPT_ONNX_CUDA"
    ),
    pytest.mark.skipif(device_memory_used() is not None, reason="there is a GPU"),
]


def test_a_wheel_that_claims_cuda_gives_no_number_of_the_cpu(free_batch):
    table = so.compare_providers(free_batch, providers=["cuda"], seconds=1)
    (row,) = table.rows
    assert row.status.kind == "unavailable"
    # onnxruntime's own words, of the first library that it misses.
    assert row.status.reason.startswith("Failed to load library libonnxruntime_providers_cuda")
    assert "cannot open shared object file" in row.status.reason
    assert (row.p50_ms, row.nodes, row.relative_error) == (None, None, None)
    assert not table.comparisons
