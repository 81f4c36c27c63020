from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from structopt_onnx.linalg.piecewise import clip, leaky_relu

FUNCTIONS = {
    "Relu": (leaky_relu(), lambda z: np.maximum(z, 0)),
    "LeakyRelu": (leaky_relu(0.1), lambda z: np.where(z > 0, z, 0.1 * z)),
    "Relu6": (clip(0.0, 6.0), lambda z: np.clip(z, 0, 6)),
    "Clip from below": (clip(-1.0, math.inf), lambda z: np.maximum(z, -1)),
    "Clip from above": (clip(-math.inf, 2.0), lambda z: np.minimum(z, 2)),
    "Clip without bounds": (clip(-math.inf, math.inf), lambda z: z),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_function(name):
    function, plain = FUNCTIONS[name]
    array = np.linspace(-9, 9, 181).reshape(-1, 1)
    np.testing.assert_allclose(function(array), plain(array), atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(
    before=st.floats(-8, 8), towards=st.floats(-8, 8), penalty=st.sampled_from([0.01, 0.3, 1, 9])
)
def test_nothing_comes_nearer(name, before, towards, penalty):
    function, plain = FUNCTIONS[name]
    target = plain(np.array([before]))

    def cost(z):
        return (plain(z) - target) ** 2 + penalty * (z - towards) ** 2

    found = function.nearest(target, np.array([towards]), penalty)
    everywhere = np.linspace(-10, 10, 4001)
    assert cost(found)[0] <= cost(everywhere).min() + 1e-12
