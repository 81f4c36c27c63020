from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.numpy_helper
from convolution_nets import Net, assert_kept
from hypothesis import HealthCheck, assume, event, given, settings

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


@given(averaged())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_the_average_is_the_same(proto: onnx.ModelProto):
    event(f"{assert_kept(proto, PoolBeforeConv())} patches")
