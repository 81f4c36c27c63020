from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from structopt_onnx.linalg.low_rank import (
    OutputBasis,
    blended,
    from_input_moment,
    from_output_moment,
    from_weight,
)

_SIZES = st.integers(1, 9)
_SEEDS = st.integers(0, 2**32 - 1)


def _sample(rows: int, columns: int, rank: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a weight [rows, columns] and inputs [columns, count] of some rank."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns))
    inputs = rng.standard_normal((columns, rank)) @ rng.standard_normal((rank, 40))
    return weight, inputs


def _measured(basis: OutputBasis, weight: np.ndarray, inputs: np.ndarray, rank: int) -> float:
    upper, lower = basis.factors(weight, rank)
    output = weight @ inputs
    return float(np.sum((output - upper @ (lower @ inputs)) ** 2) / np.sum(output**2))


@given(_SIZES, _SIZES, _SIZES, _SEEDS)
def test_the_error_is_the_one_measured_on_the_outputs(rows, columns, rank, seed):
    weight, inputs = _sample(rows, columns, min(rank, columns), seed)
    most = min(rows, columns)
    moment = inputs @ inputs.T / inputs.shape[1]
    by_output = from_output_moment(weight @ moment @ weight.T, rows)
    by_input = from_input_moment(weight, moment, most)
    for cut in range(most + 1):
        for basis in (by_output, by_input):
            measured = _measured(basis, weight, inputs, cut)
            assert measured == pytest.approx(basis.error(cut), abs=1e-7)


@given(_SIZES, _SIZES, _SEEDS)
def test_no_other_factors_do_better(rows, columns, seed):
    """Eckart and Young: the singular values of the output bound every rank-r approximation."""
    weight, inputs = _sample(rows, columns, columns, seed)
    moment = inputs @ inputs.T
    values = np.linalg.svd(weight @ inputs, compute_uv=False) ** 2
    basis = from_input_moment(weight, moment, min(rows, columns))
    for cut in range(min(rows, columns) + 1):
        assert basis.error(cut) == pytest.approx(values[cut:].sum() / values.sum(), abs=1e-9)


@given(_SIZES, _SIZES, _SEEDS)
def test_both_ways_through_the_input_moment_agree(rows, columns, seed):
    weight, inputs = _sample(rows, columns, columns, seed)
    moment = inputs @ inputs.T
    small = from_input_moment(weight, moment, min(rows, columns))
    large = from_output_moment(weight @ moment @ weight.T, min(rows, columns))
    np.testing.assert_allclose(small.energies, large.energies, atol=1e-9 * large.total)
    assert small.total == pytest.approx(large.total)
    for cut in range(1, min(rows, columns) + 1):
        one, other = (b.vectors[:, :cut] @ b.vectors[:, :cut].T for b in (small, large))
        mapped = weight @ inputs
        np.testing.assert_allclose(
            np.linalg.norm(mapped - one @ mapped),
            np.linalg.norm(mapped - other @ mapped),
            atol=1e-6 * np.linalg.norm(mapped),
        )


@given(_SIZES, _SIZES, _SIZES, _SEEDS)
def test_directions_are_orthonormal_and_energies_fall(rows, columns, rank, seed):
    weight, inputs = _sample(rows, columns, min(rank, columns), seed)
    moment = inputs @ inputs.T
    most = min(rows, columns)
    for basis in (from_input_moment(weight, moment, most), from_weight(weight, most)):
        np.testing.assert_allclose(
            basis.vectors.T @ basis.vectors, np.eye(basis.vectors.shape[1]), atol=1e-9
        )
        assert np.all(np.diff(basis.energies) <= 0)
        assert np.all(basis.energies >= 0)
        errors = [basis.error(cut) for cut in range(most + 1)]
        assert errors == sorted(errors, reverse=True)
        assert all(0 <= error <= 1 for error in errors)


@given(_SIZES, _SIZES, _SEEDS)
def test_full_rank_is_exact(rows, columns, seed):
    weight, inputs = _sample(rows, columns, columns, seed)
    most = min(rows, columns)
    for basis in (
        from_weight(weight, most),
        from_input_moment(weight, inputs @ inputs.T, most),
    ):
        upper, lower = basis.factors(weight, most)
        np.testing.assert_allclose(upper @ lower, weight, atol=1e-6 * np.linalg.norm(weight))
        assert basis.error(most) == pytest.approx(0, abs=1e-12)


@given(_SIZES, _SIZES, _SEEDS)
def test_the_basis_of_a_weight_is_its_singular_vectors(rows, columns, seed):
    weight, _ = _sample(rows, columns, 1, seed)
    most = min(rows, columns)
    basis = from_weight(weight, most)
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    np.testing.assert_allclose(basis.energies, values**2, atol=1e-10 * basis.total)
    for cut in range(1, most + 1):
        best = (left[:, :cut] * values[:cut]) @ right[:cut]
        upper, lower = basis.factors(weight, cut)
        assert np.linalg.norm(weight - upper @ lower) == pytest.approx(
            np.linalg.norm(weight - best), abs=1e-6 * values[0]
        )


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (7, 7)])
def test_inputs_that_fill_a_subspace_need_no_more_directions(shape: tuple[int, int]):
    weight, inputs = _sample(*shape, 2, 3)
    basis = from_input_moment(weight, inputs @ inputs.T / 40, min(shape))
    assert basis.error(2) == pytest.approx(0, abs=1e-12)
    assert _measured(basis, weight, inputs, 2) < 1e-12


@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
def test_a_dead_layer_has_no_error(shape: tuple[int, int]):
    weight = np.zeros(shape)
    for basis in (from_weight(weight, 3), from_input_moment(weight, np.eye(shape[1]), 3)):
        assert basis.error(0) == basis.error(3) == 0.0
        upper, lower = basis.factors(weight, 3)
        assert np.all(np.isfinite(upper))
        np.testing.assert_array_equal(upper @ lower, weight)


def test_factors_have_the_rank_asked_for():
    weight, _ = _sample(6, 4, 1, 0)
    upper, lower = from_weight(weight.astype(np.float16), 4).factors(weight, 3)
    assert (upper.shape, lower.shape) == ((6, 3), (3, 4))
    assert (upper.dtype, lower.dtype) == (np.float64, np.float64)


_SHARES = st.sampled_from([0.0, 0.1, 0.6, 1.0])


@given(_SIZES, _SIZES, _SHARES, _SEEDS)
def test_the_error_is_that_on_the_samples_whatever_was_mixed_in(rows, columns, share, seed):
    weight, inputs = _sample(rows, columns, columns, seed)
    moment = inputs @ inputs.T / inputs.shape[1]
    most = min(rows, columns)
    basis = from_input_moment(weight, moment, most, unseen=share)
    for cut in range(most + 1):
        assert _measured(basis, weight, inputs, cut) == pytest.approx(basis.error(cut), abs=1e-7)


@given(_SIZES, _SIZES, _SHARES, _SEEDS)
def test_mixing_at_the_input_is_mixing_at_the_output(rows, columns, share, seed):
    weight, inputs = _sample(rows, columns, columns, seed)
    moment = inputs @ inputs.T / inputs.shape[1]
    output, most = weight @ moment @ weight.T, min(rows, columns)
    guide = blended(output, weight @ weight.T, share)
    assert np.trace(guide) == pytest.approx(np.trace(output))
    one = from_output_moment(output, most, guide=guide)
    other = from_input_moment(weight, moment, most, unseen=share)
    for cut in range(most + 1):
        assert one.error(cut) == pytest.approx(other.error(cut), abs=1e-6)


def test_few_samples_with_white_inputs_do_better_on_others_than_alone():
    rng = np.random.default_rng(4)
    scales = np.arange(1, 49) ** -0.5
    weight = rng.standard_normal((32, 48))
    few, others = (scales[:, None] * rng.standard_normal((48, count)) for count in (16, 4000))
    moment = few @ few.T / few.shape[1]
    alone, mixed, white = (
        from_input_moment(weight, moment, 32, unseen=0),
        from_input_moment(weight, moment, 32, unseen=0.3),
        from_weight(weight, 32),
    )
    for rank in (16, 24):
        errors = [_measured(basis, weight, others, rank) for basis in (alone, mixed, white)]
        assert errors[1] < 0.97 * min(errors[0], errors[2])
