"""What an RNN, GRU or LSTM node says about itself (ONNX operators of the same names)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
"""Gates by operator; the rows of W and R are gates times hidden size."""

X, W, R, B, LENGTHS, INITIAL_H, INITIAL_C, PEEPHOLES = range(8)
"""Positions of the inputs; RNN and GRU end with INITIAL_H."""

Y, Y_H, Y_C = range(3)
"""Positions of the outputs; RNN and GRU end with Y_H."""


def is_recurrent(node: ir.Node | None) -> bool:
    """Whether a node is an RNN, GRU or LSTM of the default domain."""
    return node is not None and node.domain == "" and node.op_type in GATES


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_batch_first(node: ir.Node) -> bool:
    """Whether X, Y and the states have the batch in front (`layout`, from opset 14 on)."""
    layout = node.attributes.get("layout")
    return layout is not None and layout.as_int() != 0


def directions(node: ir.Node) -> tuple[str, ...]:
    """Return ``forward``, ``reverse``, or both in the order of the weights' first axis."""
    attribute = node.attributes.get("direction")
    direction = "forward" if attribute is None else attribute.as_string()
    return ("forward", "reverse") if direction == "bidirectional" else (direction,)


def hidden_size(node: ir.Node, facts: Facts) -> int | None:
    """Return the size of the state, by the attribute or else by R, [D, G H, H]."""
    attribute = node.attributes.get("hidden_size")
    if attribute is not None:
        return attribute.as_int()
    dims = facts.dims(operand(node, R))
    return dims[-1] if dims else None
