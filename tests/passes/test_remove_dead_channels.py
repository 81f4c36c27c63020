from __future__ import annotations

from collections import Counter

import damaged_nets
import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import planted_nets
from convolution_nets import Net, assert_kept, narrowed, rewritten
from hypothesis import HealthCheck, event, given, settings
from onnx.reference import ReferenceEvaluator

from structopt_onnx.passes.sparsity.remove_dead_channels import RemoveDeadChannels
from structopt_onnx.runtime.session import Session

_STEP = RemoveDeadChannels()
_SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def _weights(proto: onnx.ModelProto) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(t.dims) for t in proto.graph.initializer if t.data_type != onnx.TensorProto.INT64
    )


def _sample(proto: onnx.ModelProto) -> np.ndarray:
    dims = [d.dim_value or 2 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(0).standard_normal(dims)


def _close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def _hold(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a float64 model; hold it to the reference and, in float32, to onnxruntime."""
    x = _sample(proto)
    after, _ = rewritten(proto, _STEP)
    onnx.checker.check_model(after, full_check=True)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    (found,) = ReferenceEvaluator(after).run(None, {"x": x})
    _close(found, expected, 1e-12)
    single = narrowed(proto)
    small, _ = rewritten(single, _STEP)
    feeds = {"x": x.astype(np.float32)}
    (name,) = (o.name for o in proto.graph.output)
    original = Session(single.SerializeToString(), optimize=False).run(feeds)[name]
    _close(original, expected, 1e-4)
    _close(Session(small.SerializeToString(), optimize=False).run(feeds)[name], original, 1e-5)
    again, count = rewritten(after, _STEP)
    assert count == 0
    assert again.SerializeToString() == after.SerializeToString()
    return after


def _assert_gone(planted: onnx.ModelProto, own: onnx.ModelProto) -> None:
    after = _hold(planted)
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in own.graph.node]
    assert _weights(after) == _weights(own)


@given(planted_nets.convolutional())
@_SLOW
def test_planted_channels_of_convolutions_go(nets):
    _assert_gone(*nets)


@given(planted_nets.layered())
@_SLOW
def test_planted_units_of_perceptrons_go(nets):
    _assert_gone(*nets)


@given(planted_nets.recurrent())
@_SLOW
def test_planted_units_of_recurrent_layers_go(nets):
    _assert_gone(*nets)


_BODY = ["conv", "conv", "pool", "unary", "scaled", "normalized", "add", "concat", "multiply"]


@st.composite
def damaged(draw: st.DrawFn):
    """Draw a network of any operators whose weights have zeros and doubles anywhere."""
    net = Net(draw, draw(st.sampled_from([1, 2])))
    made = [net.conv(net.input())]
    for _ in range(draw(st.integers(1, 5))):
        source = made[-1] if draw(st.booleans()) else draw(st.sampled_from(made))
        made.append(_grow(net, draw(st.sampled_from(_BODY)), source))
    outputs = [net.conv(made[-1])]
    if draw(st.integers(0, 3)) == 0:
        outputs.append(draw(st.sampled_from(made)))
    proto = net.model(outputs)
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if array.ndim == 0 or (array > 0).all():  # a variance stays one
            continue
        lines = np.moveaxis(array, draw(st.integers(0, min(array.ndim - 1, 1))), 0)
        for _ in range(draw(st.integers(0, 3))):
            at, like = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
            lines[at] = draw(st.sampled_from([0.0, 0.0, 1.0, 2.0, -1.0])) * lines[like]
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return proto


def _grow(net: Net, kind: str, source: str) -> str:
    channels, sizes = shape = net.shapes[source]
    if kind == "pool":
        return net.pool(source, net.draw(st.sampled_from(["MaxPool", "AveragePool"])))
    if kind in {"add", "multiply", "concat"}:
        other = net.draw(st.sampled_from([v for v, s in net.shapes.items() if s == shape]))
        if kind == "concat":
            return net.add("Concat", [source, other], (2 * channels, sizes), axis=1)
        return net.add("Add" if kind == "add" else "Mul", [source, other], shape)
    return getattr(net, kind)(source)


@given(damaged())
@_SLOW
def test_zeros_and_doubles_anywhere_change_nothing(proto):
    event(f"{assert_kept(proto, _STEP)} patches")


@given(damaged_nets.damaged())
@_SLOW
def test_networks_of_all_operators_stay_what_they_are(proto):
    x = np.random.default_rng(0).standard_normal(damaged_nets.SHAPE)
    after, count = rewritten(proto, _STEP)
    event(f"{count} patches")
    onnx.checker.check_model(after, full_check=True)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})
    for found, array in zip(ReferenceEvaluator(after).run(None, {"x": x}), expected, strict=True):
        assert found.shape == array.shape
        _close(found, array, 1e-12)
    assert rewritten(after, _STEP)[1] == 0


def test_what_pruning_sets_to_zero_goes():
    rng = np.random.default_rng(0)
    rows, bias = rng.standard_normal((6, 3, 3, 3)), rng.standard_normal(6)
    rows[[1, 4]], bias[[1, 4]] = 0, 0
    net = planted_nets.Builder(planted=True, seed=0)
    made = net.add("Conv", ["x", net.weight(rows), net.weight(bias)], pads=[1, 1, 1, 1])
    made = net.add("MaxPool", [net.add("Relu", [made])], kernel_shape=[2, 2])
    taps = net.weight(rng.standard_normal((2, 6, 3, 3)))
    result = net.add("Conv", [made, taps], pads=[1, 1, 1, 1])
    after = _hold(net.model((3, 8, 8), result, 4))
    assert _weights(after) == Counter({(4, 3, 3, 3): 1, (4,): 1, (2, 4, 3, 3): 1})
