from __future__ import annotations

import numpy as np
import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.api import refit
from structopt_onnx.report.text import render_text

WIDTH, LATENT = 32, 4


def chain(layers: int = 6) -> onnx.ModelProto:
    """Gemm, Relu, Gemm, Relu...: random weights with a falling spectrum."""
    rng = np.random.default_rng(0)
    nodes, constants, value = [], [], "x"
    for k in range(layers):
        left, right = (np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] for _ in range(2))
        weight = (left * (2.0 / (1 + np.arange(WIDTH)) ** 0.7)) @ right * 1.5
        constants += [
            onnx.numpy_helper.from_array(weight.astype(np.float32), f"w{k}"),
            onnx.numpy_helper.from_array(rng.normal(size=WIDTH).astype(np.float32) * 0.1, f"b{k}"),
        ]
        last = k == layers - 1
        made = "y" if last else f"h{k}"
        nodes.append(onnx.helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [made], f"n{k}"))
        value = made
        if not last:
            nodes.append(onnx.helper.make_node("Relu", [made], [f"a{k}"], f"relu{k}"))
            value = f"a{k}"
    shape = onnx.TensorProto.FLOAT, ["n", WIDTH]
    graph = onnx.helper.make_graph(
        nodes,
        "chain",
        [onnx.helper.make_tensor_value_info("x", *shape)],
        [onnx.helper.make_tensor_value_info("y", *shape)],
        constants,
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def rows(count: int) -> dict[str, np.ndarray]:
    """Vectors of a few directions and a little noise."""
    rng = np.random.default_rng(9)
    mixing = rng.normal(size=(LATENT, WIDTH)) / LATENT**0.5
    noise = 0.05 * rng.normal(size=(count, WIDTH))
    return {"x": (rng.normal(size=(count, LATENT)) @ mixing + noise).astype(np.float32)}


def cut(keep: str = "parameters=0.3", **options) -> so.Result:
    return so.optimize(
        chain(),
        calibration=rows(400),
        passes="factor-matmul{rank_multiple=4}",
        keep=keep,
        benchmark=False,
        **options,
    )


def weights(result: so.Result) -> dict[str, np.ndarray]:
    return {n: v.const_value.numpy() for n, v in result.model.graph.initializers.items()}


@pytest.fixture(scope="module")
def plain() -> so.Result:
    return cut(refit=False)


@pytest.fixture(scope="module")
def fitted() -> so.Result:
    return cut()


def test_a_chain_of_relus_gains_on_data_that_had_no_say(plain, fitted):
    before, after = plain.report.plan, fitted.report.plan
    assert before.refit is None
    assert [s.chosen for s in before.sites] == [s.chosen for s in after.sites]
    assert after.refit.factors == sum(s.chosen is not None for s in after.sites)
    assert 0 < after.refit.kept <= after.refit.factors
    assert after.refit.before == before.probe_error
    assert after.refit.after == after.probe_error
    assert after.final_error < 0.95 * before.final_error


def test_what_does_harm_on_the_probe_part_is_not_kept(plain, monkeypatch):
    real, calls = refit.refitted, []

    def harmful(factor, bias, moments, **options):
        calls.append(factor.shape)
        found, offset = real(factor, bias, moments, **options)
        # Every second one is as wrong as a fit can be.
        return (found, offset) if len(calls) % 2 else (-factor, offset)

    monkeypatch.setattr(refit, "refitted", harmful)
    planted = cut()
    found = planted.report.plan.refit
    assert len(calls) == found.factors
    assert found.kept > 0
    assert found.after < found.before == plain.report.plan.probe_error
    applied = [entry for entry in planted.report.applied if entry.step == "refit"]
    assert {entry.option for entry in applied} <= {"round 1", "round 3", "round 5"}
    changed = {name for entry in applied for name in entry.site}
    for name, array in weights(plain).items():
        if name.endswith("_out") and name not in changed:
            np.testing.assert_array_equal(weights(planted)[name], array)


def test_nothing_is_kept_where_all_does_harm(plain, monkeypatch):
    monkeypatch.setattr(refit, "refitted", lambda factor, bias, *_, **__: (-factor, bias))
    planted = cut()
    found = planted.report.plan.refit
    assert found.factors > found.kept == 0
    assert found.after == found.before
    assert weights(planted).keys() == weights(plain).keys()
    for name, array in weights(plain).items():
        np.testing.assert_array_equal(weights(planted)[name], array)
    assert "refit not kept" in render_text(planted.report)


def test_it_is_the_same_every_time(fitted):
    again = weights(cut())
    assert list(again) == list(weights(fitted))
    for name, array in weights(fitted).items():
        np.testing.assert_array_equal(again[name], array)


def test_the_report_says_what_it_brought(fitted):
    found = fitted.report.plan.refit
    told = f"refit kept for {found.kept} of {found.factors} last factors"
    assert told in render_text(fitted.report)
    applied = [entry for entry in fitted.report.applied if entry.step == "refit"]
    assert len(applied) == found.kept
    assert all(entry.after.nodes == entry.before.nodes for entry in applied)


def test_made_up_samples_are_not_fitted_to():
    report = so.optimize(chain(), keep="parameters=0.3", benchmark=False).report
    assert report.plan.refit is None


def test_layers_chosen_by_name_are_refitted_too():
    report = cut("parameters=0.4", only=("n[1-5]",)).report
    assert {w for s in report.plan.sites if s.chosen for w in s.weights}.isdisjoint({"w0"})
    assert report.plan.refit.kept > 0
    assert all(entry.step != "refit" for entry in report.refused)
