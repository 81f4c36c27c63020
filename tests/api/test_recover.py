"""Weights of a plan fine-tuned to the original's outputs."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.api import recover as recovering
from structopt_onnx.model.saving import to_proto
from structopt_onnx.report.text import render_text

if os.environ.get("STRUCTOPT_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs torch: pip install '.[export]'")

from structopt_onnx.recovery import tuning

WIDTH, LATENT = 24, 4


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """A few steps show what is to be shown."""
    real = tuning.Pace
    monkeypatch.setattr(recovering, "usable_cores", lambda: 1)
    monkeypatch.setattr(tuning, "Pace", lambda seconds: real(120, seconds, 6, 6))


def network(middle: str = "Tanh") -> onnx.ModelProto:
    """Three layers whose inputs lie near a few directions."""
    rng = np.random.default_rng(0)
    nodes, constants, value = [], [], "x"
    for k in range(3):
        weight = rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
        constants += [
            onnx.numpy_helper.from_array(weight.astype(np.float32), f"w{k}"),
            onnx.numpy_helper.from_array(rng.normal(size=WIDTH).astype(np.float32) * 0.1, f"b{k}"),
        ]
        made = "y" if k == 2 else f"h{k}"
        nodes.append(onnx.helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [made], f"n{k}"))
        if k < 2:
            nodes.append(onnx.helper.make_node(middle, [made], [f"a{k}"], f"middle{k}"))
            value = f"a{k}"
    shape = onnx.TensorProto.FLOAT, ["n", WIDTH]
    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [onnx.helper.make_tensor_value_info("x", *shape)],
        [onnx.helper.make_tensor_value_info("y", *shape)],
        constants,
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def rows(count: int = 400, seed: int = 9) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(3).normal(size=(LATENT, WIDTH)) / LATENT**0.5
    noise = 0.3 * rng.normal(size=(count, WIDTH))
    return {"x": (rng.normal(size=(count, LATENT)) @ mixing + noise).astype(np.float32)}


def cut(model: onnx.ModelProto | None = None, **options) -> so.Result:
    return so.optimize(
        network() if model is None else model,
        passes="factor-matmul{rank_multiple=4}",
        benchmark=False,
        **{"calibration": rows(), "keep": "parameters=0.7", "refit": False} | options,
    )


def test_lowers_the_error_on_the_final_part_at_the_same_cost():
    plain, tuned = cut().report, cut(recover=True).report
    told = tuned.plan.recovery
    assert told.kept
    assert told.after < told.before == plain.plan.probe_error
    assert tuned.plan.final_error < 0.98 * plain.plan.final_error
    assert tuned.after.cost.parameters == plain.after.cost.parameters
    assert tuned.applied[-1].step == "recover"
    assert "recovery kept: " in render_text(tuned)


def test_what_no_rewrite_touched_stays():
    original, found = network(), to_proto(cut(recover=True, skip=("n1",)).model)
    known = {i.name: i.raw_data for i in original.graph.initializer}
    kept = {i.name: i.raw_data for i in found.graph.initializer if i.name in known}
    assert {"w1", "b1"} <= set(kept)
    assert all(known[name] == kept[name] for name in ("w1", "b1"))


def test_is_the_same_by_the_seed():
    first, second = (to_proto(cut(recover=True, seed=3).model) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_a_plan_for_a_looser_limit_is_tuned_until_it_meets_the_users():
    limit = 0.4
    plain = cut(keep=None, max_error=limit, minimize="parameters").report
    tuned = cut(keep=None, max_error=limit, minimize="parameters", recover=True).report
    assert tuned.plan.final_error <= limit
    assert tuned.validation.passed
    assert tuned.after.cost.parameters < plain.after.cost.parameters


def test_the_limits_told_are_the_users():
    drop = 0.05
    report = cut(
        keep=None, metric="agreement", max_drop=drop, minimize="parameters", recover=True
    ).report
    assert report.plan.metric.max_drop == drop
    assert report.plan.budget is None
    if report.plan.final_error is not None:
        assert report.plan.metric.drop <= drop
        assert report.plan.final_evaluations >= 2


def test_weights_that_hold_few_values_keep_them():
    plain, tuned = (
        so.optimize(
            network(),
            passes="prune-weights,round-nonzeros,encode-sparse",
            calibration=rows(),
            minimize="bytes",
            sparse_format="auto",
            max_error=0.1,
            benchmark=False,
            recover=recover,
        ).report
        for recover in (False, True)
    )
    assert tuned.after.file_bytes <= 1.1 * plain.after.file_bytes


def test_what_is_worse_on_the_final_part_is_not_kept(monkeypatch):
    real = recovering._tuned

    def spoiled(*arguments, **more):
        tuned = real(*arguments, **more)
        return replace(tuned, weights={n: 3 * w for n, w in tuned.weights.items()})

    monkeypatch.setattr(recovering, "_tuned", spoiled)
    plain, tuned = cut(), cut(recover=True)
    assert not tuned.report.plan.recovery.kept
    assert tuned.report.plan.recovery.final_after > tuned.report.plan.recovery.final_before
    assert "recovery not kept" in render_text(tuned.report)
    assert [a.title for a in tuned.report.applied] == [a.title for a in plain.report.applied]


def test_an_operator_that_no_gradient_goes_through_is_named():
    tuned = cut(network("Selu"), recover=True)
    assert not tuned.report.plan.recovery.kept
    assert "Selu can't be run under autograd" in tuned.report.plan.recovery.stopped
    assert "recovery not done: node 'middle" in render_text(tuned.report)


def test_without_torch_it_is_said_before_any_work(monkeypatch):
    monkeypatch.setattr(recovering, "find_spec", lambda _: None)
    with pytest.raises(so.UsageError, match=r"pip install 'structopt-onnx\[export\]'"):
        so.optimize("missing.onnx", recover=True, keep="parameters=0.5")


def test_the_record_leads_to_the_weights_again(tmp_path):
    out = tmp_path / "out.onnx"
    cut(recover=True, keep="parameters=0.4").save(out)
    found = so.bisect(network(), out, calibration=rows(), max_error=1e-6)
    assert found.patches >= 2
    whole = so.bisect(network(), out, calibration=rows(), max_error=10.0)
    assert whole.culprit is None


def test_a_result_is_recovered_afterwards_on_other_samples():
    plain = cut()
    tuned = so.recover(plain, rows(600, seed=11), minutes=1)
    assert tuned.report.plan.recovery.kept
    assert tuned.report.validation.passed
    fresh = rows(100, seed=12)
    errors = [
        so.validate(network(), r.model, data=fresh, max_error=10, drift=False).validation
        for r in (plain, tuned)
    ]
    assert errors[1].exact.error < errors[0].exact.error


def test_a_result_without_lossy_rewrites_is_refused():
    exact = so.optimize(network(), benchmark=False)
    with pytest.raises(so.UsageError, match="lossy rewrites"):
        so.recover(exact)
