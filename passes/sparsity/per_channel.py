"""Operators that work element by element, or on each channel with numbers of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.passes.convolution.geometry import integer
from structopt_onnx.passes.convolution.pointwise import BROADCASTING, UNARY
from structopt_onnx.passes.sparsity import arithmetic
from structopt_onnx.passes.sparsity.lanes import Held, Lanes

if TYPE_CHECKING:
    from structopt_onnx.passes.sparsity.lanes import Table

# A constant may come out on the other side of a step when it is rounded.
_STEPS = {"Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod"} | {
    "Round",
    "Sign",
    "ThresholdedRelu",
    "And",
    "Or",
    "Xor",
    "Not",
}
_HOMOGENEOUS = {"Abs", "LeakyRelu", "Relu"}
SAME = frozenset({"Cast", "Identity"})
ELEMENTWISE = (UNARY | BROADCASTING) - _STEPS - SAME
_EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class _Operand:
    held: Held
    numbers: npt.NDArray[Any] | None = None
    """One number, or one per lane, where the operand is stored."""


def elementwise(table: Table, node: ir.Node) -> str:
    """Note an operator whose output lane is made of the same lane of each operand."""
    found = [table.lanes[v] for v in node.inputs if v in table.lanes]
    if not found or len(node.outputs) != 1:
        return "unknown-reader" if found else ""
    lead = max(found, key=lambda lanes: lanes.size)
    operands: list[_Operand | None] = []
    joined, sliced, widened = [], [], []
    for index, value in enumerate(node.inputs):
        operand = None if value is None else _stored(table, value, lead)
        if operand is None and value is not None:
            lanes = table.wanted(value, lead.axis, lead.size)
            if lanes is not None:
                joined.append(lanes)
                operand = _Operand(lanes.held)
            elif _is_broadcast(table, value, lead):
                widened.append(value)
                operand = _Operand(_same_on_all(table, lead))
            else:
                return "may-broadcast"
        elif value is not None and _has_lanes(table, value, lead):
            sliced.append(index)
        operands.append(operand)
    output = node.outputs[0]
    for lanes in joined:
        table.join(lead.ids, lanes.ids)
    for value in widened:
        table.fix(value, "may-broadcast")
    for index in sliced:
        table.slice(node, index, lead.axis, lead.ids)
    table.lanes[output] = Lanes(lead.axis, lead.ids, _made(table, node, operands, lead.size))
    return ""


def _has_lanes(table: Table, value: ir.Value, lead: Lanes) -> bool:
    shape = table.facts.shape(value)
    return shape is not None and len(shape) >= -lead.axis and shape[lead.axis] == lead.size > 1


def _is_broadcast(table: Table, value: ir.Value, lead: Lanes) -> bool:
    lanes = table.lanes.get(value)
    if lanes is not None and lanes.axis == lead.axis:
        return lanes.size == 1
    dims = table.facts.dims(value)
    return dims is not None and (len(dims) < -lead.axis or dims[lead.axis] == 1)


def _same_on_all(table: Table, lead: Lanes) -> Held:
    return Held(table.new_symbols(np.zeros(lead.size)), np.ones(lead.size))


def _stored(table: Table, value: ir.Value, lead: Lanes) -> _Operand | None:
    """Return a stored operand; None where the value is made by the model or does not fit."""
    tensor = table.facts.tensor(value)
    if tensor is None or value in table.lanes:
        return None
    if not (_is_broadcast(table, value, lead) or _has_lanes(table, value, lead)):
        return None
    numeric = tensor.dtype.is_floating_point() or tensor.dtype.is_integer()
    if not numeric or tensor.size not in {1, lead.size}:
        return _Operand(_spread(table, value, lead))
    numbers = np.asarray(tensor.numpy()).astype(np.float64).reshape(-1)
    if tensor.size == 1:
        return _Operand(arithmetic.constants(numbers[0], lead.size), numbers.reshape(()))
    if not _has_lanes(table, value, lead):
        return _Operand(_same_on_all(table, lead))
    return _Operand(arithmetic.constants(numbers, lead.size), numbers)


def _spread(table: Table, value: ir.Value, lead: Lanes) -> Held:
    """Return what a stored operand that differs from position to position holds."""
    return table.unknown(lead.size) if _has_lanes(table, value, lead) else _same_on_all(table, lead)


def _made(table: Table, node: ir.Node, operands: list[_Operand | None], count: int) -> Held:
    present = [operand.held for operand in operands if operand is not None]
    kind, first = node.op_type, present[0]
    if kind == "Neg":
        return arithmetic.negated(first)
    if len(present) == 2:  # noqa: PLR2004 - of binary operators
        second = present[1]
        if kind in {"Add", "Sum"}:
            return arithmetic.total(table, first, second)
        if kind == "Sub":
            return arithmetic.total(table, first, arithmetic.negated(second))
        if kind == "Mul":
            return arithmetic.product(table, first, second)
        if kind == "Div" and second.constant.all() and second.factors.all():
            return arithmetic.product(table, first, arithmetic.constants(1 / second.factors, count))
    mask = np.logical_and.reduce([held.constant for held in present])
    numbers = [
        None if o is None else o.held.factors if o.numbers is None else o.numbers for o in operands
    ]
    opset = table.facts.opset(table.scope) or 1
    made = arithmetic.evaluated(node, numbers, opset, mask)
    if kind in _HOMOGENEOUS:
        return arithmetic.homogeneous(table, first, made)
    if kind == "PRelu" and present[1].constant.all():
        return arithmetic.homogeneous(table, first, made, present[1].factors)
    return arithmetic.any_function(table, present, mask, made)


def same(table: Table, node: ir.Node) -> str:
    """Note an operator whose output is its input, to another type perhaps."""
    value = node.inputs[0]
    if value not in table.lanes:
        return ""
    if node.op_type == "Cast" and not ir.DataType(integer(node, "to", 0)).is_floating_point():
        return "not-floating"
    table.lanes[node.outputs[0]] = table.lanes[value]
    return ""


def normalization(table: Table, node: ir.Node) -> str:
    """Note a BatchNormalization by stored statistics."""
    lanes = table.lanes.get(node.inputs[0]) if node.inputs[0] is not None else None
    if lanes is None:
        return ""
    stored = [table.facts.array(value) for value in node.inputs[1:]]
    usual = integer(node, "training_mode", 0) == 0 and integer(node, "spatial", 1) == 1
    at_channels = table.facts.rank(node.inputs[0]) == 1 - lanes.axis
    if not usual or not at_channels or any(output.uses() for output in node.outputs[1:]):
        return "unknown-reader"
    arrays = [array.astype(np.float64) for array in stored if array is not None]
    if len(arrays) < len(stored):
        return "weight-can-change"
    scale, bias, mean, variance = arrays
    attribute = node.attributes.get("epsilon")
    factor = scale / np.sqrt(variance + (_EPSILON if attribute is None else attribute.as_float()))
    scaled = arithmetic.product(table, lanes.held, arithmetic.constants(factor, lanes.size))
    offset = arithmetic.constants(bias - mean * factor, lanes.size)
    held = arithmetic.total(table, scaled, offset)
    table.lanes[node.outputs[0]] = Lanes(lanes.axis, lanes.ids, held)
    for index in range(1, len(node.inputs)):
        table.slice(node, index, 0, lanes.ids)
    return ""
