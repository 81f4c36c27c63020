from __future__ import annotations

import numpy as np
import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.api import refit, refit_fits
from structopt_onnx.api.refit_fits import BOTH, KINDS, LAST, THROUGH, Fitting
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
        passes="factor-matmul{rank_multiple=4}",
        keep=keep,
        benchmark=False,
        **{"calibration": rows(400)} | options,
    )


@pytest.fixture
def only(monkeypatch):
    """Let factors be fitted in some ways only."""

    real = Fitting.allows

    def allow(*kinds):
        monkeypatch.setattr(Fitting, "allows", lambda f, kind: kind in kinds and real(f, kind))

    return allow


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
    assert after.final_error < 0.85 * before.final_error
    told = after.refit.rounds
    assert [r.before for r in told[1:]] == [r.after for r in told[:-1]]
    assert (told[0].before, told[-1].after) == (after.refit.before, after.refit.after)
    assert all((r.after < r.before) == bool(r.kept) for r in told)
    assert sum(bool(r.kept) for r in told) == after.refit.kept
    # The last layer has no Relu behind it; of those that do, half and more gain most by knowing it.
    assert told[-1].kept == BOTH
    assert [r.kept for r in told].count(THROUGH) >= len(told) / 2


def test_each_way_of_fitting_gains_on_the_one_before(plain, fitted, only):
    errors = [plain.report.plan.final_error]
    for number in range(1, len(KINDS) + 1):
        only(*KINDS[:number])
        found = cut().report.plan
        assert {r.kept for r in found.refit.rounds} <= {"", *KINDS[:number]}
        errors.append(found.final_error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == fitted.report.plan.final_error


def test_what_fits_the_samples_alone_is_refused(monkeypatch):
    # With no pull, fewer samples than inputs, and white ones, a fit is as good as it can be on its
    # samples and useless on others.
    monkeypatch.setattr(refit_fits, "ridge_for", lambda _: 1e-9)
    monkeypatch.setattr(refit_fits, "unseen_share", lambda *_: 0.0)
    white = {"x": np.random.default_rng(1).normal(size=(45, WIDTH)).astype(np.float32)}
    before = cut(calibration=white, refit=False).report.plan
    after = cut(calibration=white).report.plan
    assert after.refit.factors > after.refit.kept
    assert {r.kept for r in after.refit.rounds} <= {"", LAST}
    assert all(r.before == r.after for r in after.refit.rounds if not r.kept)
    assert after.probe_error <= before.probe_error


def test_what_does_harm_on_the_probe_part_is_not_kept(plain, only, monkeypatch):
    only(LAST)
    real, calls = refit_fits.refitted, []

    def harmful(factor, bias, moments, **options):
        calls.append(factor.shape)
        found, offset = real(factor, bias, moments, **options)
        # Every second one is as wrong as a fit can be.
        return (found, offset) if len(calls) % 2 else (-factor, offset)

    monkeypatch.setattr(refit_fits, "refitted", harmful)
    planted = cut()
    found = planted.report.plan.refit
    assert len(calls) == found.factors
    assert found.kept > 0
    assert found.after < found.before == plain.report.plan.probe_error
    applied = [entry for entry in planted.report.applied if entry.step == "refit"]
    assert {entry.option for entry in applied} <= {f"round {n}: {LAST}" for n in (1, 3, 5)}
    changed = {name for entry in applied for name in entry.site}
    for name, array in weights(plain).items():
        if name.endswith("_out") and name not in changed:
            np.testing.assert_array_equal(weights(planted)[name], array)


def test_nothing_is_kept_where_all_does_harm(plain, only, monkeypatch):
    only(LAST)
    monkeypatch.setattr(refit_fits, "refitted", lambda factor, bias, *_, **__: (-factor, bias))
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
    text = " ".join(render_text(fitted.report).split())
    assert f"refit kept for {found.kept} of {found.factors} last factors" in text
    (last,) = [r for r in found.rounds if r.weights == ("w5_out",)]
    assert f"w5_out: {BOTH}, {last.before:.3g} -> {last.after:.3g}" in text
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


def test_one_factor_at_a_time_is_fitted_to_the_same(monkeypatch):
    passes = []
    observed = refit.paired_moments

    def counted(first, second, samples, pairs, **options):
        passes.append(len(pairs))
        return observed(first, second, samples, pairs, **options)

    monkeypatch.setattr(refit, "paired_moments", counted)
    monkeypatch.setattr(refit, "_MOST_ROUNDS", 1)
    monkeypatch.setattr(refit, "_MEASURED_MACS", 0)
    monkeypatch.setattr(Fitting, "allows", lambda _, kind: kind == LAST)
    whole = cut()
    (together,) = passes
    assert together > 1
    bounded = cut(max_memory=1)
    assert passes[1:] == [1] * together
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(bounded)[name], array, err_msg=name)
