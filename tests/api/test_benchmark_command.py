from __future__ import annotations

import onnx
import pytest

import structopt_onnx as so


def test_two_models_are_compared(padded, models, calibration):
    found = so.benchmark(padded, models / "digits_mlp.onnx", data=calibration, seconds=3)
    assert found.b is not None
    assert found.a.file_bytes == padded.stat().st_size
    assert found.feeds == 8
    assert found.a.p50 > 0
    assert found.summary()


def test_models_in_memory_are_measured_alone(padded):
    for source in (onnx.load(padded), padded.read_bytes()):
        found = so.benchmark(source, seconds=2)
        assert found.b is None
        assert found.verdict == "not measured"
        assert found.a.p50 > 0


def test_errors(padded, tmp_path):
    with pytest.raises(so.UsageError, match="replicates must be at least 8"):
        so.benchmark(padded, replicates=2)
    with pytest.raises(so.ModelError, match="no such file"):
        so.benchmark(padded, tmp_path / "nothing.onnx")
