from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
from convolution_nets import Net, assert_kept
from hypothesis import HealthCheck, event, given, settings

from structopt_onnx.passes.convolution.cancel_transposes import CancelTransposes

if TYPE_CHECKING:
    import onnx

_BODY = [
    "unary",
    "scaled",
    "Add",
    "Concat",
    "Transpose",
    "Conv",
    "ReduceMean",
    "Softmax",
    "weighted",
]


class _Turned(Net):
    """A net that keeps whole shapes, since channels may be on any axis."""

    def dims(self, value: str) -> tuple[int, ...]:
        channels, sizes = self.shapes[value]
        return (2, channels, *sizes)

    def put(self, op_type: str, inputs: list[str], dims: tuple[int, ...], **attributes) -> str:
        return self.add(op_type, inputs, (dims[1], dims[2:]), **attributes)

    def grow(self, kind: str, source: str) -> str:
        dims, rank = self.dims(source), self.axes + 2
        if kind == "unary":
            return self.unary(source)
        if kind == "scaled":
            last = self.draw(st.sampled_from([(), (dims[-1],), (dims[-2], 1), (1, *dims[1:])]))
            return self.put("Mul", [source, self.constant(*last)], dims)
        if kind == "Transpose":
            tail = self.draw(st.permutations(range(1, rank)))
            perm = [0, *tail]
            return self.put("Transpose", [source], tuple(dims[p] for p in perm), perm=perm)
        if kind == "Conv":
            return self.conv(source)
        if kind == "ReduceMean":
            axis = self.draw(st.integers(1, rank - 1))
            shape = tuple(1 if i == axis else d for i, d in enumerate(dims))
            return self.put("ReduceMean", [source], shape, axes=[axis - rank])
        if kind == "weighted":
            axes = list(range(rank))
            mean = self.add("ReduceMean", [source], (1, ()), axes=axes, keepdims=0)
            return self.put("Mul", [source, mean], dims)
        if kind == "Softmax":
            return self.put("Softmax", [source], dims, axis=self.draw(st.integers(1, rank - 1)))
        other = self.draw(st.sampled_from([v for v in self.shapes if self.dims(v) == dims]))
        if kind == "Add":
            return self.put("Add", [source, other], dims)
        axis = self.draw(st.integers(1, rank - 1))
        shape = tuple(2 * d if i == axis else d for i, d in enumerate(dims))
        return self.put("Concat", [source, other], shape, axis=axis)


@st.composite
def turned(draw: st.DrawFn):
    """Draw a model that changes the layout of its values again and again."""
    net = _Turned(draw, draw(st.sampled_from([1, 2, 2])), opset=17)
    made = [net.input()]
    for _ in range(draw(st.integers(2, 9))):
        source = made[-1] if draw(st.booleans()) else draw(st.sampled_from(made))
        kind = draw(st.sampled_from([*_BODY, "Transpose", "Transpose"]))
        made.append(net.grow(kind, source))
    outputs = [made[-1]]
    if draw(st.booleans()):
        outputs.append(draw(st.sampled_from(made[1:])))
    return net.model(outputs)


@given(turned())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_layouts_change_and_values_do_not(proto: onnx.ModelProto):
    event(f"{assert_kept(proto, CancelTransposes())} patches")
