from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.linalg.moments import MomentsAccumulator
from structopt_onnx.linalg.refit import refitted

R, M = 3, 5


def seen(inputs, made):
    accumulator = MomentsAccumulator(R + M)
    accumulator.update(np.concatenate([inputs, made], axis=1))
    return accumulator.moments()


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, R)) * [1.0, 0.3, 2.0] + [0.5, -1.0, 2.0]
    truth, bias = rng.normal(size=(M, R)), rng.normal(size=M)
    present = truth + 0.3 * rng.normal(size=(M, R)), bias + 0.5
    return inputs, truth, bias, present


def test_what_made_the_outputs_is_found(drawn):
    inputs, truth, bias, (factor, wrong) = drawn
    moments = seen(inputs, inputs @ truth.T + bias)
    found, offset = refitted(factor, wrong, moments, ridge=1e-9, free=True)
    np.testing.assert_allclose(found, truth, atol=1e-6)
    np.testing.assert_allclose(offset, bias, atol=1e-6)


def test_a_bias_that_must_stay_is_reckoned_with(drawn):
    inputs, truth, bias, (factor, _) = drawn
    moments = seen(inputs, inputs @ truth.T + bias)
    found, offset = refitted(factor, bias, moments, ridge=1e-9, free=False)
    np.testing.assert_allclose(found, truth, atol=1e-6)
    assert offset is bias


@pytest.mark.parametrize("free", [True, False])
def test_it_is_least_squares_with_a_pull_towards_what_was(drawn, free):
    inputs, truth, bias, (factor, wrong) = drawn
    made = inputs @ truth.T + bias + np.random.default_rng(1).normal(size=(200, M))
    ridge = 0.2
    found, offset = refitted(factor, wrong, seen(inputs, made), ridge=ridge, free=free)
    # The same by stacked least squares: rows for the data, rows for the pull.
    z = inputs - inputs.mean(axis=0) if free else inputs
    y = made - made.mean(axis=0) if free else made - wrong
    pull = np.sqrt(ridge * np.sum(z**2) / R)
    rows = np.concatenate([z, pull * np.eye(R)])
    aims = np.concatenate([y, pull * factor.T])
    expected = np.linalg.lstsq(rows, aims)[0].T
    np.testing.assert_allclose(found, expected, atol=1e-9)
    aim = made.mean(axis=0) - expected @ inputs.mean(axis=0) if free else wrong
    np.testing.assert_allclose(offset, aim, atol=1e-9)


def test_what_the_data_do_not_show_stays(drawn):
    inputs, truth, bias, (factor, wrong) = drawn
    inputs = inputs * [1.0, 0.0, 1.0]
    moments = seen(inputs, inputs @ truth.T + bias)
    found, _ = refitted(factor, wrong, moments, ridge=1e-6, free=True)
    np.testing.assert_allclose(found[:, 1], factor[:, 1], atol=1e-9)
    still = seen(np.zeros((9, R)), np.ones((9, M)))
    assert refitted(factor, wrong, still, ridge=0.1, free=True)[0] is factor
