from __future__ import annotations

from unittest import mock

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.numpy_helper
from convolution_nets import Net, assert_kept, rewritten
from hypothesis import HealthCheck, assume, event, given, settings

from structopt_onnx.passes.convolution import pooled_conv
from structopt_onnx.passes.convolution.pool_before_conv import PoolBeforeConv


@st.composite
def averaged(draw: st.DrawFn):
    """Draw a convolution and an average of its result, of any geometry."""
    net = Net(draw, draw(st.sampled_from([1, 2, 2, 3])), opset=draw(st.sampled_from([17, 19])))
    source = net.input()
    if draw(st.booleans()):
        source = net.unary(source)
    one_tap = draw(st.integers(0, 2)) == 0
    conv = net.conv(source, kernel=[1] * net.axes if one_tap else None)
    channels, _ = net.shapes[conv]
    kind = draw(st.sampled_from(["pool", "pool", "pool", "global", "mean"]))
    if kind == "pool":
        unpadded = {"pads": [0] * 2 * net.axes} if draw(st.booleans()) else {}
        made = net.pool(conv, "AveragePool", **unpadded)
        if draw(st.integers(0, 3)) == 0 and net.opset == 19:
            _dilate(net)
    elif kind == "global":
        made = net.add("GlobalAveragePool", [conv], (channels, [1] * net.axes))
    else:
        kept = draw(st.integers(0, 1))
        made = _mean(net, conv, kept)
    outputs = [made]
    if draw(st.integers(0, 7)) == 0:
        outputs.append(conv)
    return net.model(outputs)


def _dilate(net: Net) -> None:
    """Set dilations that leave room for at least one window."""
    pool = net.nodes[-1]
    sizes = net.shapes[pool.input[0]][1]
    kernel = next(a.ints for a in pool.attribute if a.name == "kernel_shape")
    assume(not any(a.name in {"auto_pad", "ceil_mode"} and a.s for a in pool.attribute))
    assume(all((k - 1) * 2 < n for k, n in zip(kernel, sizes, strict=True)))
    pool.attribute.append(onnx.helper.make_attribute("dilations", [2] * net.axes))


def _mean(net: Net, conv: str, kept: int) -> str:
    axes = list(range(2, 2 + net.axes))
    shape = net.shapes[conv][0], [1] * net.axes * kept
    if net.opset < 18:
        return net.add("ReduceMean", [conv], shape, axes=axes, keepdims=kept)
    net.initializers.append(onnx.numpy_helper.from_array(np.array(axes), "axes"))
    return net.add("ReduceMean", [conv, "axes"], shape, keepdims=kept)


@given(averaged(), st.sampled_from([0, 10]))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_the_average_is_the_same(proto: onnx.ModelProto, macs_per_tap: int):
    with mock.patch.object(pooled_conv, "_MACS_PER_TAP", macs_per_tap):  # either form is cheaper
        event(f"{assert_kept(proto, PoolBeforeConv())} patches")


@given(st.data(), st.integers(1, 3), st.integers(3, 5), st.integers(0, 1))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_more_padding_than_a_pool_takes(data: st.DataObject, pooled: int, taps: int, ends: int):
    net = Net(data.draw, 2)
    pads = [pooled, pooled + ends] * 2
    conv = net.conv(net.input(), kernel=[taps] * 2, strides=[1, 1], dilations=[1, 1], pads=pads)
    stride = {"kernel_shape": [pooled + 1, pooled], "strides": [2, 2]}
    channels, sizes = net.shapes[conv]
    rows = zip(sizes, stride["kernel_shape"], strict=True)
    made = net.add("AveragePool", [conv], (channels, [(n - k) // 2 + 1 for n, k in rows]), **stride)
    with mock.patch.object(pooled_conv, "_MACS_PER_TAP", 0):
        after, _ = rewritten(net.model([made]), PoolBeforeConv())
        assert [node.op_type for node in after.graph.node] == ["Pad", "AveragePool", "Conv"]
        assert assert_kept(net.model([made]), PoolBeforeConv()) == 1
