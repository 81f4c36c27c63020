from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from structopt_onnx.linalg.separable import ridge_for, separable

_SIZES = st.integers(1, 6)
_SEEDS = st.integers(0, 2**32 - 1)


def _sample(outputs: int, rows: int, taps: int, seed: int, *, rank: int | None = None):
    """Draw a weight [o, a, t] and inputs [a * t, count], of full rank by default."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((outputs, rows, taps))
    size = rows * taps
    inner = size if rank is None else min(rank, size)
    mix = rng.standard_normal((size, inner)) * np.geomspace(1, 0.05, inner)
    return weight, mix @ rng.standard_normal((inner, 200))


def _rebuilt(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.einsum("ar,ort->oat", first, second)


def _measured(weight: np.ndarray, other: np.ndarray, inputs: np.ndarray) -> float:
    output = weight.reshape(len(weight), -1) @ inputs
    error = output - other.reshape(len(other), -1) @ inputs
    return float(np.sum(error**2) / np.sum(output**2))


_SHARES = st.sampled_from([0.0, 0.1, 1.0])


@given(_SIZES, _SIZES, _SIZES, _SEEDS, st.booleans(), _SHARES)
def test_the_error_is_the_one_measured(  # noqa: PLR0917 - what hypothesis draws
    outputs, rows, taps, seed, deficient, unseen
):
    weight, inputs = _sample(outputs, rows, taps, seed, rank=3 if deficient else None)
    basis = separable(weight, inputs @ inputs.T / inputs.shape[1], rows, unseen=unseen)
    for rank in range(1, rows + 1):
        for second in (basis.factors(rank)[1], basis.unfitted(rank)[1]):
            measured = _measured(weight, _rebuilt(basis.directions[:, :rank], second), inputs)
            assert basis.error_of(second) == pytest.approx(measured, rel=1e-6, abs=1e-12)
        assert basis.error(rank) == basis.error_of(basis.factors(rank)[1])


@given(_SIZES, _SIZES, _SIZES, _SEEDS, st.booleans())
def test_the_refit_is_not_worse(outputs, rows, taps, seed, deficient):
    weight, inputs = _sample(outputs, rows, taps, seed, rank=3 if deficient else None)
    basis = separable(weight, inputs @ inputs.T / inputs.shape[1], rows)
    for rank in range(1, rows + 1):
        plain = basis.error_of(basis.unfitted(rank)[1])
        assert basis.error(rank) <= plain + 1e-12


def test_the_refit_is_much_better_on_correlated_inputs():
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((12, 8, 3))
    mix = rng.standard_normal((24, 24)) * np.geomspace(1, 0.01, 24)
    inputs = mix @ rng.standard_normal((24, 2000))
    moment = inputs @ inputs.T / inputs.shape[1]
    blind = separable(weight, None, 8)
    plain = _measured(weight, _rebuilt(*blind.factors(4)), inputs)
    assert separable(weight, moment, 8).error(4) < 0.5 * plain


@given(_SIZES, _SIZES, _SIZES, _SEEDS, st.sampled_from([None, 2, 99]), _SHARES)
def test_at_full_rank_it_is_the_weight(  # noqa: PLR0917 - what hypothesis draws
    outputs, rows, taps, seed, rank, unseen
):
    """Also along directions that the data never showed."""
    weight, inputs = _sample(outputs, rows, taps, seed, rank=rank)
    moment = None if rank is None else inputs @ inputs.T / inputs.shape[1]
    basis = separable(weight, moment, rows, unseen=unseen)
    np.testing.assert_allclose(_rebuilt(*basis.factors(rows)), weight, atol=1e-8)
    assert basis.error(rows) == pytest.approx(0, abs=1e-12)


@given(_SIZES, _SIZES, _SIZES, _SEEDS)
def test_without_data_it_is_the_truncated_singular_value_decomposition(outputs, rows, taps, seed):
    weight, _ = _sample(outputs, rows, taps, seed)
    basis = separable(weight, None, rows)
    unfolded = weight.transpose(1, 0, 2).reshape(rows, -1)
    values = np.linalg.svd(unfolded, compute_uv=False) ** 2
    for rank in range(1, rows + 1):
        assert basis.error(rank) == pytest.approx(values[rank:].sum() / values.sum(), abs=1e-9)


@given(_SIZES, _SIZES, _SIZES, _SEEDS, st.booleans())
def test_the_narrowed_error_is_the_one_measured(outputs, rows, taps, seed, blind):
    weight, inputs = _sample(outputs, rows, taps, seed)
    moment = inputs @ inputs.T / inputs.shape[1]
    basis = separable(weight, None if blind else moment, rows)
    observed = np.eye(rows * taps) if blind else inputs
    for rank in {1, rows}:
        first, second = basis.factors(rank)
        for outer in range(1, outputs + 1):
            spectrum = basis.narrowed(rank)
            kept = spectrum.vectors[:, :outer]
            cut = np.tensordot(kept @ kept.T, second, 1)
            measured = _measured(weight, _rebuilt(first, cut), observed)
            assert spectrum.error(outer) == pytest.approx(measured, rel=1e-6, abs=1e-9)


def test_the_factors_keep_their_scale_when_the_data_are_deficient():
    weight, inputs = _sample(5, 6, 3, 7, rank=2)
    basis = separable(weight, inputs @ inputs.T / inputs.shape[1], 6)
    first, second = basis.factors(6)
    np.testing.assert_allclose(first.T @ first, np.eye(6), atol=1e-12)
    assert np.linalg.norm(second) == pytest.approx(np.linalg.norm(weight), rel=1e-6)


def test_a_constant_output_has_no_error():
    basis = separable(np.ones((2, 3, 2)), np.zeros((6, 6)), 3)
    assert basis.error(1) == 0
    assert all(np.isfinite(f).all() for f in basis.factors(2))


@pytest.mark.parametrize("support", [0.25, 0.5, 1])
def test_the_ridge_helps_where_observations_are_few(support: float):
    held_out = {}
    for name, ridge in (("next to none", 1e-6), ("by support", ridge_for(support))):
        errors = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            weight = rng.standard_normal((8, 10, 8))
            mix = rng.standard_normal((80, 80)) * np.geomspace(1, 0.1, 80)
            seen = mix @ rng.standard_normal((80, int(80 * support)))
            basis = separable(weight, seen @ seen.T / seen.shape[1], 10, ridge=ridge)
            others = mix @ rng.standard_normal((80, 2000))
            errors.append(_measured(weight, _rebuilt(*basis.factors(6)), others))
        held_out[name] = np.mean(errors)
    assert held_out["by support"] < held_out["next to none"]


def test_the_ridge_is_bounded():
    assert ridge_for(0) == ridge_for(0.1) == 0.5
    assert ridge_for(1e6) == 0.01
    assert ridge_for(2) == pytest.approx(0.1)
