"""Unrolled recurrences, written out in the ways that exporters and people write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence


@dataclass(frozen=True)
class Shape:
    steps: int = 4
    features: int = 3
    hidden: int = 5


@dataclass(frozen=True)
class Style:
    """How a recurrence is written.

    cell: rnn, relu, affine, leaky, lstm, peephole, gru, gru-before, sine (no operator has it)
    product: stacked (one product for x, one for h), joined (one of both in a row), separate
    order: the gates' order in a stacked product
    reading: gather, gather1, slice, split, part (of the features)
    collecting: stack0, stack1, rows, features, last, each
    start: zeros, input, folded
    """

    cell: str = "lstm"
    product: str = "stacked"
    order: tuple[int, ...] = (0, 1, 2, 3)
    operator: str = "Gemm"
    reading: str = "gather"
    collecting: str = "stack1"
    start: str = "zeros"
    time_axis: int = 1
    backwards: bool = False
    flipped: bool = False
    cutting: str = "split"


GATES = {"rnn": 1, "relu": 1, "affine": 1, "leaky": 1, "sine": 2}
GATES |= {"lstm": 4, "peephole": 4, "gru": 3, "gru-before": 3}


@dataclass
class Writer:
    """Collects nodes and constants of a graph."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object):
        names = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(onnx.helper.make_node(op_type, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array: object, dtype: type = np.float32) -> str:
        made = np.asarray(array, dtype)
        for name, known in self.constants.items():
            if (known.dtype, known.shape) != (made.dtype, made.shape):
                continue
            if known.tobytes() == made.tobytes():
                return name
        name = f"k{len(self.constants)}"
        self.constants[name] = made
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(numbers, np.int64)

    def weight(self, *shape: int) -> np.ndarray:
        return (self.rng.standard_normal(shape) * 0.5).astype(np.float32)


class Cell:
    """Writes one step; weights are made once."""

    def __init__(self, writer: Writer, style: Style, shape: Shape) -> None:
        self.w, self.style, self.shape = writer, style, shape
        count = GATES[style.cell]
        self.x = [writer.weight(shape.features, shape.hidden) for _ in range(count)]
        self.h = [writer.weight(shape.hidden, shape.hidden) for _ in range(count)]
        self.b = [writer.weight(shape.hidden) for _ in range(count)]
        self.peep = [writer.weight(shape.hidden) for _ in range(3)]
        self.inner = writer.weight(shape.hidden)
        order = [g for g in style.order if g < count]
        self.order = [*order, *(g for g in range(count) if g not in order)]

    def product(self, value: str, weight: np.ndarray, bias: np.ndarray | None = None) -> str:
        w = self.w
        if self.style.operator == "Gemm":
            inputs = [value, w.constant(weight.T.copy())]
            if bias is not None:
                inputs.append(w.constant(bias))
            return w.node("Gemm", *inputs, transB=1)
        made = w.node("MatMul", value, w.constant(weight))
        return made if bias is None else w.node("Add", made, w.constant(bias))

    def cut(self, value: str, count: int) -> list[str]:
        w, hidden = self.w, self.shape.hidden
        if count == 1:
            return [value]
        if self.style.cutting == "split":
            sizes = w.ints(*[hidden] * count)
            return w.node("Split", value, sizes, outputs=count, axis=1)
        return [
            w.node("Slice", value, w.ints(k * hidden), w.ints((k + 1) * hidden), w.ints(1))
            for k in range(count)
        ]

    def linear(self, x: str, h: str | None, gates: Sequence[int]) -> dict[int, str]:
        """Return W x + R h + b of some gates; without h, what is left of a state of zero."""
        gates = [g for g in self.order if g in gates]
        if self.style.product == "separate":
            return {g: self.sum(x, h, [g]) for g in gates}
        parts = self.cut(self.sum(x, h, gates), len(gates))
        return dict(zip(gates, parts, strict=True))

    def sum(self, x: str, h: str | None, gates: Sequence[int]) -> str:
        w = self.w
        weight = np.concatenate([self.x[g] for g in gates], 1)
        inner = np.concatenate([self.h[g] for g in gates], 1)
        bias = np.concatenate([self.b[g] for g in gates])
        if h is None:
            return self.product(x, weight, bias)
        if self.style.product == "joined":
            joined = w.node("Concat", x, h, axis=1)
            return self.product(joined, np.concatenate([weight, inner]), bias)
        one, other = self.product(x, weight, bias), self.product(h, inner)
        return w.node("Add", *((other, one) if self.style.flipped else (one, other)))

    def step(self, x: str, h: str | None, c: str | None) -> tuple[str, str | None]:
        return getattr(self, "_" + self.style.cell.replace("-", "_"))(x, h, c)

    def _rnn(self, x: str, h: str | None, c: str | None):
        return self.w.node("Tanh", self.linear(x, h, [0])[0]), c

    def _relu(self, x: str, h: str | None, c: str | None):
        return self.w.node("Relu", self.linear(x, h, [0])[0]), c

    def _leaky(self, x: str, h: str | None, c: str | None):
        return self.w.node("LeakyRelu", self.linear(x, h, [0])[0], alpha=0.3), c

    def _affine(self, x: str, h: str | None, c: str | None):
        return self.linear(x, h, [0])[0], c

    def _sine(self, x: str, h: str | None, c: str | None):
        gates = self.linear(x, h, [0, 1])
        return self.w.node("Mul", self.w.node("Sin", gates[0]), self.w.node("Tanh", gates[1])), c

    def _lstm(self, x: str, h: str | None, c: str | None):
        w, gates = self.w, self.linear(x, h, range(4))
        forget = w.node("Add", gates[1], w.constant(1.0)) if self.style.flipped else gates[1]
        i, f, o = (w.node("Sigmoid", v) for v in (gates[0], forget, gates[3]))
        entering = w.node("Mul", i, w.node("Tanh", gates[2]))
        after = entering if c is None else w.node("Add", w.node("Mul", f, c), entering)
        return w.node("Mul", o, w.node("Tanh", after)), after

    def _peephole(self, x: str, h: str | None, c: str | None):
        w, gates = self.w, self.linear(x, h, range(4))

        def peeped(gate: str, state: str | None, which: int) -> str:
            if state is None:
                return gate
            return w.node("Add", gate, w.node("Mul", state, w.constant(self.peep[which])))

        i, f = (w.node("Sigmoid", peeped(gates[k], c, k)) for k in range(2))
        entering = w.node("Mul", i, w.node("Tanh", gates[2]))
        after = entering if c is None else w.node("Add", w.node("Mul", f, c), entering)
        o = w.node("Sigmoid", peeped(gates[3], after, 2))
        return w.node("Mul", o, w.node("Tanh", after)), after

    def _blend(self, z: str, n: str, h: str | None) -> str:
        w = self.w
        if h is None:
            return w.node("Mul", w.node("Sub", w.constant(1.0), z), n)
        if self.style.flipped:
            return w.node("Add", w.node("Mul", z, w.node("Sub", h, n)), n)
        kept = w.node("Mul", w.node("Sub", w.constant(1.0), z), n)
        return w.node("Add", w.node("Mul", z, h), kept)

    def _gru(self, x: str, h: str | None, c: str | None):
        """The reset gate applies to R h + b."""
        w, gates = self.w, self.linear(x, h, [0, 1])
        z, r = w.node("Sigmoid", gates[0]), w.node("Sigmoid", gates[1])
        inner = w.constant(self.inner) if h is None else self.product(h, self.h[2], self.inner)
        fresh = self.product(x, self.x[2], self.b[2])
        n = w.node("Tanh", w.node("Add", fresh, w.node("Mul", r, inner)))
        return self._blend(z, n, h), c

    def _gru_before(self, x: str, h: str | None, c: str | None):
        """The reset gate applies to h."""
        w, gates = self.w, self.linear(x, h, [0, 1])
        z, r = w.node("Sigmoid", gates[0]), w.node("Sigmoid", gates[1])
        reset = None if h is None else w.node("Mul", r, h)
        n = w.node("Tanh", self.linear(x, reset, [2])[2])
        return self._blend(z, n, h), c


def entries(w: Writer, style: Style, shape: Shape) -> list[str]:
    """Write how each step reads its entry of x."""
    axis = style.time_axis
    if style.reading == "split":
        sizes = w.ints(*[1] * shape.steps)
        parts = w.node("Split", "x", sizes, outputs=shape.steps, axis=axis)
        return [w.node("Squeeze", part, w.ints(axis)) for part in parts]
    found = []
    for step in range(shape.steps):
        if style.reading == "part":
            whole = w.node("Gather", "x", w.constant(step, np.int64), axis=axis)
            bounds = w.ints(1), w.ints(1 + shape.features), w.ints(1)
            found.append(w.node("Slice", whole, *bounds))
        elif style.reading == "gather":
            found.append(w.node("Gather", "x", w.constant(step, np.int64), axis=axis))
        elif style.reading == "gather1":
            kept = w.node("Gather", "x", w.ints(step), axis=axis)
            found.append(w.node("Squeeze", kept, w.ints(axis)))
        else:
            bounds = w.ints(step), w.ints(step + 1), w.ints(axis)
            found.append(w.node("Squeeze", w.node("Slice", "x", *bounds), w.ints(axis)))
    return found


def collected(w: Writer, style: Style, outputs: Sequence[str]) -> list[str]:
    """Write how the outputs of the steps are put together."""
    if style.collecting == "last":
        return [outputs[-1]]
    if style.collecting == "each":
        return list(outputs)
    if style.collecting in {"rows", "features"}:
        return [w.node("Concat", *outputs, axis=int(style.collecting == "features"))]
    axis = int(style.collecting == "stack1")
    return [w.node("Concat", *(w.node("Unsqueeze", o, w.ints(axis)) for o in outputs), axis=axis)]


def unrolled(style: Style, shape: Shape, seed: int = 0) -> onnx.ModelProto:
    """Write a model that runs a cell over the entries of x."""
    w = Writer(np.random.default_rng(seed))
    features = shape.features + 2 * (style.reading == "part")
    dims = ["batch", shape.steps, features]
    if style.time_axis == 0:
        dims = [shape.steps, "batch", features]
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, dims)]
    has_cell = style.cell in {"lstm", "peephole"}
    h: str | None = None
    c: str | None = None
    if style.start == "input":
        for name in ("h0", "c0")[: 1 + has_cell]:
            kind = onnx.TensorProto.FLOAT
            inputs.append(onnx.helper.make_tensor_value_info(name, kind, ["batch", shape.hidden]))
        h, c = "h0", "c0" if has_cell else None
    elif style.start == "zeros":
        batch = w.node("Gather", w.node("Shape", "x"), w.ints(1 - style.time_axis))
        h = w.node("ConstantOfShape", w.node("Concat", batch, w.ints(shape.hidden), axis=0))
        c = h if has_cell else None
    cell = Cell(w, style, shape)
    read = entries(w, style, shape)
    outputs = []
    for x in read[::-1] if style.backwards else read:
        h, c = cell.step(x, h, c)
        outputs.append(h)
    turned = style.backwards and style.collecting != "last"
    results = collected(w, style, outputs[::-1] if turned else outputs)
    free: list[str | None] = [None] * (3 if style.collecting.startswith("stack") else 2)
    graph = onnx.helper.make_graph(
        w.nodes,
        "unrolled",
        inputs,
        [onnx.helper.make_tensor_value_info(r, onnx.TensorProto.FLOAT, free) for r in results],
        [onnx.numpy_helper.from_array(a, n) for n, a in w.constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnx.shape_inference.infer_shapes(model) if seed % 2 else model


def disguised(model: onnx.ModelProto, random: random.Random) -> onnx.ModelProto:
    """Shuffle the nodes within what their edges allow, and rename every value but interfaces."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    waiting = list(made.graph.node)
    known = {i.name for i in (*made.graph.input, *made.graph.initializer)}
    order = []
    while waiting:
        ready = [n for n in waiting if known.issuperset(n.input)]
        node = random.choice(ready)
        waiting.remove(node)
        known.update(node.output)
        order.append(node)
    kept = {i.name for i in (*made.graph.input, *made.graph.output)}
    inner = {v for n in order for v in (*n.input, *n.output)} - kept
    names = dict(zip(sorted(inner), random.sample(range(10**6), len(inner)), strict=True))
    for node in order:
        node.input[:] = [f"n{names[v]}" if v in names else v for v in node.input]
        node.output[:] = [f"n{names[v]}" if v in names else v for v in node.output]
    for tensor in made.graph.initializer:
        tensor.name = f"n{names[tensor.name]}"
    for value in made.graph.value_info:
        value.name = f"n{names[value.name]}" if value.name in names else value.name
    shuffled = [onnx.NodeProto.FromString(n.SerializeToString()) for n in order]
    del made.graph.node[:]
    made.graph.node.extend(shuffled)
    return made


def mutated(model: onnx.ModelProto, random: random.Random) -> onnx.ModelProto:
    """Break the pattern in one place; the result is still a model, of another function."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.value_info[:]
    graph = made.graph
    kind = random.choice(["constant", "activation", "rewire", "output", "drop"])
    nodes = list(graph.node)
    floats = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    shapes = {
        v.name: [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim]
        for v in onnx.shape_inference.infer_shapes(made).graph.value_info
    }
    node = random.choice(nodes)
    if kind == "constant":
        users = [(n, i) for n in nodes for i, v in enumerate(n.input) if v in floats]
        node, index = random.choice(users)
        array = onnx.numpy_helper.to_array(floats[node.input[index]]).copy()
        array.reshape(-1)[random.randrange(array.size)] += 0.25
        graph.initializer.append(onnx.numpy_helper.from_array(array, "other"))
        node.input[index] = "other"
    elif kind == "activation":
        found = [n for n in nodes if n.op_type in {"Sigmoid", "Tanh", "Relu"}]
        if found:
            node = random.choice(found)
            node.op_type = random.choice(sorted({"Sigmoid", "Tanh", "Relu"} - {node.op_type}))
    elif kind == "output":
        found = [v for n in nodes for v in n.output if len(shapes.get(v, ())) == 2]
        taken = {o.name for o in graph.output}
        for name in set(random.sample(found, min(2, len(found)))) - taken:
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, None])
            graph.output.append(value)
    elif kind == "rewire":
        position = {v: k for k, n in enumerate(nodes) for v in n.output}
        index = random.randrange(len(node.input))
        alike = [
            v
            for v, k in position.items()
            if k < nodes.index(node) and v in shapes and shapes[v] == shapes.get(node.input[index])
        ]
        if alike:
            node.input[index] = random.choice(alike)
    else:
        old, new = node.input[0], node.output[0]
        if shapes.get(old) == shapes.get(new) and old in shapes:
            for other in nodes:
                other.input[:] = [old if v == new else v for v in other.input]
    return made
