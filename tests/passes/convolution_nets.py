"""Random convolutional models for property tests, and the two oracles they are held to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
from float64_reference import evaluate, geometry
from hypothesis import assume

from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from structopt_onnx.rewriting.passes import Step

_SIDES = st.sampled_from([0, 0, 1, 2])
_UNARY = ["Relu", "Sigmoid", "Tanh", "Identity"]


@dataclass
class Net:
    """A model under construction; `shapes` holds channels and spatial sizes per value."""

    draw: st.DrawFn
    axes: int
    opset: int = 19
    shapes: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def input(self) -> str:
        sizes = st.integers(5, 9 if self.axes < 3 else 6)
        self.shapes["x"] = 4, tuple(self.draw(sizes) for _ in range(self.axes))
        return "x"

    def add(self, op_type: str, inputs: list[str], shape: tuple[int, Any], **attributes) -> str:
        channels, sizes = shape
        assume(all(size > 0 for size in sizes))
        name = f"v{len(self.nodes)}"
        self.nodes.append(
            onnx.helper.make_node(op_type, inputs, [name], name=f"n_{name}", **attributes)
        )
        self.shapes[name] = channels, tuple(sizes)
        return name

    def constant(self, *dims: int) -> str:
        name = f"w{len(self.initializers)}"
        seed = self.draw(st.integers(0, 9))
        array = np.random.default_rng([seed, *dims]).standard_normal(dims)
        self.initializers.append(onnx.numpy_helper.from_array(array, name))
        return name

    def per_axis(self, values: list[int]) -> list[int]:
        return [self.draw(st.sampled_from(values)) for _ in range(self.axes)]

    def padding(self, kernel: list[int], *, below_kernel: bool = False) -> dict[str, Any]:
        mode = self.draw(st.sampled_from(["pads"] * 3 + ["SAME_UPPER", "SAME_LOWER", "VALID"]))
        if mode != "pads":
            return {"auto_pad": mode}
        sides = [self.draw(_SIDES) for _ in range(2 * self.axes)]
        if below_kernel:
            sides = [min(s, k - 1) for s, k in zip(sides, [*kernel, *kernel], strict=True)]
        return {"pads": sides}

    def conv(self, source: str, *, kernel: list[int] | None = None, **fixed: Any) -> str:
        channels, sizes = self.shapes[source]
        kernel = kernel or self.per_axis([1, 2, 3])
        group = self.draw(st.sampled_from([g for g in (1, 1, 2, channels) if channels % g == 0]))
        outputs = group * self.draw(st.sampled_from([1, 2, 4]))
        attributes: dict[str, Any] = {
            "strides": self.per_axis([1, 1, 2, 3]),
            "dilations": self.per_axis([1, 1, 2]),
            "group": group,
            **({} if "pads" in fixed else self.padding(kernel)),
            **fixed,
        }
        if "auto_pad" in attributes:  # onnxruntime has SAME padding for plain kernels only
            attributes["dilations"] = [1] * self.axes
            if attributes["auto_pad"] != "VALID":  # it crops what others leave as it is
                strides = zip(attributes["strides"], kernel, strict=True)
                attributes["strides"] = [min(s, k + 1) for s, k in strides]
        inputs = [source, self.constant(outputs, channels // attributes["group"], *kernel)]
        if self.draw(st.booleans()):
            inputs.append(self.constant(outputs))
        made = geometry(sizes, kernel, attributes)[-1]
        return self.add("Conv", inputs, (outputs, made), **attributes)

    def pool(self, source: str, op_type: str, **fixed: Any) -> str:
        channels, sizes = self.shapes[source]
        kernel = self.per_axis([1, 2, 3])
        attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": self.per_axis([1, 2, 3]),
            **(fixed if "pads" in fixed else self.padding(kernel, below_kernel=True)),
        }
        if "pads" in attributes:
            attributes["ceil_mode"] = self.draw(st.sampled_from([0, 0, 1]))
        elif attributes["auto_pad"] != "VALID":  # onnxruntime pads no pool that skips positions
            strides = zip(attributes["strides"], kernel, strict=True)
            attributes["strides"] = [min(s, k) for s, k in strides]
        if op_type == "AveragePool":
            attributes["count_include_pad"] = self.draw(st.integers(0, 1))
        ceil = bool(attributes.get("ceil_mode", 0))
        made = geometry(sizes, kernel, attributes, ceil=ceil)[-1]
        return self.add(op_type, [source], (channels, made), **attributes)

    def unary(self, source: str) -> str:
        op_type = self.draw(st.sampled_from(_UNARY))
        return self.add(op_type, [source], self.shapes[source])

    def scaled(self, source: str) -> str:
        channels, _ = shape = self.shapes[source]
        dims = self.draw(st.sampled_from([(), (1,), (channels, *[1] * self.axes)]))
        op_type = self.draw(st.sampled_from(["Add", "Sub", "Mul"]))
        operands = [source, self.constant(*dims)]
        return self.add(op_type, self.draw(st.permutations(operands)), shape)

    def normalized(self, source: str) -> str:
        channels, _ = shape = self.shapes[source]
        statistics = [self.constant(channels) for _ in range(3)]
        variance = f"w{len(self.initializers)}"
        positive = np.linspace(0.5, 2, channels)
        self.initializers.append(onnx.numpy_helper.from_array(positive, variance))
        return self.add("BatchNormalization", [source, *statistics, variance], shape)

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        channels, sizes = self.shapes["x"]
        double, tensor = onnx.TensorProto.DOUBLE, onnx.helper.make_tensor_value_info
        named = list(dict.fromkeys(outputs))
        graph = onnx.helper.make_graph(
            self.nodes,
            "net",
            [tensor("x", double, ["N", channels, *sizes])],
            [tensor(name, double, [None] * (2 + len(self.shapes[name][1]))) for name in named],
            self.initializers,
        )
        opset = onnx.helper.make_opsetid("", self.opset)
        return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9)


def narrowed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float64 model as one of float32."""
    single = onnx.ModelProto()
    single.CopyFrom(proto)
    for tensor in single.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float64:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))
    for value in (*single.graph.input, *single.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return single


def rewritten(proto: onnx.ModelProto, step: Step) -> tuple[onnx.ModelProto, int]:
    """Apply a pass without gates; return the model and the number of patches."""
    manager = PassManager(CpuTarget(), check_each_patch=True)
    after = to_proto(manager.run(load(proto), [step]))
    return after, len(manager.record.applied)


def assert_kept(proto: onnx.ModelProto, step: Step) -> int:
    """Hold a pass to the float64 reference and to onnxruntime; return its number of patches."""
    dims = [d.dim_value or 2 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(dims)
    after, count = rewritten(proto, step)
    expected = evaluate(proto, {"x": x})
    _assert_close(evaluate(after, {"x": x}), expected, 1e-12)
    single = narrowed(proto)
    after_single, _ = rewritten(single, step)
    onnx.checker.check_model(after_single)
    feeds = {"x": x.astype(np.float32)}
    original = Session(single.SerializeToString(), optimize=False).run(feeds)
    _assert_close(original, expected, 1e-4)  # the oracles agree on what the model means
    found = Session(after_single.SerializeToString(), optimize=False).run(feeds)
    _assert_close(found, original, 1e-5)
    return count


def _assert_close(found, expected, tolerance: float) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        scale = float(np.abs(array).max(initial=0.0)) or 1.0
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * scale)
