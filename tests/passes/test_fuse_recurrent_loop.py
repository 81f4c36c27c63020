"""Scans and Loops around cells drawn at random become the operator and give the same."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
from hypothesis import given, settings

from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.recurrence.fuse_recurrent_loop import FuseRecurrentLoop
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class Loop:
    kind: str
    cell: str
    order: tuple[int, ...]
    joined: bool
    backwards: bool
    collected: bool
    features: int
    hidden: int


@st.composite
def loops(draw: st.DrawFn) -> Loop:
    cell = draw(st.sampled_from(sorted(_GATES)))
    kind = draw(st.sampled_from(["Scan", "Loop"]))
    return Loop(
        kind,
        cell,
        tuple(draw(st.permutations(range(_GATES[cell])))),
        joined=draw(st.booleans()) and cell != "GRU",
        backwards=draw(st.booleans()) and kind == "Scan",
        collected=draw(st.booleans()),
        features=draw(st.integers(1, 3)),
        hidden=draw(st.integers(1, 3)),
    )


class _Body:
    """Nodes of a cell whose weights are outside; every gate a slice of one product."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(oh.make_node(op_type, list(inputs), [name], name, **attributes))
        return name

    def gates(self, value: str) -> list[str]:
        """Cut into gates in the order of the weights, and return them in the cell's order."""
        count = _GATES[self.loop.cell]
        if count == 1:
            return [value]
        parts = [f"n{len(self.nodes)}_{k}" for k in range(count)]
        self.nodes.append(oh.make_node("Split", [value], parts, axis=1))
        return [parts[self.loop.order.index(k)] for k in range(count)]

    def step(self) -> tuple[str, ...]:
        """Return the next states, the output first."""
        add = self.add
        if self.loop.joined:
            product = add("MatMul", add("Concat", "x", "h", axis=1), "wr")
            total = self.gates(add("Add", product, "b"))
        else:
            inputs = self.gates(add("Add", add("MatMul", "x", "w"), "b"))
            states = self.gates(add("MatMul", "h", "r"))
            if self.loop.cell == "GRU":
                z, r, n = inputs
                update = add("Sigmoid", add("Add", z, states[0]))
                reset = add("Sigmoid", add("Add", r, states[1]))
                new = add("Tanh", add("Add", n, add("Mul", reset, states[2])))
                kept = add("Mul", add("Sub", "one", update), new)
                return (add("Add", kept, add("Mul", update, "h")),)
            total = [add("Add", a, b) for a, b in zip(inputs, states, strict=True)]
        if self.loop.cell == "RNN":
            return (add("Tanh", total[0]),)
        i, f, g, o = total
        kept = add("Mul", add("Sigmoid", f), "c")
        cell = add("Add", kept, add("Mul", add("Sigmoid", i), add("Tanh", g)))
        return add("Mul", add("Sigmoid", o), add("Tanh", cell)), cell


def _model(loop: Loop, rng: np.random.Generator) -> onnx.ModelProto:
    rows = _GATES[loop.cell] * loop.hidden
    draws = {"w": (loop.features, rows), "r": (loop.hidden, rows), "b": (rows,)}
    held = {n: rng.standard_normal(d).astype(np.float32) / 2 for n, d in draws.items()}
    held |= {"wr": np.concatenate([held["w"], held["r"]]), "one": np.float32(1)}
    body = _Body(loop)
    states = ["h", "c"][: 2 if loop.cell == "LSTM" else 1]
    value = oh.make_tensor_value_info
    state, entry = ["N", loop.hidden], ["N", loop.features]
    inside = [value(name, _FLOAT, state) for name in states]
    if loop.kind == "Loop":
        inside = [value("turn", onnx.TensorProto.INT64, []), value("go", 9, []), *inside]
        body.nodes.append(oh.make_node("Gather", ["X", "turn"], ["x"], axis=0))
        body.nodes.append(oh.make_node("Identity", ["go"], ["on"]))
    else:
        inside.append(value("x", _FLOAT, entry))
    made = list(body.step())
    if loop.collected:
        made.append(body.add("Identity", made[0]))
    outside = [value(name, _FLOAT, state) for name in made]
    if loop.kind == "Loop":
        outside = [value("on", 9, []), *outside]
    graph = oh.make_graph(body.nodes, "body", inside, outside)
    firsts = [f"{name}0" for name in states]
    outputs = [f"{name}n" for name in states] + ["all"] * loop.collected
    if loop.kind == "Loop":
        nodes = [
            oh.make_node("Shape", ["X"], ["d"], end=1),
            oh.make_node("Squeeze", ["d"], ["m"]),
            oh.make_node("Loop", ["m", "", *firsts], outputs, "loop", body=graph),
        ]
    else:
        ways = {"scan_input_directions": [1]} if loop.backwards else {}
        if loop.backwards and loop.collected:
            ways["scan_output_directions"] = [1]
        nodes = [
            oh.make_node(
                "Scan", [*firsts, "X"], outputs, "loop", body=graph, num_scan_inputs=1, **ways
            )
        ]
    shapes = {"all": ["T", *state]}
    main = oh.make_graph(
        nodes,
        "g",
        [value("X", _FLOAT, ["T", *entry]), *(value(name, _FLOAT, state) for name in firsts)],
        [value(name, _FLOAT, shapes.get(name, state)) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )
    proto = oh.make_model(main, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])
    onnx.checker.check_model(proto, full_check=True)
    return proto


@settings(max_examples=25)
@given(loops(), st.integers(0, 2**32 - 1))
def test_a_loop_around_a_cell_is_the_operator(loop: Loop, seed: int):
    rng = np.random.default_rng(seed)
    proto = _model(loop, rng)
    manager = PassManager(CpuTarget(), check_each_patch=True)
    after = to_proto(manager.run(load(proto), [FuseRecurrentLoop()]))
    onnx.checker.check_model(after, full_check=True)
    kinds = [node.op_type for node in after.graph.node]
    assert kinds.count(loop.cell) == 1
    assert not {"Scan", "Loop"} & set(kinds)
    original = Session(proto.SerializeToString(), optimize=False)
    rewritten = Session(after.SerializeToString(), optimize=False)
    for steps, batch in ((1, 1), (5, 3)):
        feeds = {"X": rng.standard_normal((steps, batch, loop.features))}
        for name in ("h0", "c0")[: 2 if loop.cell == "LSTM" else 1]:
            feeds[name] = rng.standard_normal((batch, loop.hidden))
        feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
        wanted, found = original.run(feeds), rewritten.run(feeds)
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)
