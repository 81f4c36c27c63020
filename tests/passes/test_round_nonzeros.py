from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import structopt_onnx as so
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.passes.sparsity.round_nonzeros import RoundNonzeros
from structopt_onnx.runtime.session import Session

ROWS, COLUMNS = 128, 96


def weight_of(density=0.3, seed=0):
    rng = np.random.default_rng(seed)
    kept = rng.random((ROWS, COLUMNS)) < density
    return np.where(kept, rng.standard_normal((ROWS, COLUMNS)), 0).astype(np.float32)


def model_of(weight):
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [info("x", TensorProto.FLOAT, ["N", ROWS])],
        [info("y", TensorProto.FLOAT, ["N", COLUMNS])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def choices(weight, **options):
    facts = Facts(load(model_of(weight)))
    return list(RoundNonzeros(**options).propose(facts.scopes[0], facts))


def test_errors_and_bytes_on_offer():
    (choice,) = choices(weight_of())
    half, table = choice.options
    assert (half.label, table.label) == ("float16", "255 values")
    assert 0 < half.error < 1e-6 < table.error < 1e-3
    assert table.after.bytes < half.after.bytes < half.before.bytes < 4 * ROWS * COLUMNS


@pytest.mark.parametrize(
    ("weight", "options"),
    [
        (weight_of(1.0), {}),
        (weight_of(), {"sparse_format": "none"}),
        (weight_of(), {"sparse_format": "initializer"}),
        (weight_of(), {"target": "nnapi"}),
        (weight_of().astype(np.float64), {}),
        (np.where(weight_of() > 2, np.inf, weight_of()).astype(np.float32), {}),
        (weight_of().astype(np.float16).astype(np.float32)[:20], {}),
    ],
)
def test_where_nothing_is_offered(weight, options):
    if weight.dtype == np.float64:
        proto = model_of(weight_of())
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
        facts = Facts(load(_as_double(proto)))
        assert not list(RoundNonzeros(**options).propose(facts.scopes[0], facts))
        return
    if weight.shape[0] != ROWS:
        (choice,) = choices(np.concatenate([weight] * 6 + [weight[:8]]))
        assert [option.label for option in choice.options] == ["255 values"]
        return
    assert choices(weight, **options) == []


def _as_double(proto):
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = TensorProto.DOUBLE
    return proto


def test_numbers_too_large_for_float16_become_a_table():
    (choice,) = choices(weight_of() * np.float32(1e5))
    assert [option.label for option in choice.options] == ["255 values"]


@pytest.mark.parametrize(
    ("budget", "label", "share"), [(0.002, "float16", 0.24), (0.03, "255 values", 0.2)]
)
def test_the_planner_takes_what_the_budget_allows(budget, label, share, tmp_path):
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model_of(weight_of()), source)
    rng = np.random.default_rng(1)
    samples = [{"x": rng.standard_normal((4, ROWS)).astype(np.float32)} for _ in range(30)]
    report = so.optimize(
        source,
        out,
        calibration=samples,
        max_error=budget,
        minimize="bytes",
        passes="round-nonzeros,encode-sparse",
        benchmark=False,
    ).report
    steps = [(entry.step, entry.option) for entry in report.applied]
    assert steps == [("round-nonzeros", label), ("encode-sparse", None)]
    assert out.stat().st_size < share * source.stat().st_size
    a, b = (Session(path).run(samples[0])["y"] for path in (source, out))
    error = np.linalg.norm(a - b) / np.linalg.norm(a)
    assert 0 < error < budget
    found = so.bisect(source, out, calibration=samples, max_error=error / 10)
    assert found.culprit is not None
    assert found.culprit.step == "round-nonzeros"


def test_the_name_filter_holds(tmp_path):
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model_of(weight_of()), source)
    rng = np.random.default_rng(1)
    samples = [{"x": rng.standard_normal((4, ROWS)).astype(np.float32)} for _ in range(30)]
    report = so.optimize(
        source, out, calibration=samples, max_error=0.1, minimize="bytes", skip=("w",),
        passes="round-nonzeros,encode-sparse", benchmark=False,
    ).report  # fmt: skip
    assert not report.applied
    assert {entry.refusal.code for entry in report.refused} == {"name-filter"}
