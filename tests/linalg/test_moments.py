from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structopt_onnx.linalg.moments import Moments, MomentsAccumulator


def observed(rows: np.ndarray, cuts: list[int] = []) -> Moments:  # noqa: B006 - never changed
    accumulator = MomentsAccumulator(rows.shape[1])
    for part in np.split(rows, sorted(min(c, len(rows)) for c in cuts)):
        accumulator.update(part)
    return accumulator.moments()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 400),
    d=st.integers(1, 40),
    offset=st.sampled_from([0.0, 3.0, 1e6]),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_moments_equal_numpy_and_do_not_depend_on_chunking(seed, n, d, offset, cuts):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + offset
    found = observed(rows, cuts)
    wanted = np.cov(rows, rowvar=False, ddof=0).reshape(d, d)
    scale = max(np.abs(wanted).max(), 1e-12)
    assert found.count == n
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-9, atol=1e-9)
    # 1e6 + x keeps about ten digits of x; the sums themselves lose nothing more.
    np.testing.assert_allclose(found.covariance, wanted, atol=1e-8 * scale + 1e-9)
    whole = observed(rows)
    np.testing.assert_allclose(found.covariance, whole.covariance, atol=1e-8 * scale + 1e-9)
    np.testing.assert_array_equal(found.covariance, found.covariance.T)


def test_rows_beyond_the_buffer_are_all_counted():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50_000, 5)).astype(np.float32)
    found = observed(rows, [7, 33_000, 33_001])
    np.testing.assert_allclose(
        found.covariance, np.cov(rows.astype(np.float64), rowvar=False, ddof=0), atol=1e-12
    )
    assert found.count == 50_000


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3])
def test_the_feature_axis_may_be_any_axis(axis):
    array = np.random.default_rng(1).normal(size=(3, 4, 5, 6))
    accumulator = MomentsAccumulator(array.shape[axis])
    accumulator.update(array, axis)
    rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    found = accumulator.moments()
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False, ddof=0), atol=1e-12)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), atol=1e-12)


def test_half_precision_is_summed_in_double_precision():
    rows = np.full((100_000, 2), 60_000.0, dtype=np.float16)
    rows[::2] = 59_968.0
    found = observed(rows, [3])
    exact = rows.astype(np.float64)
    np.testing.assert_array_equal(found.mean, exact.mean(axis=0))
    np.testing.assert_allclose(found.covariance, np.full((2, 2), 256.0), rtol=1e-12)
    assert found.mean.dtype == found.covariance.dtype == np.float64


def test_a_large_mean_does_not_drown_a_small_spread():
    rows = 1e8 + np.array([[0.0], [1.0], [0.0], [1.0]])
    assert observed(rows, [1]).covariance[0, 0] == pytest.approx(0.25, rel=1e-12)


def test_the_second_moment_is_the_mean_outer_product():
    rows = np.random.default_rng(2).normal(size=(30, 4)) + 2.0
    np.testing.assert_allclose(observed(rows).second_moment, rows.T @ rows / 30, atol=1e-12)


def test_moments_may_be_read_between_updates_and_stay_as_they_were():
    rows = np.random.default_rng(3).normal(size=(20, 3))
    accumulator = MomentsAccumulator(3)
    accumulator.update(rows[:10])
    early = accumulator.moments()
    kept = early.covariance.copy(), early.mean.copy()
    accumulator.update(rows[10:])
    late = accumulator.moments()
    np.testing.assert_array_equal(early.covariance, kept[0])
    np.testing.assert_array_equal(early.mean, kept[1])
    np.testing.assert_allclose(late.covariance, np.cov(rows, rowvar=False, ddof=0), atol=1e-14)
    assert (early.count, late.count) == (10, 20)


def test_a_constant_has_no_negative_variance():
    rows = np.full((1000, 3), 0.1)
    found = observed(rows, [1, 500])
    assert (found.covariance.diagonal() >= 0).all()
    np.testing.assert_allclose(found.covariance, 0.0, atol=1e-30)


def test_nothing_observed_is_zeros():
    accumulator = MomentsAccumulator(3)
    accumulator.update(np.zeros((0, 3)))
    found = accumulator.moments()
    assert found.count == 0
    assert not found.mean.any()
    assert not found.covariance.any()


def test_another_length_is_refused():
    with pytest.raises(ValueError, match="not of length 3"):
        MomentsAccumulator(3).update(np.zeros((2, 4)))


def test_the_shift_survives_a_caller_who_reuses_the_array():
    rows = np.ones((4, 2))
    accumulator = MomentsAccumulator(2)
    accumulator.update(rows)
    rows[:] = 7.0
    assert accumulator.moments().mean.tolist() == [1.0, 1.0]


def test_memory_is_told_beforehand():
    accumulator = MomentsAccumulator(1000)
    accumulator.update(np.ones((1, 1000), np.float32))
    held = accumulator._products.nbytes + accumulator._buffer.nbytes
    assert MomentsAccumulator.nbytes(1000) == held


def test_a_matrix_of_several_blocks_is_mirrored_whole():
    rows = np.random.default_rng(4).normal(size=(40, 600))
    found = observed(rows, [11])
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False, ddof=0), atol=1e-12)
    np.testing.assert_array_equal(found.covariance, found.covariance.T)
