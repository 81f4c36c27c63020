from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.linalg.moments import MomentsAccumulator
from structopt_onnx.linalg.piecewise import clip, leaky_relu
from structopt_onnx.linalg.refit import pulled
from structopt_onnx.linalg.through import fitted_through

WIDTH, ROWS = 96, 6000


@pytest.fixture(scope="module")
def layer():
    """One layer with outputs that are hardly ever, and others that are nearly always above zero."""
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] * (1 + np.arange(WIDTH)) ** -0.5
    inputs = np.maximum(rng.normal(size=(2 * ROWS, WIDTH)) @ mixing.T, 0)
    weight = rng.normal(size=(WIDTH, WIDTH))
    made = (inputs - inputs.mean(axis=0)) @ weight.T
    made -= (0.9 + rng.normal(size=WIDTH)) * made.std(axis=0)
    return inputs, made, weight


def regression(inputs, made, weight, rank, *, free=True):
    accumulator = MomentsAccumulator(2 * WIDTH)
    accumulator.update(np.concatenate([inputs, made], axis=1))
    moments = accumulator.moments()
    bias = np.zeros(WIDTH) if free else made.min(axis=0) / 3
    return pulled(weight, bias, moments, ridge=1e-3, free=free, rank=rank)[0]


def relative(function, inputs, made, fitted):
    factors, bias = fitted
    found = inputs
    for factor in reversed(factors):
        found = found @ factor.T
    error = np.linalg.norm(function(found + bias) - function(made))
    return error / np.linalg.norm(function(made))


def test_behind_a_relu_it_gains_at_every_rank_and_on_other_rows(layer):
    inputs, made, weight = layer
    relu = leaky_relu()
    assert np.mean(made > 0) == pytest.approx(0.29, abs=0.02)
    gains = []
    for rank in (12, 24, 36, 48):
        plain = regression(inputs[:ROWS], made[:ROWS], weight, rank)
        fitted, first, least = fitted_through(relu, inputs[:ROWS], made[:ROWS], plain)
        assert least < first
        away = made[:ROWS] - made[:ROWS].mean(axis=0)
        cross = away.T @ (inputs[:ROWS] - plain.mean) / ROWS
        before = plain.fit(cross, made[:ROWS].mean(axis=0))
        errors = [relative(relu, inputs[ROWS:], made[ROWS:], f) for f in (before, fitted)]
        gains.append(1 - errors[1] / errors[0])
    # The more directions there are to spend on what is above zero, the more is gained.
    assert gains == sorted(gains)
    assert 0.08 < gains[0] < 0.2
    assert 0.25 < gains[-1] < 0.4


@pytest.mark.parametrize("function", [leaky_relu(0.1), clip(0.0, 6.0)], ids=["leaky", "relu6"])
@pytest.mark.parametrize("rank", [16, None], ids=["pair", "last factor"])
def test_it_never_rises_and_is_the_same_every_time(layer, function, rank):
    inputs, made, weight = (array[:900] for array in layer)
    inputs = inputs if rank is not None else inputs[:, :16]
    towards = weight if rank is not None else weight[:, :16]
    accumulator = MomentsAccumulator(inputs.shape[1] + WIDTH)
    accumulator.update(np.concatenate([inputs, made], axis=1))
    plain = pulled(
        towards, np.zeros(WIDTH), accumulator.moments(), ridge=1e-3, free=True, rank=rank
    )[0]
    fitted, first, least = fitted_through(function, inputs, made, plain)
    error = relative(function, inputs, made, fitted) ** 2 * np.mean(function(made) ** 2)
    assert error == pytest.approx(least)
    assert least < first
    again, *_ = fitted_through(function, inputs, made, plain)
    for a, b in zip((*fitted[0], fitted[1]), (*again[0], again[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_bias_that_must_stay_does(layer):
    inputs, made, weight = (array[:900] for array in layer)
    plain = regression(inputs, made, weight, 24, free=False)
    (_, bias), first, least = fitted_through(leaky_relu(), inputs, made, plain)
    assert bias is plain.bias
    assert least < first
