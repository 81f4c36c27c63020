from __future__ import annotations

import hypothesis.strategies as st
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
        if draw(st.booleans()):
            outputs.append(net.conv(source, kernel=[1] * net.axes, strides=strides))
        else:
            point = {"kernel_shape": [1] * net.axes, "strides": strides}
            channels, sizes = net.shapes[source]
            left = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
            outputs.append(net.add("MaxPool", [source], (channels, left), **point))
    if draw(st.integers(0, 4)) == 0:
        outputs.append(draw(st.sampled_from(made)))
    return net.model(outputs)


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
