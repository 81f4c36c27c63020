from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.numpy_helper
from convolution_nets import Net, assert_kept
from hypothesis import HealthCheck, event, given, settings

from structopt_onnx.passes.convolution.hoist_stride import HoistStride

_BODY = ["conv", "conv", "pool", "unary", "scaled", "normalized", "residual", "concat"]


@st.composite
def strided(draw: st.DrawFn):
    """Draw a body of any operators, read by strided convolutions and pools of one tap."""
    net = Net(draw, draw(st.sampled_from([1, 2, 2, 3])))
    made = [net.conv(net.input())]
    for _ in range(draw(st.integers(0, 4))):
        source = made[-1] if draw(st.booleans()) else draw(st.sampled_from(made))
        made.append(_grow(net, draw(st.sampled_from(_BODY)), source))
    outputs = []
    for _ in range(draw(st.integers(1, 2))):
        source = made[-1] if draw(st.booleans()) else draw(st.sampled_from(made))
        strides = net.per_axis([1, 2, 2, 4])
        kind = draw(st.sampled_from(["conv", "pool", "slice", "dilated"]))
        if kind == "conv":
            outputs.append(net.conv(source, kernel=[1] * net.axes, strides=strides))
        elif kind == "dilated":
            kernel, dilations = net.per_axis([1, 2, 3]), net.per_axis([1, 2, 2, 4])
            pads = [draw(st.sampled_from([0, 2, 2, 4, 1, 3])) for _ in range(2 * net.axes)]
            geometry = {"strides": strides, "dilations": dilations, "pads": pads}
            outputs.append(net.conv(source, kernel=kernel, **geometry))
        elif kind == "slice":
            outputs.append(_sliced(net, source, strides))
        else:
            point = {"kernel_shape": [1] * net.axes, "strides": strides}
            channels, sizes = net.shapes[source]
            left = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
            outputs.append(net.add("MaxPool", [source], (channels, left), **point))
    if draw(st.integers(0, 4)) == 0:
        outputs.append(draw(st.sampled_from(made)))
    return net.model(outputs)


def _sliced(net: Net, source: str, strides: list[int]) -> str:
    """Take every so many positions, from the first on or not, to the end or not."""
    channels, sizes = net.shapes[source]
    starts = [net.draw(st.sampled_from([0, 0, 0, 0, 1])) for _ in sizes]
    ends = [net.draw(st.sampled_from([n, n, n + 3, 2**63 - 1, n - 1])) for n in sizes]
    names = []
    for values in (starts, ends, [2 + axis for axis in range(net.axes)], strides):
        names.append(f"s{len(net.initializers)}")
        net.initializers.append(onnx.numpy_helper.from_array(np.array(values), names[-1]))
    rows = zip(starts, ends, sizes, strides, strict=True)
    left = [len(range(first, min(end, n), step)) for first, end, n, step in rows]
    return net.add("Slice", [source, *names], (channels, left))


def _grow(net: Net, kind: str, source: str) -> str:
    channels, sizes = shape = net.shapes[source]
    if kind == "pool":
        return net.pool(source, net.draw(st.sampled_from(["MaxPool", "AveragePool"])))
    if kind in {"residual", "concat"}:
        other = net.draw(st.sampled_from([v for v, s in net.shapes.items() if s == shape]))
        if kind == "residual":
            return net.add("Add", [source, other], shape)
        return net.add("Concat", [source, other], (2 * channels, sizes), axis=1)
    return getattr(net, kind)(source)


@given(strided())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_strides_move_and_nothing_else_changes(proto):
    event(f"{assert_kept(proto, HoistStride())} patches")
