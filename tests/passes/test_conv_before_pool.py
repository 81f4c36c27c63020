from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
from convolution_nets import Net, assert_kept
from hypothesis import HealthCheck, event, given, settings

from structopt_onnx.model.loading import load
from structopt_onnx.passes.convolution.conv_before_pool import ConvBeforePool
from structopt_onnx.passes.convolution.pool_before_conv import PoolBeforeConv
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import CpuTarget

if TYPE_CHECKING:
    import onnx


@st.composite
def pooled(draw: st.DrawFn):
    """Draw an average of any geometry, read by a convolution of one tap."""
    net = Net(draw, draw(st.sampled_from([1, 2, 2, 3])))
    source = net.input()
    if draw(st.booleans()):
        source = net.unary(source)
    pool = net.pool(source, "AveragePool")
    pads = {"pads": [0] * 2 * net.axes}
    made = net.conv(
        pool,
        kernel=[1] * net.axes,
        strides=draw(st.sampled_from([[1], [1], [2]])) * net.axes,
        **pads,
    )
    return net.model([made, pool] if draw(st.integers(0, 7)) == 0 else [made])


@given(pooled())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_the_convolved_average_is_the_same(proto: onnx.ModelProto):
    event(f"{assert_kept(proto, ConvBeforePool())} patches")


@given(pooled())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_the_two_orders_do_not_take_turns(proto: onnx.ModelProto):
    both = [ConvBeforePool(), PoolBeforeConv()]
    manager = PassManager(CpuTarget(), check_each_patch=True)
    once = manager.run(load(proto), both)
    again = PassManager(CpuTarget(), check_each_patch=True)
    again.run(once, both)
    assert not again.record.applied
