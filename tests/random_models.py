"""Random small models that hold what graphs in the wild hold, for property-based tests.

Every value is float [R, 3]; R is 2, 0 or symbolic.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper

_OPSETS = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("my", 1)]
_SQUARES = [
    np.array([[0.5, -1, 0], [0.25, 0.5, 1], [0, -0.5, 0.5]], np.float32),
    np.array([[0.5, 0.25, 0], [-1, 0.5, -0.5], [0, 1, 0.5]], np.float32),  # the transpose
    np.array([[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]], np.float32),  # symmetric
]
_VECTORS = [np.array(v, np.float32) for v in ([1, 2, 3], [1, -1, 0.5], [0, 0, 0])]
_UNARY = ["Relu", "Neg", "Abs", "Identity", "Tanh"]
_BINARY = ["Add", "Sub", "Mul", "Max"]


@dataclass
class _Graph:
    """A graph under construction."""

    draw: st.DrawFn
    names: _Names
    rows: int | str
    visible: list[str]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def value(self) -> str:
        return self.draw(st.sampled_from(self.visible))

    def add(self, op_type: str, inputs: list[str], *, domain: str = "", **attributes) -> str:
        output = self.names.fresh()
        self.nodes.append(
            onnx.helper.make_node(
                op_type, inputs, [output], domain=domain, name=f"n_{output}", **attributes
            )
        )
        return output

    def constant(self, array: np.ndarray) -> str:
        """Hold a constant: as an initializer, a node, or the operator that fills one."""
        kind = self.draw(st.sampled_from(["initializer"] * 4 + ["Constant"]))
        if kind == "initializer":
            name = self.names.fresh()
            self.initializers.append(onnx.numpy_helper.from_array(array, name))
            return name
        return self.add("Constant", [], value=onnx.numpy_helper.from_array(array))

    def grow(self, depth: int) -> None:
        kinds = ["unary", "binary", "bias", "MatMul", "Gemm", "Transpose", "Reshape", "filled"]
        kinds += ["shape", "Clip", "function", "Dropout", "repeat", "tied"]
        kinds += ["If", "Loop"] if depth < 2 else []
        kind = self.draw(st.sampled_from(kinds))
        self.visible.append(getattr(self, f"_{kind.lower()}")(depth))

    def _unary(self, _: int) -> str:
        return self.add(self.draw(st.sampled_from(_UNARY)), [self.value()])

    def _binary(self, _: int) -> str:
        return self.add(self.draw(st.sampled_from(_BINARY)), [self.value(), self.value()])

    def _repeat(self, _: int) -> str:
        """The same node twice, for common subexpressions."""
        source, op_type = self.value(), self.draw(st.sampled_from(_UNARY))
        return self.add("Add", [self.add(op_type, [source]), self.add(op_type, [source])])

    def _bias(self, _: int) -> str:
        operands = [self.value(), self.constant(self.draw(st.sampled_from(_VECTORS)))]
        return self.add("Add", self.draw(st.permutations(operands)))

    def _square(self) -> str:
        weight = self.constant(self.draw(st.sampled_from(_SQUARES)))
        how = self.draw(st.sampled_from(["as it is"] * 3 + ["Identity", "Transpose", "Neg"]))
        return weight if how == "as it is" else self.add(how, [weight])

    def _matmul(self, _: int) -> str:
        return self.add("MatMul", [self.value(), self._square()])

    def _gemm(self, _: int) -> str:
        inputs = [self.value(), self._square()]
        if self.draw(st.booleans()):
            inputs.append(self.constant(self.draw(st.sampled_from(_VECTORS))))
        flags = {"transB": 1} if self.draw(st.booleans()) else {}
        return self.add("Gemm", inputs, alpha=self.draw(st.sampled_from([1.0, 0.5])), **flags)

    def _tied(self, _: int) -> str:
        """Two layers on one weight and its stored transpose, each turned or not."""
        value = self.value()
        for square in self.draw(st.permutations(_SQUARES[:2])):
            weight = onnx.numpy_helper.from_array(square, self.names.fresh())
            self.initializers.append(weight)
            flags = {"transB": 1} if self.draw(st.booleans()) else {}
            value = self.add("Gemm", [value, weight.name], **flags)
        return value

    def _transpose(self, _: int) -> str:
        return self.add("Transpose", [self.add("Transpose", [self.value()])])

    def _reshape(self, _: int) -> str:
        flat = self.add("Reshape", [self.value(), self.constant(np.array([-1]))])
        rows = self.draw(st.sampled_from([-1, self.rows])) if self.rows == 2 else -1
        return self.add("Reshape", [flat, self.constant(np.array([rows, 3]))])

    def _filled(self, _: int) -> str:
        value = onnx.numpy_helper.from_array(np.array([0.5], np.float32))
        filled = self.add("ConstantOfShape", [self.constant(np.array([3]))], value=value)
        return self.add("Add", [self.value(), filled])

    def _shape(self, _: int) -> str:
        shape = self.add("Shape", [self.value()])
        return self.add("Reshape", [self.value(), shape])

    def _clip(self, _: int) -> str:
        bound = self.constant(np.array(1.5, np.float32))
        low = self.draw(st.booleans())
        return self.add("Clip", [self.value(), bound] if low else [self.value(), "", bound])

    def _dropout(self, _: int) -> str:
        return self.add("Dropout", [self.value()])

    def _function(self, _: int) -> str:
        return self.add("F", [self.value()], domain="my")

    def _if(self, depth: int) -> str:
        bodies = {key: self._body(key, depth + 1, []) for key in ("then_branch", "else_branch")}
        condition = self.draw(st.sampled_from(["c", "c", "fixed"]))
        if condition == "fixed":
            condition = self.constant(np.array(self.draw(st.booleans())))
        return self.add("If", [condition], **bodies)

    def _loop(self, depth: int) -> str:
        names = [self.names.fresh() for _ in range(3)]
        tensor = onnx.helper.make_tensor_value_info
        inputs = [
            tensor(names[0], onnx.TensorProto.INT64, []),
            tensor(names[1], onnx.TensorProto.BOOL, []),
            tensor(names[2], onnx.TensorProto.FLOAT, [self.rows, 3]),
        ]
        body = self._body("body", depth + 1, inputs)
        trips = self.constant(np.array(2))
        return self.add("Loop", [trips, "", self.value()], body=body)

    def _body(self, name: str, depth: int, inputs: list[onnx.ValueInfoProto]) -> onnx.GraphProto:
        inner = _Graph(self.draw, self.names, self.rows, list(self.visible))
        if inputs:
            inner.visible.append(inputs[2].name)
        for _ in range(self.draw(st.integers(0, 3))):
            inner.grow(depth)
        outputs = []
        if inputs:
            condition = inner.add("Identity", [inputs[1].name])
            outputs.append(onnx.helper.make_tensor_value_info(condition, onnx.TensorProto.BOOL, []))
        # What a branch hands out is its own.
        result = inner.add(self.draw(st.sampled_from(["Identity", "Neg"])), [inner.value()])
        outputs.append(
            onnx.helper.make_tensor_value_info(result, onnx.TensorProto.FLOAT, [self.rows, 3])
        )
        return onnx.helper.make_graph(
            inner.nodes, name, inputs, outputs, initializer=inner.initializers
        )


@dataclass
class _Names:
    last: int = 0

    def fresh(self) -> str:
        self.last += 1
        return f"v{self.last}"


def _function() -> onnx.FunctionProto:
    weight = onnx.numpy_helper.from_array(_VECTORS[0])
    nodes = [
        onnx.helper.make_node("Constant", [], ["k"], value=weight),
        onnx.helper.make_node("Identity", ["k"], ["i"]),
        onnx.helper.make_node("Mul", ["a", "i"], ["m"]),
        onnx.helper.make_node("Relu", ["m"], ["b"]),
    ]
    return onnx.helper.make_function("my", "F", ["a"], ["b"], nodes, _OPSETS[:1])


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a valid model with inputs ``x``, ``z``, ``c`` and sometimes defaults of inputs."""
    rows = draw(st.sampled_from(["N", 2, 0]))
    tensor = onnx.helper.make_tensor_value_info
    graph = _Graph(draw, _Names(), rows, ["x", "z"])
    inputs = [tensor(name, onnx.TensorProto.FLOAT, [rows, 3]) for name in ("x", "z")]
    inputs.append(tensor("c", onnx.TensorProto.BOOL, []))
    for _ in range(draw(st.integers(2, 10))):
        graph.grow(0)
    made = [node.output[0] for node in graph.nodes if node.output[0] in graph.visible]
    names = {made[-1], *draw(st.lists(st.sampled_from(made), max_size=3))}
    outputs = [tensor(name, onnx.TensorProto.FLOAT, [rows, 3]) for name in sorted(names)]
    inputs += [
        tensor(constant.name, constant.data_type, list(constant.dims))
        for constant in graph.initializers
        # Only plain numbers: another shape or trip count would be another model.
        if constant.data_type == onnx.TensorProto.FLOAT and draw(st.integers(0, 5)) == 0
    ]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes, "random", inputs, outputs, initializer=graph.initializers
        ),
        opset_imports=_OPSETS,
        ir_version=8,
        functions=[_function()],
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto
