from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import hypothesis.strategies as st
from convolution_nets import Net, assert_kept
from hypothesis import HealthCheck, event, given, settings

from structopt_onnx.passes.convolution import merge_linear_convs
from structopt_onnx.passes.convolution.merge_linear_convs import MergeLinearConvs

if TYPE_CHECKING:
    import onnx


@st.composite
def chained(draw: st.DrawFn):
    """Draw convolutions of any geometry, one after the other."""
    net = Net(draw, draw(st.sampled_from([1, 2, 2, 3])))
    made = [net.input()]
    for _ in range(draw(st.integers(2, 3))):
        one_tap = [1] * net.axes if draw(st.booleans()) else None
        unpadded = {"pads": [0] * 2 * net.axes} if draw(st.booleans()) else {}
        made.append(net.conv(made[-1], kernel=one_tap, **unpadded))
    return net.model([made[-1]])


@given(chained())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_the_composition_does_the_same(proto: onnx.ModelProto):
    # Whether it pays is policy; here every pair that may be merged is.
    with patch.object(merge_linear_convs, "_pays", lambda pair, facts: True):
        event(f"{assert_kept(proto, MergeLinearConvs())} patches")
