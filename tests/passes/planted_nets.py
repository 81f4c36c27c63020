"""Random small networks with dead channels planted, and the same without them.

A stage makes channels, lets them pass operators that work on each, and reads them. Planting puts
channels that change nothing among its own; without, the network is the smaller one to be found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper

KINDS = ["unread", "zero", "constant", "double", "multiple"]
# Positive factors pass these; for the other kinds anything does.
_SCALED = ["Relu", "LeakyRelu", "MaxPool", "AveragePool", "Mul", "PRelu"]
_ANY = [*_SCALED, "Sigmoid", "Tanh", "Add", "BatchNormalization", "Depthwise"]
_KEEPS_ZERO = ["Relu", "LeakyRelu", "Tanh", "MaxPool", "AveragePool", "Mul", "PRelu"]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Plan:
    """Where the channels of a stage come from: own channel number, or what is planted."""

    kind: str
    order: tuple[int, ...]
    """Per channel its own number; for planted ones -1 - the number that they double."""
    factor: float

    def rows(self, own: np.ndarray, rng: np.random.Generator, *, offset: bool) -> np.ndarray:
        """Return weights or a bias with an entry per channel along the first axis."""
        made = []
        for number in self.order:
            if number >= 0:
                made.append(own[number])
            elif self.kind in {"double", "multiple"}:
                made.append(self.factor * own[-1 - number])
            elif self.kind == "unread":
                made.append(rng.standard_normal(own.shape[1:]))
            else:
                fill = 0.7 if self.kind == "constant" and offset else 0.0
                made.append(np.full(own.shape[1:], fill))
        return np.stack(made)

    def each(self, own: np.ndarray) -> np.ndarray:
        """Return numbers of an operator that works on each channel, those of doubles the same."""
        return own[[n if n >= 0 else -1 - n for n in self.order]]

    def columns(self, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return what reads the channels along the first axis."""
        fill = rng.standard_normal if self.kind != "unread" else np.zeros
        return np.stack([own[n] if n >= 0 else fill(own.shape[1:]) for n in self.order])


@st.composite
def plans(draw: st.DrawFn, channels: int, kinds: list[str] | None = None) -> Plan:
    kind = draw(st.sampled_from(kinds or KINDS))
    planted = [-1 - n for n in draw(st.lists(st.integers(0, channels - 1), min_size=1, max_size=3))]
    order = list(range(channels))
    for number in planted:
        order.insert(draw(st.integers(0, len(order))), number)
    factor = draw(st.sampled_from([0.5, 2.0, 4.0])) if kind == "multiple" else 1.0
    return Plan(kind, tuple(order), factor)


@dataclass
class Builder:
    """One network under construction; `planted` says whether with dead channels."""

    planted: bool
    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    _rng: Any = None

    def rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, len(self.nodes), *key])

    def plan(self, plan: Plan) -> Plan:
        own = tuple(n for n in plan.order if n >= 0)
        return plan if self.planted else Plan(plan.kind, own, plan.factor)

    def add(self, op_type: str, inputs: list[str], outputs: int = 1, **attributes) -> str:
        number = len(self.nodes)
        names = [f"v{number}"] + [f"v{number}_{k}" for k in range(1, outputs)]
        self.nodes.append(oh.make_node(op_type, inputs, names, name=f"n{number}", **attributes))
        return names[0]

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def each(self, kind: str, source: str, plan: Plan) -> str:
        """Add an operator that works on each channel of [N, C, H, W]."""
        rng, channels = self.rng(1), sum(n >= 0 for n in plan.order)
        numbers = plan.each(rng.standard_normal((channels, 1, 1)))
        if kind in {"MaxPool", "AveragePool"}:
            return self.add(kind, [source], kernel_shape=[2, 2], strides=[1, 1])
        if kind == "LeakyRelu":
            return self.add(kind, [source], alpha=0.3)
        if kind == "PRelu":
            return self.add(kind, [source, self.weight(np.abs(numbers))])
        if kind in {"Mul", "Add"}:
            return self.add(kind, [source, self.weight(numbers)])
        if kind == "BatchNormalization":
            flat = [plan.each(rng.standard_normal(channels)) for _ in range(3)]
            variance = plan.each(rng.uniform(0.5, 2, channels))
            return self.add(kind, [source, *map(self.weight, (*flat, variance))])
        if kind == "Depthwise":
            taps = self.weight(plan.each(rng.standard_normal((channels, 1, 2, 2))))
            bias = self.weight(plan.each(rng.standard_normal(channels)))
            return self.add("Conv", [source, taps, bias], group=len(plan.order))
        return self.add(kind, [source])

    def model(self, x: tuple[int, ...], y: str, rank: int) -> onnx.ModelProto:
        double = onnx.TensorProto.DOUBLE
        graph = oh.make_graph(
            self.nodes,
            "net",
            [oh.make_tensor_value_info("x", double, ["N", *x])],
            [oh.make_tensor_value_info(y, double, [None] * rank)],
            [onnx.numpy_helper.from_array(a, n) for n, a in self.weights.items()],
        )
        return oh.make_model(graph, opset_imports=[oh.make_opsetid("", 17)], ir_version=9)


def maker(net: Builder, source: str, kind: str, plan: Plan, inputs: int) -> str:
    """Add a convolution that makes the planned channels."""
    rng, channels = net.rng(2), sum(n >= 0 for n in plan.order)
    rows = plan.rows(rng.standard_normal((channels, inputs, 2, 2)), rng, offset=False)
    bias = net.weight(plan.rows(rng.standard_normal(channels), rng, offset=True))
    if kind == "ConvTranspose":
        weight = net.weight(rows.swapaxes(0, 1).copy())
        return net.add(kind, [source, weight, bias], strides=[2, 2], pads=[1, 1, 1, 1])
    return net.add(kind, [source, net.weight(rows), bias], pads=[1, 0, 1, 0])


def reader(net: Builder, source: str, kind: str, plan: Plan) -> tuple[str, int]:
    """Add what reads the channels; return its output and rank."""
    rng, channels = net.rng(3), sum(n >= 0 for n in plan.order)
    bias = net.weight(rng.standard_normal(3))
    if kind in {"point", "padded", "ConvTranspose"}:
        taps = (1, 1) if kind == "point" else (3, 3)
        columns = plan.columns(rng.standard_normal((channels, 3, *taps)), rng)
        if kind == "ConvTranspose":
            return net.add(kind, [source, net.weight(columns), bias]), 4
        weight = net.weight(columns.swapaxes(0, 1).copy())
        pads = [1, 1, 1, 1] if kind == "padded" else [0, 0, 0, 0]
        return net.add("Conv", [source, weight, bias], pads=pads), 4
    if kind == "Flatten":
        source = net.add("Flatten", [net.add("GlobalMaxPool", [source])])
    else:  # ReduceMean
        source = net.add("ReduceMean", [source], axes=[2, 3], keepdims=0)
    columns = plan.columns(rng.standard_normal((channels, 3)), rng)
    return net.add("Gemm", [source, net.weight(columns), bias], alpha=0.5), 2


@st.composite
def convolutional(draw: st.DrawFn) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Draw a network of convolutions with planted channels, and the same without."""
    channels = draw(st.integers(2, 4))
    plan = draw(plans(channels))
    chain_of = _SCALED if plan.kind == "multiple" else _ANY
    reads = ["point", "padded", "ConvTranspose", "Flatten", "ReduceMean"]
    if plan.kind == "constant":
        reads = ["point", "Flatten", "ReduceMean"]
    if plan.kind == "zero" and draw(st.booleans()):
        chain_of = _KEEPS_ZERO
    elif plan.kind == "zero":
        reads = ["point", "Flatten", "ReduceMean"]
    chain = draw(st.lists(st.sampled_from(chain_of), max_size=3))
    makes, seed = draw(st.sampled_from(["Conv", "ConvTranspose"])), draw(st.integers(0, 99))
    # A double can be added to what it doubles where one reader has both.
    parts = ["Split", "Slice"] if plan.kind not in {"double", "multiple"} else []
    joins = draw(st.sampled_from(["none", "none", "Add", "Concat", *parts]))
    reads_by = draw(st.sampled_from(reads))
    both = []
    for planted in (True, False):
        net = Builder(planted, seed)
        here = net.plan(plan)
        made = maker(net, "x", makes, here, 3)
        if joins == "Add":
            made = net.add("Add", [made, maker(net, "x", makes, here, 3)])
        for kind in chain:
            made = net.each(kind, made, here)
        if joins == "Concat":
            made = net.add("Concat", [made, made], axis=1)
            here = Plan(here.kind, here.order + here.order, here.factor)
            result, rank = _read_twice(net, made, here)
        elif joins in {"Split", "Slice"}:
            result, rank = _read_in_parts(net, made, here, joins)
        else:
            result, rank = reader(net, made, reads_by, here)
        both.append(net.model((3, 8, 8), result, rank))
    return both[0], both[1]


def _read_twice(net: Builder, source: str, plan: Plan) -> tuple[str, int]:
    half = Plan(plan.kind, plan.order[: len(plan.order) // 2], plan.factor)
    rng, channels = net.rng(4), sum(n >= 0 for n in half.order)
    columns = [half.columns(rng.standard_normal((channels, 3, 1, 1)), rng) for _ in range(2)]
    weight = net.weight(np.concatenate(columns).swapaxes(0, 1).copy())
    return net.add("Conv", [source, weight, net.weight(rng.standard_normal(3))]), 4


def _read_in_parts(net: Builder, source: str, plan: Plan, kind: str) -> tuple[str, int]:
    """Cut the channels behind the first own one, so that both parts have one of their own."""
    own = [k for k, n in enumerate(plan.order) if n >= 0]
    at, count = own[0] + 1, len(plan.order)
    if kind == "Split":
        sizes = net.weight(np.array([at, count - at], np.int64))
        first = net.add("Split", [source, sizes], outputs=2, axis=1)
        parts = [first, f"{first}_1"]
    else:
        bounds = [(0, at), (at, count)]
        parts = [
            net.add("Slice", [source, *(net.weight(np.array([i], np.int64)) for i in (a, b, 1))])
            for a, b in bounds
        ]
    made = []
    for part, order in zip(parts, (plan.order[:at], plan.order[at:]), strict=True):
        rng = net.rng(5)
        here = Plan(plan.kind, order, plan.factor)
        own_count = sum(n >= 0 for n in order)
        places = {n: k for k, n in enumerate(n for n in order if n >= 0)}
        numbers = tuple(places[n] if n >= 0 else -1 for n in here.order)
        local = Plan(plan.kind, numbers, plan.factor)
        columns = local.columns(rng.standard_normal((own_count, 3, 1, 1)), rng)
        weight = net.weight(columns.swapaxes(0, 1).copy())
        made.append(net.add("Conv", [part, weight, net.weight(rng.standard_normal(3))]))
    return net.add("Add", made), 4


@st.composite
def layered(draw: st.DrawFn) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Draw a perceptron of Gemm and MatMul with planted units, and the same without."""
    width, seed = draw(st.integers(2, 5)), draw(st.integers(0, 99))
    plan = draw(plans(width))
    names = ["Relu", "LeakyRelu"] if plan.kind == "multiple" else ["Relu", "Tanh", "Sigmoid", "Elu"]
    activation = draw(st.sampled_from(names))
    first, second = (draw(st.sampled_from(["Gemm", "GemmT", "MatMul"])) for _ in range(2))
    both = []
    for planted in (True, False):
        net = Builder(planted, seed)
        here, rng = net.plan(plan), net.rng(6)
        rows = here.rows(rng.standard_normal((width, 3)), rng, offset=False)
        bias = here.rows(rng.standard_normal(width), rng, offset=True)
        made = net.add(activation, [_product(net, "x", first, rows, bias)])
        columns = here.columns(net.rng(7).standard_normal((width, 2)), net.rng(8))
        result = _product(net, made, second, columns.T, net.rng(9).standard_normal(2))
        both.append(net.model((3,), result, 2))
    return both[0], both[1]


def _product(net: Builder, source: str, kind: str, rows: np.ndarray, bias: np.ndarray) -> str:
    if kind == "MatMul":
        product = net.add("MatMul", [source, net.weight(rows.T.copy())])
        return net.add("Add", [product, net.weight(bias)])
    if kind == "GemmT":
        operands = [source, net.weight(rows), net.weight(bias)]
        return net.add("Gemm", operands, transB=1, beta=0.5)
    return net.add("Gemm", [source, net.weight(rows.T.copy()), net.weight(bias)], alpha=2.0)


@st.composite
def recurrent(draw: st.DrawFn) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Draw a recurrent layer, its features and units planted, and the same without."""
    op_type = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    features = draw(plans(3))
    units = draw(plans(3, ["unread", "zero"]))
    peepholes = op_type == "LSTM" and draw(st.booleans())
    seed = draw(st.integers(0, 99))
    both = []
    for planted in (True, False):
        net = Builder(planted, seed)
        inputs, here, rng = net.plan(features), net.plan(units), net.rng(10)
        rows = inputs.rows(rng.standard_normal((3, 2)), rng, offset=False)
        offset = inputs.rows(rng.standard_normal(3), rng, offset=True)
        x = net.add("MatMul", ["x", net.weight(rows.T.copy())])
        x = net.add("Add", [x, net.weight(offset)])
        directions = 2 if direction == "bidirectional" else 1
        parts = [_cell(net, op_type, inputs, here, d) for d in range(directions)]
        w, r, b, p = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        operands = [x, *map(net.weight, (w, r, b))]
        if peepholes:
            operands += ["", "", "", net.weight(p)]
        made = net.add(op_type, operands, hidden_size=len(here.order), direction=direction)
        if directions == 2:
            made = net.add("Transpose", [made], perm=[0, 2, 1, 3])
            shape = np.array([0, 0, 2 * len(here.order)], np.int64)
            made = net.add("Reshape", [made, net.weight(shape)])
        else:
            made = net.add("Squeeze", [made, net.weight(np.array([1], np.int64))])
        columns = [
            here.columns(net.rng(d).standard_normal((3, 2)), net.rng(13)) for d in range(directions)
        ]
        result = net.add("MatMul", [made, net.weight(np.concatenate(columns))])
        both.append(net.model((1, 2), result, 3))
    return both[0], both[1]


def _cell(
    net: Builder, op_type: str, inputs: Plan, units: Plan, direction: int
) -> tuple[np.ndarray, ...]:
    """Return W, R, B and P of a direction; the units planted have 0 for a candidate, or 0 read."""
    rng, gates, size = net.rng(11, direction), GATES[op_type], len(units.order)
    w_own, r_own = rng.standard_normal((gates, 3, 3)), 0.5 * rng.standard_normal((gates, 3, 3))
    b_own, p_own = rng.standard_normal((2, gates, 3)), rng.standard_normal((3, 3))
    own = [k for k, n in enumerate(units.order) if n >= 0]
    numbers = [units.order[k] for k in own]
    fill = net.rng(12, direction)
    w, r = fill.standard_normal((gates, size, 3)), fill.standard_normal((gates, size, size))
    b, p = fill.standard_normal((2, gates, size)), fill.standard_normal((3, size))
    others = [k for k in range(size) if k not in own]
    candidate = {"RNN": 0, "GRU": 2, "LSTM": 3}[op_type]
    if units.kind == "zero":
        r[candidate, others], b[:, candidate, others] = 0, 0
    else:
        r[:, np.ix_(own, others)[0], others] = 0
        r[np.ix_(range(gates), others, others)] *= np.eye(len(others))
    w[:, own] = w_own[:, numbers]
    r[np.ix_(range(gates), own, own)] = r_own[np.ix_(range(gates), numbers, numbers)]
    b[:, :, own], p[:, own] = b_own[:, :, numbers], p_own[:, numbers]
    wide = np.stack([inputs.columns(w[g].T, net.rng(14, g)).T for g in range(gates)])
    if units.kind == "zero":
        wide[candidate, others] = 0
    return (
        wide.reshape(gates * size, -1),
        r.reshape(gates * size, size),
        b.reshape(-1),
        p.reshape(-1),
    )
