from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from structopt_onnx.rewriting.encodings import LEAST_BYTES, encoded_bytes


def sparse(size: int, density: float) -> ir.TensorProtocol:
    rng = np.random.default_rng(0)
    array = rng.standard_normal(size) * (rng.random(size) < density)
    return ir.tensor((array + 0.0).astype(np.float32))


@pytest.mark.parametrize("density", [0.5, 0.3])
def test_a_bit_per_element_and_the_nonzeros(density):
    size = 10**6
    assert encoded_bytes(sparse(size, density)) / (4 * size) == pytest.approx(
        density + 1 / 32, abs=2e-3
    )


def test_few_nonzeros_take_five_bytes_each():
    size = 10**6
    assert encoded_bytes(sparse(size, 0.05)) / (4 * size) == pytest.approx(0.05 * 5 / 4, abs=1e-3)


def test_small_and_dense_tensors_stay():
    assert encoded_bytes(sparse(LEAST_BYTES // 4 - 1, 0)) == LEAST_BYTES - 4
    assert encoded_bytes(sparse(64 * 64, 1)) == 64 * 64 * 4
    assert encoded_bytes(sparse(0, 1)) == 0
