from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.numpy_helper
from convolution_nets import Net, assert_kept
from hypothesis import HealthCheck, event, given, settings

from structopt_onnx.passes.convolution.geometry import Window
from structopt_onnx.passes.convolution.taps import meets_input
from structopt_onnx.passes.convolution.trim_filter import TrimFilter


@st.composite
def sparse(draw: st.DrawFn):
    """Draw a convolution with taps that are zero in every channel."""
    net = Net(draw, draw(st.sampled_from([1, 2, 2, 3])))
    source = net.input()
    size = [
        draw(st.sampled_from([1, 3, 4, 5][: 4 if net.axes < 3 else 2])) for _ in range(net.axes)
    ]
    made = net.conv(source, kernel=size)
    (weight,) = (t for t in net.initializers if len(t.dims) > 1)
    array = onnx.numpy_helper.to_array(weight).copy()
    for axis, taps in enumerate(size):
        zero = draw(st.lists(st.integers(0, taps - 1), max_size=taps))
        array[(slice(None),) * (2 + axis) + (zero,)] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), weight.name))
    return net.model([made])


@given(sparse())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_smaller_kernels_do_the_same(proto: onnx.ModelProto):
    event(f"{assert_kept(proto, TrimFilter())} patches")


@st.composite
def overhanging(draw: st.DrawFn):
    """Draw a convolution over a map about as small as its padding."""
    net = Net(draw, draw(st.sampled_from([1, 2])))
    net.shapes["x"] = 4, tuple(draw(st.integers(1, 4)) for _ in range(net.axes))
    kernel = net.per_axis([1, 3, 5, 8])
    sides = [draw(st.integers(0, k)) for k in (*kernel, *kernel)]
    return net.model([net.conv("x", kernel=kernel, pads=sides)])


@given(overhanging())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_taps_in_the_padding_do_nothing(proto: onnx.ModelProto):
    event(f"{assert_kept(proto, TrimFilter())} patches")


def test_work_does_not_grow_with_the_size():
    window = Window((1024,), (1,), (1,), (1023, 0))
    (met,) = meets_input(window, (1, 1, 2**40))
    assert met.all()
    (met,) = meets_input(window, (1, 1, 1))
    assert met.tolist() == [False] * 1023 + [True]
