from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from structopt_onnx.linalg.clusters import ward_merges


@given(st.integers(2, 7), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_each_step_has_one_cluster_less_and_no_smaller_error(count: int, size: int, seed: int):
    vectors = np.random.default_rng(seed).standard_normal((count, size))
    steps = ward_merges(vectors)
    assert [len(step.members) for step in steps] == list(range(count - 1, 0, -1))
    assert [step.error for step in steps] == sorted(step.error for step in steps)
    for step in steps:
        assert sorted(k for cluster in step.members for k in cluster) == list(range(count))
        worst = max(
            ((vectors[list(c)] - vectors[list(c)].mean(axis=0)) ** 2).sum()
            / (vectors[list(c)] ** 2).sum()
            for c in step.members
        )
        assert step.error >= worst - 1e-12
    everything = ((vectors - vectors.mean(axis=0)) ** 2).sum() / (vectors**2).sum()
    assert steps[-1].error >= everything - 1e-12


def test_the_nearest_go_first():
    vectors = np.array([[10.0, 0], [0, 10], [10.1, 0], [0, 10.3]])
    first, second, _ = ward_merges(vectors)
    assert first.members == ((0, 2), (1,), (3,))
    assert second.members == ((0, 2), (1, 3))
    assert first.error == pytest.approx(0.05**2 * 2 / (10**2 + 10.1**2))


def test_equal_vectors_and_zeros_cost_nothing():
    (step,) = ward_merges(np.zeros((2, 3)))
    assert step.error == 0
    (step,) = ward_merges(np.ones((2, 3)))
    assert step.error == 0
