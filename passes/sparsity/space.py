"""Operators that look at each channel over space: pools, reductions, padding, softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.convolution.geometry import auto_pad, integer, integers
from structopt_onnx.passes.sparsity import arithmetic
from structopt_onnx.passes.sparsity.lanes import Held, Lanes
from structopt_onnx.passes.sparsity.moves import integers_of, source

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.passes.sparsity.lanes import Table

_BY_AXIS = 13  # Softmax, which took all axes from `axis` on for one before


def pool(table: Table, node: ir.Node) -> str:
    """Note a pool: constants stay, maxima let positive factors through and means all."""
    lanes = source(table, node)
    if lanes is None:
        return ""
    rank = table.facts.rank(node.inputs[0])
    if rank != 1 - lanes.axis or len(node.outputs) > 1:
        return "unknown-reader"
    if node.op_type in {"MaxPool", "GlobalMaxPool"}:
        held = arithmetic.homogeneous(table, lanes.held, lanes.held.factors)
    else:
        held = arithmetic.linear(table, lanes.held)
        counted = integer(node, "count_include_pad", 0) == 1
        padded = auto_pad(node) not in {"NOTSET", "VALID"} or any(integers(node, "pads", ()))
        padded |= integer(node, "ceil_mode", 0) == 1
        if counted and padded:
            held = _lost(table, lanes.held, held)
            table.padded.append(lanes.ids[lanes.held.constant & ~lanes.held.zero])
    table.lanes[node.outputs[0]] = Lanes(lanes.axis, lanes.ids, held)
    return ""


def _lost(table: Table, was: Held, now: Held) -> Held:
    """Take constants but 0 for unknown: what is padded differs from them."""
    fresh = table.new_symbols(was.symbols)
    return Held(np.where(was.constant & ~was.zero, fresh, now.symbols), now.factors)


def reduction(table: Table, node: ir.Node) -> str:
    """Note a mean, sum or extreme over other axes than that of the channels."""
    lanes = source(table, node)
    if lanes is None:
        return ""
    rank, axes = table.facts.rank(node.inputs[0]), integers_of(table, node, 1, "axes")
    if rank is None or not axes:
        return "mixes-channels"
    gone = {axis % rank for axis in axes}
    at = lanes.axis + rank
    if at in gone:
        return "mixes-channels"
    if node.op_type in {"ReduceMax", "ReduceMin"}:
        held = arithmetic.homogeneous(table, lanes.held, lanes.held.factors)
    else:
        held = arithmetic.linear(table, lanes.held)
    if node.op_type == "ReduceSum":
        held = _lost(table, lanes.held, held)
    behind = lanes.axis
    if integer(node, "keepdims", 1) == 0:
        behind += sum(axis > at for axis in gone)
    table.lanes[node.outputs[0]] = Lanes(behind, lanes.ids, held)
    return ""


def pad(table: Table, node: ir.Node) -> str:
    """Note padding with a constant on other axes than that of the channels."""
    lanes = source(table, node)
    if lanes is None:
        return ""
    pads = integers_of(table, node, 1, "pads")
    rank, at = table.facts.rank(node.inputs[0]), lanes.axis
    partial = len(node.inputs) > 3 and node.inputs[3] is not None  # noqa: PLR2004 - axes
    if pads is None or rank is None or partial or len(pads) != 2 * rank:
        return "unknown-reader"
    if pads[at] or pads[at - rank]:
        return "mixes-channels"
    held = arithmetic.linear(table, lanes.held)
    value = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 - the value
    mode = node.attributes.get("mode")
    if mode is None or mode.as_string() == "constant":
        fill = table.facts.array(value) if value is not None else np.zeros(())
        attribute = node.attributes.get("value")
        plain = fill is not None and not fill.any()
        if not plain or (attribute is not None and attribute.as_float() != 0):
            held = table.unknown(lanes.size)
        else:
            held = _lost(table, lanes.held, held)
        table.padded.append(lanes.ids[lanes.held.constant & ~lanes.held.zero])
    table.lanes[node.outputs[0]] = Lanes(lanes.axis, lanes.ids, held)
    return ""


def mixing(table: Table, node: ir.Node) -> str:
    """Note an operator that looks at all channels together."""
    return "mixes-channels" if any(value in table.lanes for value in node.inputs) else ""


def softmax(table: Table, node: ir.Node) -> str:
    """Note a softmax over another axis than that of the channels."""
    lanes = source(table, node)
    if lanes is None:
        return ""
    rank, axis = table.facts.rank(node.inputs[0]), integer(node, "axis", -1)
    by_axis = (table.facts.opset(table.scope) or 1) >= _BY_AXIS
    if not by_axis or rank is None or axis % rank == lanes.axis + rank:
        return "mixes-channels"
    made = np.zeros(lanes.size)
    held = arithmetic.any_function(table, [lanes.held], np.zeros(lanes.size, bool), made)
    table.lanes[node.outputs[0]] = Lanes(lanes.axis, lanes.ids, held)
    return ""
