"""A target that is not this machine: what it changes in a run, and what the report says of it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import pytest

import structopt_onnx as so
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.errors import UsageError
from structopt_onnx.report.json import to_json
from structopt_onnx.runtime.session import Session

_STEPS, _BATCH, _FEATURES, _HIDDEN = 6, 1, 4, 5


def _model(steps: int | str = _STEPS) -> onnx.ModelProto:
    rng = np.random.default_rng(0)

    def weight(name: str, *dims: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(rng.standard_normal(dims).astype(np.float32), name)

    float_ = onnx.TensorProto.FLOAT
    graph = oh.make_graph(
        [
            oh.make_node("Relu", ["x"], ["a"]),
            oh.make_node("LSTM", ["a", "w", "r"], ["", "h"], "cell", hidden_size=_HIDDEN),
            oh.make_node("Tanh", ["h"], ["y"]),
        ],
        "g",
        [oh.make_tensor_value_info("x", float_, [steps, _BATCH, _FEATURES])],
        [oh.make_tensor_value_info("y", float_, [1, _BATCH, _HIDDEN])],
        [weight("w", 1, 4 * _HIDDEN, _FEATURES), weight("r", 1, 4 * _HIDDEN, _HIDDEN)],
    )
    return oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])


def test_passes_are_told_the_target():
    steps = OptimizeOptions(target="nnapi").steps()
    told = {step.name for step in steps if getattr(step, "target", None) == "nnapi"}
    assert {"unroll-recurrence", "factor-matmul"} <= told
    text = "unroll-recurrence,factor-matmul{target=cpu},normalize"
    steps = OptimizeOptions(target="nnapi", passes=text).steps()
    assert [getattr(step, "target", None) for step in steps] == ["nnapi", "cpu", None]
    with pytest.raises(UsageError, match="target is one of cpu, nnapi, coreml, qnn"):
        OptimizeOptions(target="tpu")


@pytest.mark.parametrize("target", ["nnapi", "coreml", "qnn"])
def test_a_recurrence_is_unrolled_and_the_coverage_told(tmp_path, target: str):
    out = tmp_path / "out.onnx"
    result = so.optimize(_model(), out, target=target, benchmark_seconds=0.5)
    report = result.report
    assert "unroll-recurrence" in {entry.step for entry in report.applied}
    assert "LSTM" not in {node.op_type for node in onnx.load(out).graph.node}
    before, after = report.coverage_before, report.coverage_after
    assert (before.nodes, before.supported, before.partitions) == (3, 2, 2)
    assert before.unsupported == ("ai.onnx:LSTM",)
    assert after.supported == after.nodes > 50
    assert after.partitions == 1
    # It is larger, and maybe slower on this machine: neither is a reason for this target.
    assert report.after.file_bytes > report.before.file_bytes
    assert not report.rolled_back
    x = np.random.default_rng(1).standard_normal((_STEPS, _BATCH, _FEATURES)).astype(np.float32)
    original = Session(_model().SerializeToString()).run({"x": x})["y"]
    np.testing.assert_allclose(Session(out).run({"x": x})["y"], original, atol=1e-5)
    text = str(report).replace("\n", " ")
    assert f"predicted for {target}: 2 of 3 nodes in 2 partitions -> " in text
    assert f"time was measured on the CPU, not on {target}" in text
    told = json.loads(to_json(report))
    assert told["coverage_before"]["share"] == pytest.approx(2 / 3)
    assert told["coverage_after"]["basis"] == "predicted"


def test_the_cpu_keeps_the_recurrence_and_tells_no_coverage():
    report = so.optimize(_model(), benchmark=False).report
    assert not report.applied
    assert report.coverage_before is None
    assert report.coverage_after is None
    assert "predicted for" not in str(report)
    assert json.loads(to_json(report))["coverage_after"] is None


def test_explain_says_what_the_target_lacks_and_why_it_stays():
    report = so.explain(_model("T"), target="nnapi")
    refused = [entry.refusal for entry in report.refused if entry.step == "unroll-recurrence"]
    assert [refusal.code for refusal in refused] == ["length-not-fixed"]
    text = str(report)
    assert "predicted for nnapi: 2 of 3 nodes in 2 partitions -> 2 of 3" in text
    assert "nnapi does not list ai.onnx:LSTM" in text
    assert "inputs have free dimensions" in text
    applied = so.explain(_model(), target="nnapi").applied
    assert [entry.title for entry in applied if entry.step == "unroll-recurrence"] == [
        "LSTM cell: 6 steps, nnapi lacks the operator"
    ]
