from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structopt_onnx.report.spectrum import thinned


def test_a_short_spectrum_is_kept_whole():
    assert thinned([0.5, 0.25, 0.123456]) == ((1, 0.5), (2, 0.25), (3, 0.1235))
    assert thinned([]) == ()


@given(st.integers(1, 5000))
def test_a_long_one_keeps_its_ends_and_64_points_at_most(size):
    shares = [1 / n for n in range(1, size + 1)]
    found = thinned(shares)
    assert len(found) <= 64
    assert (found[0][0], found[-1][0]) == (1, size)
    assert [n for n, _ in found] == sorted({n for n, _ in found})
    assert all(share == pytest.approx(shares[n - 1], rel=1e-3) for n, share in found)
