from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.linalg import low_rank, randomized
from structopt_onnx.linalg.low_rank import from_input_moment, from_output_moment, from_weight
from structopt_onnx.linalg.randomized import leading_eigenvectors

_DIMENSION = 400


def _spectrum(decay: float, size: int = _DIMENSION) -> np.ndarray:
    return np.arange(1, size + 1.0) ** -decay


def _moment(decay: float, size: int = _DIMENSION, seed: int = 0) -> np.ndarray:
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return (basis * _spectrum(decay, size)) @ basis.T


def _leading(moment: np.ndarray, most: int, **options):
    total = float(np.trace(moment))
    return leading_eigenvectors(lambda c: moment @ c, len(moment), total, most, **options)


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("rank", [10, 64, 100])
def test_little_more_is_left_out_than_the_best_directions_leave(decay, rank):
    moment = _moment(decay)
    vectors, energies = _leading(moment, rank, tail=0.0)
    assert vectors.shape == (_DIMENSION, rank)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(rank), atol=1e-12)
    np.testing.assert_allclose(energies, np.sum((moment @ vectors) * vectors, axis=0), rtol=1e-9)
    assert np.all(np.diff(energies) <= 1e-12)
    left = np.trace(moment) - energies.sum()
    assert left <= 1.05 * _spectrum(decay)[rank:].sum()


def test_the_rank_grows_until_little_is_left(monkeypatch):
    monkeypatch.setattr(randomized, "_FIRST_RANK", 4)
    moment = _moment(2.0)
    sizes = [_leading(moment, _DIMENSION, tail=tail)[0].shape[1] for tail in (0.5, 0.05, 0.01)]
    assert sizes == [4, 16, 64]
    for size, tail in zip(sizes, (0.5, 0.05, 0.01), strict=True):
        kept = _leading(moment, size, tail=tail)[1].sum()
        assert np.trace(moment) - kept <= tail * np.trace(moment)


def test_no_more_than_a_quarter_of_all_directions_is_found():
    assert _leading(_moment(0.1), _DIMENSION, tail=0.0)[0].shape[1] == _DIMENSION // 4


def test_what_has_low_rank_is_found_whole():
    factor = np.random.default_rng(1).standard_normal((_DIMENSION, 7))
    moment = factor @ factor.T
    vectors, energies = _leading(moment, 20)
    np.testing.assert_allclose(vectors @ (vectors.T @ factor), factor, atol=1e-9)
    assert energies.sum() == pytest.approx(np.trace(moment))


def test_equal_seeds_give_equal_bits():
    moment = _moment(1.0)
    for one, other in zip(_leading(moment, 20), _leading(moment, 20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_at_all_has_directions_without_energy():
    vectors, energies = _leading(np.zeros((50, 50)), 5)
    assert np.isfinite(vectors).all()
    assert not energies.any()


@pytest.mark.parametrize(("rows", "columns"), [(60, 60), (50, 90), (90, 50)])
def test_large_maps_are_projected(monkeypatch, rows, columns):
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((rows, columns)) * _spectrum(1.0, columns)
    moment = _moment(1.0, columns)
    exact = from_weight(weight, 10), from_input_moment(weight, moment, 10)
    monkeypatch.setattr(low_rank, "LARGEST_EXACT", 40)
    found = from_weight(weight, 10), from_input_moment(weight, moment, 10)
    for was, now in zip(exact, found, strict=True):
        assert now.size == 10
        assert now.total == pytest.approx(was.total)
        assert was.error(10) <= now.error(10) <= 1.05 * was.error(10) + 1e-12
    output = weight @ moment @ weight.T
    basis = from_output_moment(output, rows)
    assert basis.size == rows // 4
    assert basis.total == pytest.approx(np.trace(output))
