"""Differences counted in the steps in which outputs come: known-right and known-wrong models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from structopt_onnx.errors import UsageError
from structopt_onnx.validation.models import validate_models
from structopt_onnx.validation.quanta import Quantum, output_quanta

STEP = 0.25
IDENTITY = "y = Identity(x)"
STORED = "float s = {0.25}, int8 z = {0}, float off = {0.75}, float[1] w = {0.5}"
QDQ = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
# Known-wrong: three steps beside what it should be.
SHIFTED = "m = Add(x, off) q = QuantizeLinear(m, s, z) y = DequantizeLinear(q, s, z)"
# ONNX text has a float16 by its bits: 1 + 2**-10, which is the next after 1, and 1.01.
FACTORS = "float16 next = {15361}, float16 more = {15370}"


def samples(dtype=np.float32, scale=3.0, count=6):
    rng = np.random.default_rng(3)
    return [{"x": (scale * rng.uniform(-1, 1, (5, 4))).astype(dtype)} for _ in range(count)]


def test_rounding_to_a_scale_is_half_a_quantum(build):
    models = build(IDENTITY), build(QDQ, constants=STORED)
    result = validate_models(*models, samples(), max_quanta=0.5)
    assert result.failures == ()
    assert 0.4 < result.exact.quanta["y"] <= 0.5
    assert result.exact.limits == {"y": math.inf}
    # By the rounding of float32, which is the default, it is wrong.
    assert not validate_models(*models, samples()).passed


def test_three_quanta_off_are_found_and_named(build):
    models = build(IDENTITY), build(SHIFTED, constants=STORED)
    result = validate_models(*models, samples(), max_quanta=2)
    assert result.exact.failures[0].startswith("output 'y': off by 3.")
    assert "quanta of 0.25 (DequantizeLinear), over the limit 2" in result.exact.failures[0]
    assert not result.shipped.passed
    assert validate_models(*models, samples(), max_quanta=3.5).passed


def test_a_budget_still_holds_beside_quanta(build):
    models = build(IDENTITY), build(SHIFTED, constants=STORED)
    result = validate_models(*models, samples(), max_quanta=4, max_error=0.01)
    assert [line for line in result.failures if "relative L2" in line]
    assert not [line for line in result.failures if "quanta" in line]


def test_integers_are_counted_in_steps(build):
    ports = {"outputs": "int8[N,4] y", "constants": STORED}
    original = build("y = QuantizeLinear(x, s, z)", **ports)
    shifted = build("m = Add(x, off) y = QuantizeLinear(m, s, z)", **ports)
    result = validate_models(original, shifted, samples(), max_quanta=3)
    assert result.passed
    assert result.exact.quanta == {"y": 3.0}
    assert not validate_models(original, shifted, samples(), max_quanta=2).passed
    assert not validate_models(original, shifted, samples()).passed


def test_float16_is_counted_in_units_in_the_last_place(build):
    ports = {"inputs": "float16[N,4] x", "outputs": "float16[N,4] y", "constants": FACTORS}
    given = samples(np.float16)
    models = build(IDENTITY, **ports), build("y = Mul(x, next)", **ports)
    result = validate_models(*models, given, max_quanta=2)
    assert result.failures == ()
    # The largest value lies in (2, 4), where the unit is 2**-9.
    found = [np.abs(x["x"] * np.float16(1 + 2**-10) - x["x"]).max() for x in given]
    assert result.exact.quanta == {"y": max(found) / 2**-9}
    assert 1 <= result.exact.quanta["y"] <= 2
    wrong = build("y = Mul(x, more)", **ports)
    assert not validate_models(models[0], wrong, given, max_quanta=2).passed


def test_float16_inside_a_float32_model_is_one_too(build):
    inside = build("c = Cast<to=10>(x) h = Mul(c, more) y = Cast<to=1>(h)", constants=FACTORS)
    (quantum,) = output_quanta(inside).values()
    assert quantum == Quantum("float16", None)
    assert not validate_models(build(IDENTITY), inside, samples(), max_quanta=2).passed


@pytest.mark.parametrize("largest", [0.0, 6e-8, 1e-4, 1.0, 1.5, 2047.0, 60000.0])
def test_the_unit_is_that_of_numpy(build, largest):
    model = build(IDENTITY)
    x = np.float32(np.float16(largest))
    result = validate_models(model, model, [{"x": np.full((1, 4), x)}]).exact.outputs[0]
    assert result.largest == x
    unit = float(np.spacing(np.float16(largest)))
    metrics = type(result)(**(vars(result) | {"max_abs": 3 * unit}))
    assert Quantum("float16", None).of(metrics) == 3.0


def test_the_quantum_is_seen_through_moves_and_taken_from_b_first(build):
    moved = QDQ.replace("y =", "d =") + " t = Transpose(d) y = Transpose(t)"
    (quantum,) = output_quanta(build(moved, constants=STORED)).values()
    assert quantum == Quantum("DequantizeLinear", STEP)
    assert output_quanta(build(QDQ.replace("y =", "d =") + " y = Relu(d)", constants=STORED)) == {}
    coarse = build(QDQ, constants=STORED.replace("{0.25}", "{0.5}"))
    fine = build(QDQ, constants=STORED)
    found = validate_models(fine, coarse, samples(), max_quanta=1).exact
    assert found.quanta["y"] == 0.5
    assert validate_models(coarse, fine, samples(), max_quanta=1).exact.quanta["y"] == 1.0


@pytest.mark.parametrize("most", [-1.0, math.nan, math.inf])
def test_a_limit_that_is_none_is_refused(build, most):
    with pytest.raises(UsageError, match="quanta is"):
        validate_models(build(IDENTITY), build(QDQ, constants=STORED), samples(), max_quanta=most)


def test_models_without_quanta_are_refused(build):
    with pytest.raises(UsageError, match="no output of either model has a quantum"):
        validate_models(build(IDENTITY), build(IDENTITY), samples(), max_quanta=1)
