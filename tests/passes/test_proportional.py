from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.passes.sparsity.proportional import proportional

_RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multiples_as_they_are_stored_are_found(dtype):
    rows = _RNG.standard_normal((300, 20)).astype(dtype)
    rows[7], rows[250], rows[299] = rows[3] * dtype(0.37), -2 * rows[3], rows[100]
    eps = float(np.finfo(dtype).eps)
    leaders, factors = proportional(rows, np.zeros(300, np.int64), eps)
    own = np.arange(300)
    own[[7, 250, 299]] = [3, 3, 100]
    assert leaders.tolist() == own.tolist()
    np.testing.assert_allclose(factors[[7, 250, 299]], [0.37, -2, 1], rtol=1e-6)
    assert (np.delete(factors, [7, 250, 299]) == 1).all()


def test_what_differs_by_more_than_rounding_stays_alone():
    rows = np.repeat(_RNG.standard_normal((1, 8)).astype(np.float32), 3, axis=0)
    rows[1, 2] *= np.float32(1 + 1e-6)
    rows[2, 5] += np.float32(1e-5)
    leaders, _ = proportional(rows, np.zeros(3, np.int64), float(np.finfo(np.float32).eps))
    assert leaders.tolist() == [0, 1, 2]


def test_rows_of_other_labels_are_not_compared():
    rows = np.ones((4, 3))
    leaders, _ = proportional(rows, np.array([0, 1, 0, 1]), 1e-16)
    assert leaders.tolist() == [0, 1, 0, 1]
