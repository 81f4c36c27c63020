from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.linalg.moments import MomentsAccumulator
from structopt_onnx.linalg.refit import pulled, refitted

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


def loss(inputs, made, matrix, offset):
    return np.mean(np.sum((inputs @ matrix.T + offset - made) ** 2, axis=1))


@pytest.mark.parametrize("free", [True, False])
def test_of_reduced_rank_it_is_the_best_there_is(drawn, free):
    inputs, truth, bias, (factor, wrong) = drawn
    made = inputs @ truth.T + bias + np.random.default_rng(1).normal(size=(200, M))
    regression, cross, mean = pulled(
        factor, wrong, seen(inputs, made), ridge=1e-9, free=free, rank=2
    )
    (upper, lower), offset = regression.fit(cross, mean)
    assert upper.shape == (M, 2)
    assert lower.shape == (2, R)
    # Eckart and Young on the fitted values: the same from the data themselves, by SVD.
    z = inputs - inputs.mean(axis=0) if free else inputs
    y = made - made.mean(axis=0) if free else made - wrong
    full = np.linalg.lstsq(z, y)[0].T
    right = np.linalg.svd(z @ full.T)[2][:2]
    expected = right.T @ right @ full
    np.testing.assert_allclose(upper @ lower, expected, atol=1e-6)
    found = loss(inputs, made, upper @ lower, offset)
    rng = np.random.default_rng(2)
    for _ in range(200):
        step = 10.0 ** rng.uniform(-4, 0)
        other = (upper + step * rng.normal(size=(M, 2))) @ (lower + step * rng.normal(size=(2, R)))
        shift = (made - inputs @ other.T).mean(axis=0) if free else wrong
        assert loss(inputs, made, other, shift) >= found


def test_reduced_rank_is_pulled_to_what_was_where_nothing_is_seen(drawn):
    inputs, truth, bias, _ = drawn
    inputs = inputs * [1.0, 0.0, 1.0]
    moments = seen(inputs, inputs @ truth.T + bias)
    regression, cross, mean = pulled(truth, bias, moments, ridge=0.1, free=True, rank=2)
    (upper, lower), _ = regression.fit(cross, mean)
    np.testing.assert_allclose(
        upper @ lower,
        truth @ np.diag([1, 0, 1]) + np.outer(upper @ upper.T @ truth[:, 1], [0, 1, 0]),
        atol=1e-9,
    )


def test_directions_that_the_data_hardly_show_can_be_kept(drawn):
    inputs, _, bias, _ = drawn
    # The first feature makes little of what was seen and most of what could be.
    truth = np.diag([9.0, 1.0, 1.0])[[0, 1, 2, 0, 1]][:M]
    inputs = (inputs - inputs.mean(axis=0)) * [0.02, 1.0, 1.0]
    moments = seen(inputs, inputs @ truth.T + bias)
    kept = []
    for unseen in (0.0, 0.3):
        regression, cross, mean = pulled(
            truth, bias, moments, ridge=1e-6, free=True, rank=2, unseen=unseen
        )
        (upper, lower), _ = regression.fit(cross, mean)
        kept.append(np.linalg.norm((upper @ lower)[:, 0]) / np.linalg.norm(truth[:, 0]))
    assert kept[0] < 0.1
    assert kept[1] > 0.9
