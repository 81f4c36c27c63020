"""Stacks of layers in the plumbing of exporters, drawn at random, lose it bit by bit equal."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
from hypothesis import given

from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.cleanup.normalize import Normalize
from structopt_onnx.passes.recurrence.simplify_recurrent_plumbing import SimplifyRecurrentPlumbing
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_FEATURES, _HIDDEN = 3, 2


@dataclass(frozen=True)
class Stack:
    """Layers on top of each other, as an exporter writes them."""

    layers: tuple[str, ...]
    both_ways: bool
    batch_first: bool
    zeros: str
    merge: str
    picked: int
    wrapped: bool


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    layers = tuple(draw(st.lists(st.sampled_from(sorted(_GATES)), min_size=1, max_size=3)))
    both_ways = draw(st.booleans())
    return Stack(
        layers,
        both_ways,
        batch_first=draw(st.booleans()),
        zeros=draw(st.sampled_from(["expand", "constant_of_shape", "stored"])),
        merge=draw(st.sampled_from(["constant", "computed"])),
        picked=draw(st.integers(0, len(layers) * (1 + both_ways) - 1)),
        wrapped=draw(st.booleans()),
    )


class _Writer:
    def __init__(self, rng: np.random.Generator) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._rng = rng
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def constant(self, value: object, dtype: type = np.int64) -> str:
        name = self.name()
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def weight(self, *dims: int) -> str:
        return self.constant(self._rng.standard_normal(dims) / 2, np.float32)

    def add(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(oh.make_node(op_type, list(inputs), names, names[0], **attributes))
        return names[0]

    def slice(self, value: str, start: int, end: int) -> str:
        ranges = [self.constant([k]) for k in (start, end, 0)]
        return self.add("Slice", value, *ranges)


def _zeros(writer: _Writer, stack: Stack) -> str:
    """A state for every layer and direction; the batch is free or, where stored, 1."""
    count = len(stack.layers) * (1 + stack.both_ways)
    if stack.zeros == "stored":
        return writer.constant(np.zeros((count, 1, _HIDDEN)), np.float32)
    axis = 0 if stack.batch_first else 1
    batch = writer.add("Shape", "x", start=axis, end=axis + 1)
    first, last = writer.constant([count]), writer.constant([_HIDDEN])
    shape = writer.add("Concat", first, batch, last, axis=0)
    if stack.zeros == "expand":
        return writer.add("Expand", writer.constant(0, np.float32), shape)
    return writer.add("ConstantOfShape", shape)


def _merged(writer: _Writer, stack: Stack, y: str) -> str:
    """``[T, D, N, H]`` to ``[T, N, D H]``."""
    turned = writer.add("Transpose", y, perm=[0, 2, 1, 3])
    if stack.merge == "constant":
        return writer.add("Reshape", turned, writer.constant([0, 0, -1]))
    shape = writer.add("Shape", turned)
    product = writer.add("Mul", writer.slice(shape, 2, 3), writer.slice(shape, 3, 4))
    width = writer.add("Reshape", product, writer.constant([-1]))
    wanted = writer.add(
        "Concat", writer.slice(shape, 0, 1), writer.slice(shape, 1, 2), width, axis=0
    )
    return writer.add("Reshape", turned, wanted)


def _model(stack: Stack, rng: np.random.Generator) -> onnx.ModelProto:
    writer = _Writer(rng)
    directions = 1 + stack.both_ways
    zeros = _zeros(writer, stack)
    value, features, states = "x", _FEATURES, []
    if stack.batch_first:
        value = writer.add("Transpose", value, perm=[1, 0, 2])
    for number, op_type in enumerate(stack.layers):
        if stack.wrapped and number:  # every layer a batch-first module of its own
            value = writer.add("Transpose", value, perm=[1, 0, 2])
            value = writer.add("Transpose", value, perm=[1, 0, 2])
        state = writer.slice(zeros, number * directions, (number + 1) * directions)
        rows = _GATES[op_type] * _HIDDEN
        weights = (
            writer.weight(directions, rows, features),
            writer.weight(directions, rows, _HIDDEN),
        )
        given_states = [state, state] if op_type == "LSTM" else [state]
        direction = "bidirectional" if stack.both_ways else "forward"
        y = writer.add(
            op_type, value, *weights, "", "", *given_states,
            outputs=2, hidden_size=_HIDDEN, direction=direction,
        )  # fmt: skip
        states.append(writer.nodes[-1].output[1])
        value, features = _merged(writer, stack, y), directions * _HIDDEN
    if stack.batch_first:
        value = writer.add("Transpose", value, perm=[1, 0, 2])
    writer.nodes.append(oh.make_node("Neg", [value], ["y"], "y"))
    axis, last = int(stack.batch_first), writer.constant(-1)
    writer.nodes.append(oh.make_node("Gather", [value, last], ["z"], "z", axis=axis))
    joined = states[0] if len(states) == 1 else writer.add("Concat", *states, axis=0)
    index = writer.constant(stack.picked)
    writer.nodes.append(oh.make_node("Gather", [joined, index], ["h"], "h"))
    batch = 1 if stack.zeros == "stored" else "N"
    lead = [batch, "T"] if stack.batch_first else ["T", batch]
    float_ = onnx.TensorProto.FLOAT
    graph = oh.make_graph(
        writer.nodes,
        "g",
        [oh.make_tensor_value_info("x", float_, [*lead, _FEATURES])],
        [
            oh.make_tensor_value_info("y", float_, [*lead, features]),
            oh.make_tensor_value_info("h", float_, [batch, _HIDDEN]),
            oh.make_tensor_value_info("z", float_, [batch, features]),
        ],
        writer.initializers,
    )
    proto = oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])
    onnx.checker.check_model(proto, full_check=True)
    return proto


@given(stacks(), st.integers(0, 2**32 - 1))
def test_only_what_moves_data_is_left(stack: Stack, seed: int):
    rng = np.random.default_rng(seed)
    proto = _model(stack, rng)
    manager = PassManager(CpuTarget(), check_each_patch=True)
    after = to_proto(manager.run(load(proto), [Normalize(), SimplifyRecurrentPlumbing()]))
    onnx.checker.check_model(after, full_check=True)
    kinds = [node.op_type for node in after.graph.node]
    layers = len(stack.layers)
    assert not {"Expand", "ConstantOfShape", "Shape", "Slice", "Concat", "Mul"} & set(kinds)
    assert kinds.count("Transpose") == (
        layers * stack.both_ways + stack.batch_first * (1 if stack.both_ways else 2)
    )
    assert kinds.count("Reshape") == layers * stack.both_ways
    assert kinds.count("Squeeze") <= layers + 2
    assert kinds.count("Gather") == (2 if stack.both_ways else layers == 1)
    original = Session(proto.SerializeToString(), optimize=False)
    rewritten = Session(after.SerializeToString(), optimize=False)
    for steps, batch in ((1, 1), (4, 1 if stack.zeros == "stored" else 3)):
        dims = (batch, steps) if stack.batch_first else (steps, batch)
        x = rng.standard_normal((*dims, _FEATURES)).astype(np.float32)
        wanted, found = original.run({"x": x}), rewritten.run({"x": x})
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)
