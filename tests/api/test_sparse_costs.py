"""Where bytes are minimized, a weight with zeros costs what it takes encoded, not dense."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import structopt_onnx as so

SIDE = 128


def chain(path, layers: int, density: float) -> None:
    """Write products with weights of which this share is not zero."""
    rng = np.random.default_rng(0)
    info = helper.make_tensor_value_info
    names = ["x", *(f"h{n}" for n in range(1, layers)), "y"]
    weights = []
    for n in range(layers):
        kept = rng.random((SIDE, SIDE)) < density
        weight = np.where(kept, rng.standard_normal((SIDE, SIDE)), 0).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{n}"))
    nodes = [
        helper.make_node("MatMul", [names[n], f"w{n}"], [names[n + 1]], name=f"node{n}")
        for n in range(layers)
    ]
    ends = [info(name, TensorProto.FLOAT, ["N", SIDE]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def optimized(path, **options):
    rng = np.random.default_rng(1)
    rows = {"x": rng.standard_normal((400, SIDE)).astype(np.float32)}
    out = path.with_name("out.onnx")
    report = so.optimize(path, out, calibration=rows, benchmark=False, **options).report
    return report, out.stat().st_size


@pytest.mark.parametrize(
    ("options", "merged"),
    [
        ({"minimize": "bytes"}, False),
        ({"minimize": "bytes", "sparse_format": "none"}, True),
        ({"minimize": "time"}, True),
    ],
)
def test_two_sparse_weights_are_one_only_where_that_is_stored_in_less(tmp_path, options, merged):
    path = tmp_path / "in.onnx"
    chain(path, 2, density=0.05)
    report, _ = optimized(path, **options)
    steps = [entry.step for entry in report.applied]
    assert ("merge-matmuls" in steps) == merged
    refused = {(r.step, r.refusal.code) for r in report.refused if r.refusal.node == "node1"}
    assert (("merge-matmuls", "does-not-pay") in refused) != merged


def test_two_weights_that_merge_into_less_are_merged_where_bytes_count(tmp_path):
    path = tmp_path / "in.onnx"
    chain(path, 2, density=0.6)
    report, _ = optimized(path, minimize="bytes")
    assert "merge-matmuls" in [entry.step for entry in report.applied]


def test_a_sparse_weight_gets_no_factors_that_are_larger_than_it_is_stored(tmp_path):
    path = tmp_path / "in.onnx"
    chain(path, 1, density=0.03)
    passes = "factor-matmul,encode-sparse"
    report, size = optimized(path, max_error=0.5, minimize="bytes", passes=passes, refit=False)
    steps = [entry.step for entry in report.applied]
    _, without = optimized(path, minimize="bytes", passes=passes)
    assert set(steps) == {"encode-sparse"}
    assert size == pytest.approx(without, abs=100)  # the record says more
    (site,) = report.plan.sites
    assert site.cost.bytes == pytest.approx(without, rel=0.1)
    assert site.cost.seconds > SIDE * SIDE * 4 / 1e12  # it is dense where it is computed with


def test_a_dense_weight_costs_what_it_did(tmp_path):
    path = tmp_path / "in.onnx"
    chain(path, 1, density=1)
    report, _ = optimized(path, max_error=0.9, minimize="bytes", passes="factor-matmul")
    (site,) = report.plan.sites
    assert site.cost.bytes == SIDE * SIDE * 4
    assert "factor-matmul" in [entry.step for entry in report.applied]


@pytest.mark.parametrize("form", ["initializer", "bitmask", "delta"])
@pytest.mark.parametrize("kinds", [None, 100])
def test_parameters_are_the_floating_point_elements_that_the_graph_holds(tmp_path, form, kinds):
    path = tmp_path / "in.onnx"
    chain(path, 1, density=0.2)
    model = onnx.load(path)
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    nonzeros = np.flatnonzero(weight)
    if kinds is not None:
        weight.flat[nonzeros] = 1 / 3 + np.arange(nonzeros.size) % kinds
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    onnx.save(model, path)
    report, _ = optimized(path, passes=f"encode-sparse{{sparse_format={form}}}")
    if form == "initializer":
        held = SIDE * SIDE
    elif kinds is not None:
        held = kinds + 1
    else:
        fillers = int((np.maximum(np.diff(nonzeros, prepend=0) - 1, 0) // 255).sum())
        held = nonzeros.size + (1 if form == "bitmask" else fillers)
    assert (report.before.cost.parameters, report.after.cost.parameters) == (SIDE * SIDE, held)
