from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.linalg.narrowing import narrowed


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_the_type_holds_is_rounded(dtype):
    array = np.array([0.0, 1 / 3, -2.5e-3, 1e-60])
    stored = narrowed(array, dtype)
    assert stored is not None
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, array.astype(dtype))


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        ([1e5, 0.0], np.float16),
        ([1e40], np.float32),
        ([np.nan, 1.0], np.float32),
        ([np.inf], np.float32),
        ([1e-50, 0.0], np.float32),
        ([1e-7], np.float16),
    ],
)
def test_what_the_type_can_not_hold_is_none(array, dtype):
    assert narrowed(np.array(array), dtype) is None


def test_nothing_and_zeros_are_held():
    assert narrowed(np.zeros((2, 3)), np.float32) is not None
    assert narrowed(np.zeros((0,)), np.float32) is not None
