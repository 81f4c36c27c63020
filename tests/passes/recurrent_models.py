"""Models of one recurrent node with everything it may have, and their samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
FEATURES, HIDDEN = 3, 2
# Functions that take alpha, and those that take beta too: given or by default.
FUNCTIONS = {
    "Relu": 0,
    "Tanh": 0,
    "Sigmoid": 0,
    "Softsign": 0,
    "Softplus": 0,
    "LeakyRelu": 1,
    "ThresholdedRelu": 1,
    "Elu": 1,
    "HardSigmoid": 2,
    "Affine": 2,
    "ScaledTanh": 2,
}
BOUNDED = ["HardSigmoid", "Sigmoid", "Softsign", "Tanh"]


@dataclass(frozen=True)
class Node:
    op_type: str
    direction: str = "forward"
    reset: int = 0
    bias: bool = True
    state_h: bool = False
    state_c: bool = False
    peepholes: bool = False
    activations: tuple[str, ...] = ()
    defaults: bool = False
    steps: int = 3
    batch: int | str = "N"
    opset: int = 17
    kind: int = onnx.TensorProto.FLOAT
    outputs: frozenset[str] = field(default=frozenset({"Y", "Y_h", "Y_c"}))

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1


@st.composite
def nodes(draw: st.DrawFn):
    op_type = draw(st.sampled_from(sorted(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    each = ACTIVATIONS[op_type] * (2 if direction == "bidirectional" else 1)
    # Several functions without bounds in one cell grow past what float32 holds.
    functions = draw(st.lists(st.sampled_from(BOUNDED), min_size=each, max_size=each))
    functions[draw(st.integers(0, each - 1))] = draw(st.sampled_from(sorted(FUNCTIONS)))
    own = ["Y", "Y_h", "Y_c"] if op_type == "LSTM" else ["Y", "Y_h"]
    return Node(
        op_type,
        direction,
        reset=draw(st.integers(0, 1)),
        bias=draw(st.booleans()),
        state_h=draw(st.booleans()),
        state_c=draw(st.booleans()) and op_type == "LSTM",
        peepholes=draw(st.booleans()) and op_type == "LSTM",
        activations=tuple(functions) if draw(st.booleans()) else (),
        defaults=draw(st.booleans()),
        steps=draw(st.integers(1, 5)),
        batch=draw(st.sampled_from(["N", 1, 3])),
        opset=draw(st.sampled_from([9, 13, 17, 20])),
        outputs=frozenset(draw(st.sets(st.sampled_from(own), min_size=1))),
    )


def _attributes(node: Node) -> dict[str, Any]:
    attributes: dict[str, Any] = {"hidden_size": HIDDEN, "direction": node.direction}
    if node.op_type == "GRU":
        attributes["linear_before_reset"] = node.reset
    if not node.activations:
        return attributes
    attributes["activations"] = list(node.activations)
    must = {"Affine", "ScaledTanh", "ThresholdedRelu"} & set(node.activations)
    if must or not node.defaults:
        takes = [FUNCTIONS[name] for name in node.activations]
        for key, least, values in (
            ("activation_alpha", 1, np.arange(0.3, 1.0, 0.1)),
            ("activation_beta", 2, np.arange(0.6, 0.0, -0.1)),
        ):
            if given := values[: sum(t >= least for t in takes)].tolist():
                attributes[key] = given
    return attributes


def model(node: Node, rng: np.random.Generator) -> onnx.ModelProto:
    dtype = oh.tensor_dtype_to_np_dtype(node.kind)

    def weights(*dims: int) -> np.ndarray:
        return (rng.standard_normal(dims) / 2).astype(dtype)

    rows = GATES[node.op_type] * HIDDEN
    constants = {
        "W": weights(node.directions, rows, FEATURES),
        "R": weights(node.directions, rows, HIDDEN),
    }
    inputs = ["X", "W", "R", "", "", "", "", ""]
    values = [("X", [node.steps, node.batch, FEATURES])]
    state = [node.directions, node.batch, HIDDEN]
    if node.bias:
        constants["B"], inputs[3] = weights(node.directions, 2 * rows), "B"
    for index, name, given in ((5, "h0", node.state_h), (6, "c0", node.state_c)):
        if given:
            inputs[index] = name
            values.append((name, state))
    if node.peepholes:
        constants["P"], inputs[7] = weights(node.directions, 3 * HIDDEN), "P"
    while not inputs[-1]:
        inputs.pop()
    attributes = _attributes(node)
    shapes = {"Y": [node.steps, *state], "Y_h": state, "Y_c": state}
    names = list(shapes)[: 3 if node.op_type == "LSTM" else 2]
    outputs = [name if name in node.outputs else "" for name in names]
    while not outputs[-1]:
        outputs.pop()
    graph = oh.make_graph(
        [oh.make_node(node.op_type, inputs, outputs, "cell", **attributes)],
        "g",
        [oh.make_tensor_value_info(name, node.kind, dims) for name, dims in values],
        [oh.make_tensor_value_info(n, node.kind, shapes[n]) for n in outputs if n],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto = oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", node.opset)])
    onnx.checker.check_model(proto, full_check=True)
    return proto


def samples(node: Node, rng: np.random.Generator, count: int = 2) -> list[dict[str, np.ndarray]]:
    dtype = oh.tensor_dtype_to_np_dtype(node.kind)
    made = []
    for _ in range(count):
        batch = node.batch if isinstance(node.batch, int) else int(rng.integers(1, 4))
        feeds = {"X": rng.standard_normal((node.steps, batch, FEATURES)).astype(dtype)}
        for name, given in (("h0", node.state_h), ("c0", node.state_c)):
            if given:
                shape = (node.directions, batch, HIDDEN)
                feeds[name] = rng.standard_normal(shape).astype(dtype)
        made.append(feeds)
    return made
