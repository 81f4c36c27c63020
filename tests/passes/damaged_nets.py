"""Random networks of all operators that lanes are followed through, with damaged weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper

Shape = tuple[int, int, int, int]
_UNARY = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Elu", "HardSwish", "Softsign"]
_BINARY = ["Add", "Sub", "Mul", "Max", "Min"]
_KINDS = [
    *["conv", "conv", "product", "unary", "unary", "binary", "constant", "slopes", "clip"],
    *["slice", "split", "concat", "crop", "pad", "gather", "reduce", "softmax", "turned", "flat"],
]
SHAPE = (2, 3, 4, 3)


@dataclass
class Net:
    """A network under construction; every value is [N, C, H, W] of known size."""

    draw: st.DrawFn
    shapes: dict[str, Shape] = field(default_factory=lambda: {"x": SHAPE})
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def one(self, values):
        return self.draw(st.sampled_from(list(values)))

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def numbers(self, *shape: int) -> str:
        """Store a weight with zeros and doubles along one of its axes."""
        array = np.random.default_rng(self.one(range(9))).standard_normal(shape)
        lines = np.moveaxis(array, self.one(range(min(array.ndim, 2))), 0)
        for _ in range(self.one([0, 0, 1, 2])):
            at, like = self.one(range(len(lines))), self.one(range(len(lines)))
            lines[at] = self.one([0.0, 0.0, 1.0, 2.0, -1.0]) * lines[like]
        return self.weight(array)

    def add(self, op_type: str, inputs: list[str], shape: Shape, outputs: int = 1, **a) -> str:
        number = len(self.nodes)
        names = [f"v{number}"] + [f"v{number}_{k}" for k in range(1, outputs)]
        self.nodes.append(oh.make_node(op_type, inputs, names, name=f"n{number}", **a))
        self.shapes[names[0]] = shape
        return names[0]

    def integers(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def conv(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        made, taps = self.one([2, 3, 4]), self.one([1, 1, 3])
        group = self.one([1, 1, 1, c])
        made = made * c if group == c else made
        bias = [self.numbers(made)] if self.one([True, False]) else []
        pads = [taps // 2] * 4
        weight = self.numbers(made, c // group, taps, taps)
        return self.add("Conv", [v, weight, *bias], (n, made, h, w), pads=pads, group=group)

    def product(self, v: str) -> str:
        """Mix channels on the last axis, by a matrix."""
        n, c, h, w = self.shapes[v]
        made = self.one([2, 3, 4])
        turned = self.add("Transpose", [v], (n, h, w, c), perm=[0, 2, 3, 1])
        mixed = self.add("MatMul", [turned, self.numbers(c, made)], (n, h, w, made))
        if self.one([True, False]):
            mixed = self.add("Add", [mixed, self.numbers(made)], (n, h, w, made))
        return self.add("Transpose", [mixed], (n, made, h, w), perm=[0, 3, 1, 2])

    def unary(self, v: str) -> str:
        return self.add(self.one(_UNARY), [v], self.shapes[v])

    def binary(self, v: str) -> str:
        shape = self.shapes[v]
        other = self.one(k for k, s in self.shapes.items() if s == shape)
        return self.add(self.one(_BINARY), self.draw(st.permutations([v, other])), shape)

    def constant(self, v: str) -> str:
        shape = self.shapes[v]
        dims = self.one([(1,), (shape[1], 1, 1), shape[1:], (shape[3],), (1, 1, *shape[2:])])
        operands = self.draw(st.permutations([v, self.numbers(*dims)]))
        return self.add(self.one(_BINARY), operands, shape)

    def slopes(self, v: str) -> str:
        shape = self.shapes[v]
        return self.add("PRelu", [v, self.numbers(shape[1], 1, 1)], shape)

    def clip(self, v: str) -> str:
        low, high = self.weight(np.array(-0.5)), self.weight(np.array(1.0))
        return self.add("Clip", [v, low, high], self.shapes[v])

    def slice(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        start = self.one(range(c))
        stop = self.one(range(start + 1, c + 1))
        bounds = [self.integers(start), self.integers(self.one([stop, stop - c or 99]))]
        return self.add("Slice", [v, *bounds, self.integers(1)], (n, stop - start, h, w))

    def split(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        if c == 1:
            return v
        first = self.one(range(1, c))
        sizes = self.integers(first, c - first)
        made = self.add("Split", [v, sizes], (n, first, h, w), outputs=2, axis=1)
        self.shapes[f"{made}_1"] = (n, c - first, h, w)
        return self.one([made, f"{made}_1"])

    def concat(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        alike = [k for k, s in self.shapes.items() if (s[0], *s[2:]) == (n, h, w)]
        other = self.one(alike)
        shape = (n, c + self.shapes[other][1], h, w)
        return self.add("Concat", [v, other], shape, axis=self.one([1, -3]))

    def crop(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        bounds = [self.integers(0), self.integers(max(h - 1, 1)), self.integers(2)]
        return self.add("Slice", [v, *bounds], (n, c, max(h - 1, 1), w))

    def pad(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        fill = self.weight(np.array(self.one([0.0, 0.7])))
        pads = self.integers(0, 0, 1, 0, 0, 0, 0, 0)
        return self.add("Pad", [v, pads, fill], (n, c, h + 1, w))

    def gather(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        return self.add("Gather", [v, self.integers(0, w - 1, 0)], (n, c, h, 3), axis=3)

    def reduce(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        kind = self.one(["ReduceMean", "ReduceMax", "ReduceMin"])
        made = self.add(kind, [v], (n, c, 1, w), axes=[2])
        return self.add("Add", [v, made], (n, c, h, w))

    def softmax(self, v: str) -> str:
        return self.add("Softmax", [v], self.shapes[v], axis=self.one([1, 2, 3]))

    def turned(self, v: str) -> str:
        n, c, h, w = self.shapes[v]
        return self.add("Transpose", [v], (n, c, w, h), perm=[0, 1, 3, 2])

    def flat(self, v: str) -> str:
        """Mix all positions of all channels, and go on with the result as channels."""
        n, c, h, w = self.shapes[v]
        row = self.add("Flatten", [v], (n, c * h * w, 0, 0))
        mixed = self.add("Gemm", [row, self.numbers(c * h * w, 3)], (n, 3, 0, 0))
        return self.add("Reshape", [mixed, self.integers(0, 3, 1, 1)], (n, 3, 1, 1))


@st.composite
def damaged(draw: st.DrawFn) -> onnx.ModelProto:
    """Draw a network in float64 with one input x and up to three outputs."""
    net = Net(draw)
    made = [net.conv("x")]
    for _ in range(draw(st.integers(1, 8))):
        source = made[-1] if draw(st.booleans()) else draw(st.sampled_from(made))
        made.append(getattr(net, draw(st.sampled_from(_KINDS)))(source))
    outputs = [net.conv(made[-1]), *draw(st.lists(st.sampled_from(made), max_size=2))]
    double = onnx.TensorProto.DOUBLE
    graph = oh.make_graph(
        net.nodes,
        "net",
        [oh.make_tensor_value_info("x", double, ["N", *SHAPE[1:]])],
        [oh.make_tensor_value_info(name, double, [None] * 4) for name in dict.fromkeys(outputs)],
        [onnx.numpy_helper.from_array(a, n) for n, a in net.weights.items()],
    )
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=9)
