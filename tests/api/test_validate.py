from __future__ import annotations

import numpy as np
import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.report.json import to_json


@pytest.fixture
def off(padded):
    """The padded network with one weight changed in the middle."""
    proto = onnx.load(padded)
    weight = next(t for t in proto.graph.initializer if t.name == "2.weight")
    weight.raw_data = (onnx.numpy_helper.to_array(weight) * np.float32(1.01)).tobytes()
    return proto


def test_a_model_may_stand_for_itself(padded):
    report = so.validate(padded, padded)
    assert report.passed
    assert report.a == report.b == str(padded)
    assert report.samples.synthetic
    assert report.samples.count == 8
    assert report.drift is None


def test_every_kind_of_source(padded):
    proto = onnx.load(padded)
    assert so.validate(proto, padded.read_bytes()).passed
    assert so.validate(str(padded), so.optimize(proto, benchmark=False).model).passed


def test_a_difference_is_reported_with_the_first_tensor_that_is_off(padded, off, calibration):
    report = so.validate(padded, off, data=calibration)
    assert not report.passed
    assert report.samples.origin == calibration.name
    assert report.drift.tensor == "linear_1"
    assert report.drift.node == "node_linear_1"
    assert so.validate(padded, off, data=calibration, drift=False).drift is None
    assert '"passed": false' in to_json(report)


def test_a_budget_covers_a_difference(padded, off, calibration):
    assert so.validate(padded, off, data=calibration, max_error=0.05).passed
    assert so.validate(padded, off, data=calibration, max_error={"logits": 0.05}).passed
    narrow = so.validate(padded, off, data=calibration, max_error={"logits": 1e-4})
    assert not narrow.passed
    assert narrow.drift.tolerance == 1e-4


def test_a_model_of_another_interface_is_no_stand_in(padded, models):
    report = so.validate(padded, models / "digits_cnn.onnx")
    assert not report.passed
    assert report.drift is None
    # Same names, other shapes: it can't be run on the original's inputs.
    assert any("shape" in line for line in report.validation.failures)


def test_errors(padded, tmp_path):
    with pytest.raises(so.ModelError, match="no such file"):
        so.validate(padded, tmp_path / "nothing.onnx")
    with pytest.raises(so.DataError, match="does not fit"):
        so.validate(padded, padded, data={"y": np.zeros(3, np.float32)})
    with pytest.raises(so.UsageError, match="max_error"):
        so.validate(padded, padded, max_error=-1)
