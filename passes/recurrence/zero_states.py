"""Initial states that are zeros in every run, which is what leaving them out means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.recurrence import operators as op
from structopt_onnx.passes.recurrence.removal import with_orphans
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

# What these make of zeros is zeros, whatever their other inputs are.
_MOVES = {
    "Cast",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
}


def without_zero_states(node: ir.Node, scope: Scope, facts: Facts) -> Patch | Refusal | None:
    """Describe leaving out the initial states of a recurrent node that are zeros.

    The operators' specification: a missing ``initial_h`` or ``initial_c`` is 0.
    """
    if op.is_batch_first(node):
        return None
    operands: list[Operand] = list(node.inputs)
    dropped = []
    for index in (op.INITIAL_H, op.INITIAL_C):
        value = op.operand(node, index)
        if value is None:
            continue
        zero = is_zero(value, facts)
        if zero is None:
            detail = f"'{value.name}' is zero unless the caller says otherwise"
            return Refusal("state-can-be-overridden", detail, node.name or "")
        if zero:
            operands[index] = None
            dropped.append("h" if index == op.INITIAL_H else "c")
    if not dropped:
        return None
    while operands[-1] is None:
        operands.pop()
    outputs = tuple(
        Fresh(f"{output.name or node.name or node.op_type}_{index}")
        for index, output in enumerate(node.outputs)
    )
    new = NewNode(node.op_type, tuple(operands), outputs, dict(node.attributes.items()))
    rewire = {old: fresh for old, fresh in zip(node.outputs, outputs, strict=True) if old.name}
    gone = with_orphans([node], operands)
    title = f"{node.op_type} {node.name}: initial {' and '.join(dropped)} of zeros left out"
    return Patch(title, node, {scope: Edit(gone, (new,), rewire=rewire)})


def is_zero(value: ir.Value, facts: Facts) -> bool | None:
    """Whether a value is positive zeros; None where it is so by a default of the caller's."""
    if value.is_graph_input():
        default = value.const_value
        return None if default is not None and _all_zero(default.numpy()) else False
    array = facts.array(value)
    if array is not None:
        return _all_zero(array)
    node = value.producer()
    if node is None or node.domain != "":
        return False
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or _all_zero(fill.as_tensor().numpy())
    if node.op_type == "Concat":
        return _all(node.inputs, facts)
    return _all(node.inputs[:1], facts) if node.op_type in _MOVES else False


def _all(values: Sequence[ir.Value | None], facts: Facts) -> bool | None:
    found = [value is not None and is_zero(value, facts) for value in values]
    if False in found:
        return False
    return None if None in found else True


def _all_zero(array: np.ndarray) -> bool:
    return not array.any() and not (array.dtype.kind == "f" and np.signbit(array).any())
