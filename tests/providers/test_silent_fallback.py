"""A provider that onnxruntime claims and does not use is found out, whatever way it fails."""

from __future__ import annotations

import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.runtime.comparison import Comparison


def cuda_row(model, folder):
    table = so.compare_providers(model, providers=["cpu", f"cuda={folder}"], seconds=1)
    cpu, cuda = table.rows
    assert (cpu.provider, cpu.status.kind) == ("cpu", "executed")
    assert cpu.p50_ms is not None or cpu.not_timed
    assert cuda.provider == "cuda"
    assert "cuda" not in table.comparisons
    return cuda


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("no nodes", "it took none of 5 nodes"),
        ("wrong", "wrong values: output 'y': relative L2 error 0.1 is over the limit 0.02"),
        ("fails", "CUDA failure 700: an illegal memory access was encountered"),
        ("absent", "Failed to load library libcuda_provider.so with error: libcublasLt.so"),
    ],
)  # fmt: skip
def test_what_did_not_run_there_is_unavailable_with_the_reason(how, reason, free_batch, pretending):
    row = cuda_row(free_batch, pretending(how))
    assert row.status.kind == "unavailable"
    assert row.status.reason.startswith(reason)
    # No number of the CPU under another provider's name.
    assert (row.p50_ms, row.max_abs, row.relative_error, row.nodes) == (None, None, None, None)
    assert (row.runs, dict(row.left)) == (0, {})


def test_the_same_pretence_with_right_values_counts_as_run(free_batch, pretending):
    # So the tests above do not pass for another reason than the failure that they plant.
    row = cuda_row(free_batch, pretending("right"))
    assert row.status.text == "executed"
    assert row.relative_error < 1e-6
    # There is no GPU to bind inputs on.
    assert row.p50_ms is None
    assert row.not_timed


def test_what_the_cpu_does_for_it_is_counted(free_batch, pretending):
    row = cuda_row(free_batch, pretending("partial"))
    assert row.status.text == "partial (4 of 5 nodes)"
    assert dict(row.left) == {"MatMul": 1}


def test_a_wheel_without_the_provider_says_what_to_install(free_batch):
    table = so.compare_providers(free_batch, providers=["directml"], seconds=1)
    (row,) = table.rows
    assert row.status.kind == "unavailable"
    assert "onnxruntime-directml has it" in row.status.reason


def test_the_probe_finds_it_out_too(pretending):
    found = so.providers(["cpu", f"cuda={pretending('no nodes')}"]).providers
    assert [one.status.kind for one in found] == ["executed", "unavailable"]
    assert found[1].status.reason == "it took none of 5 nodes"


def test_the_cpu_is_timed_under_its_own_name(free_batch):
    table = so.compare_providers(free_batch, free_batch, providers=["cpu"], seconds=4)
    assert isinstance(table.comparisons["cpu"], Comparison)
    assert table.comparisons["cpu"].provider == "CPUExecutionProvider"
    for row in table.rows:
        assert row.status.text == "executed"
        assert (row.taken, row.nodes) == (5, 5)
        assert row.minimum_ms <= row.p50_ms <= row.p90_ms
        assert row.peak_rss_bytes > 1 << 20
    assert table.shapes == ("x float32[1,3,8,8]",)
    assert table.to_json()["rows"][0]["status"]["text"] == "executed"


def test_names_and_folders_that_do_not_exist_are_refused(free_batch, tmp_path):
    with pytest.raises(so.UsageError, match="'gpu' is none of cpu, cuda"):
        so.providers(["gpu"])
    with pytest.raises(so.UsageError, match="no such folder"):
        so.compare_providers(free_batch, providers=[f"qnn={tmp_path / 'nothing'}"])


def test_a_model_that_does_not_take_the_inputs_is_named(free_batch, tmp_path):
    other = tmp_path / "other.onnx"
    onnx.save(
        onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]> g (float[1,3,9,8] x) => (float[1,3,9,8] y) {
          y = Relu(x)
        }
    """),
        other,
    )
    with pytest.raises(so.ModelError, match=r"other\.onnx: its shapes can't be fixed"):
        so.compare_providers(free_batch, other, providers=["cpu"])
