"""onnx's reference evaluator beside onnxruntime, where models are small enough for it."""

from __future__ import annotations

import numpy as np
import pytest

import structopt_onnx as so
from structopt_onnx.validation import second_opinion as module
from structopt_onnx.validation.second_opinion import second_opinion

RIGHT = "n = Neg(x) r = Relu(n) y = Softmax(r)"
SAME = "m = Constant<value_float=-1.0>() n = Mul(x, m) r = Relu(n) y = Softmax(r)"
WRONG = "n = Neg(x) r = Abs(n) y = Softmax(r)"


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(3, 4)).astype(np.float32)} for _ in range(9)]


def test_both_engines_agree_on_a_model_that_is_right(build, samples):
    opinion = second_opinion(build(RIGHT), build(SAME), samples)
    assert opinion.not_run == ""
    assert opinion.failures == ()
    assert opinion.validation.samples == 4
    assert opinion.validation.outputs[0].compared == 48
    assert opinion.a["y"] < 1e-6
    assert opinion.b["y"] < 1e-6


def test_a_model_that_is_wrong_is_rejected_there_too(build, samples):
    opinion = second_opinion(build(RIGHT), build(WRONG), samples)
    assert opinion.failures[0].startswith(
        "in the reference evaluator: output 'y': relative L2 error"
    )
    assert second_opinion(build(RIGHT), build(WRONG), samples, max_error=1.0).failures == ()


def test_an_engine_that_errs_is_seen_in_the_other(build, samples, monkeypatch):
    run = module.ReferenceEvaluator.run
    monkeypatch.setattr(
        module.ReferenceEvaluator, "run", lambda *a: [1.5 * array for array in run(*a)]
    )
    opinion = second_opinion(build(RIGHT), build(SAME), samples)
    # Both are off alike, so B may stand for A; that the engines differ is told.
    assert opinion.failures == ()
    assert opinion.a["y"] == pytest.approx(1 / 3, rel=1e-5)


def test_what_it_can_not_run_is_told_and_no_failure(build, samples, monkeypatch):
    old = build("q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)", constants="float s = {0.25}")
    opinion = second_opinion(old, old, samples)
    assert "DequantizeLinear" in opinion.not_run or "QuantizeLinear" in opinion.not_run
    assert (opinion.failures, opinion.validation) == ((), None)
    product = build("y = MatMul(x, w)", constants=f"float[4,4] w = {{{','.join('1' * 16)}}}")
    monkeypatch.setattr(module, "MOST_MACS", 47)
    assert second_opinion(product, product, samples).not_run == "A takes 48 MACs, more than 47"


def test_validate_asks_for_it(build, samples):
    right, same, wrong = build(RIGHT), build(SAME), build(WRONG)
    assert so.validate(right, same, data=samples).reference is None
    report = so.validate(right, same, data=samples, reference=True)
    assert report.passed
    assert report.reference.a["y"] < 1e-6
    assert not so.validate(right, wrong, data=samples, reference=True).passed


def test_a_model_that_only_the_evaluator_finds_wrong_fails(build, samples, monkeypatch):
    run = module.ReferenceEvaluator.run
    calls = []

    def drifting(*arguments):
        calls.append(arguments)
        return [(1.0 + (len(calls) == 3)) * array for array in run(*arguments)]

    monkeypatch.setattr(module.ReferenceEvaluator, "run", drifting)
    report = so.validate(build(RIGHT), build(SAME), data=samples, reference=True)
    assert report.validation.passed
    assert not report.passed
    assert "in the reference evaluator" in report.reference.failures[0]
