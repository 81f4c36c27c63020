"""RNN, GRU and LSTM: hidden units, each with its rows in all gates and its recurrent column."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from structopt_onnx.passes.recurrence import operators as op
from structopt_onnx.passes.sparsity.lanes import CONSTANT, Change, Cut, Held, Lanes, Read
from structopt_onnx.passes.sparsity.moves import source

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.passes.sparsity.lanes import Ints, Mask, Table

Array = npt.NDArray[Any]

_KEEPS_ZERO = {"LeakyRelu", "Relu", "Softsign", "Tanh"}
# The gate that says what a unit becomes, by operator; without it a unit stays at 0.
_CANDIDATE = {"RNN": 0, "GRU": 2, "LSTM": 3}
_ACTIVATIONS = {"RNN": (0,), "GRU": (1,), "LSTM": (1, 2)}
_PER_DIRECTION = {"RNN": 1, "GRU": 2, "LSTM": 3}


def recurrent(table: Table, node: ir.Node) -> str:
    """Note a recurrent node: what it reads, and its units in all outputs and states."""
    facts = table.facts
    stored = [op.operand(node, index) for index in (op.W, op.R, op.B, op.PEEPHOLES)]
    arrays = [facts.array(value) for value in stored]
    weight, square, bias, peepholes = arrays
    missing = any(a is None for a, v in zip(arrays, stored, strict=True) if v is not None)
    if weight is None or square is None or missing or op.is_batch_first(node):
        return "weight-can-change"
    if weight.dtype.kind != "f":
        return "not-floating"
    gates, size = op.GATES[node.op_type], square.shape[2]
    ids = table.new_ids(size)
    rows = np.tile(ids, gates)
    table.slice(node, op.W, 1, rows)
    table.slice(node, op.R, 1, rows)
    table.slice(node, op.R, 2, ids)
    if bias is not None:
        table.slice(node, op.B, 1, np.tile(ids, 2 * gates))
    if peepholes is not None:
        table.slice(node, op.PEEPHOLES, 1, np.tile(ids, 3))
    idle = _starts_at_zero(table, node, ids) & _stays_at_zero(node, weight, square, bias)
    unknown = table.unknown(size)
    held = Held(np.where(idle, CONSTANT, unknown.symbols), np.where(idle, 0.0, 1.0))
    table.makers.append(node)
    for output in node.outputs:
        table.lanes[output] = Lanes(-1, ids, held)
    others = square.reshape(square.shape[0], gates, size, size).copy()
    others[:, :, np.arange(size), np.arange(size)] = 0  # a unit may read itself
    states = Lanes(-1, ids, held)
    table.reads.append(Read(node, states, ~others.any(axis=(0, 1, 2)) | idle, False, "recurrent"))
    table.changes[node] = partial(_change, ids, _inputs(table, node, weight), weight, bias)
    return ""


def _change(ids: Ints, read: Read | None, weight: Array, bias: Array | None, /, cut: Cut) -> Change:
    """Add what lost features gave to others and to the bias of the inputs."""
    kept, operands = cut.kept(ids), {}
    attributes = {"hidden_size": int(kept.sum())}
    if read is None:
        return Change(attributes)
    held, merged = read.lanes.held, cut.merged.get(read, ())
    columns = weight.astype(np.float64)
    for lost, into, factor in merged:
        columns[:, :, into] += factor * columns[:, :, lost]
    if merged:
        operands[op.W] = columns.astype(weight.dtype)
    gone = ~cut.kept(read.lanes.ids) & held.constant & (held.factors != 0)
    gone[[lost for lost, _, _ in merged]] = False
    added = columns[:, :, gone] @ held.factors[gone]
    if added.any():
        directions, rows, _ = weight.shape
        summed = np.zeros((directions, 2 * rows)) if bias is None else bias.astype(np.float64)
        summed[:, :rows] += added
        # A bias that was there is sliced like all other operands.
        whole = np.tile(kept, 2 * rows // len(ids)) if bias is None else slice(None)
        operands[op.B] = summed[:, whole].astype(weight.dtype)
    return Change(attributes, operands)


def _inputs(table: Table, node: ir.Node, weight: Array) -> Read | None:
    """Note the reading of the sequence."""
    lanes = source(table, node)
    if lanes is None:
        return None
    if (lanes.axis, lanes.size) != (-1, weight.shape[2]):
        table.fix(node.inputs[op.X], "unknown-reader")
        return None
    free = ~weight.any(axis=(0, 1)) | lanes.held.constant
    read = Read(node, lanes, free, merges=True, code="bias-can-change")
    table.reads.append(read)
    table.slice(node, op.W, 2, lanes.ids)
    return read


def _starts_at_zero(table: Table, node: ir.Node, ids: Ints) -> Mask:
    """Return which units have no initial state but 0, which goes with them."""
    zero = np.ones(len(ids), bool)
    for index in (op.INITIAL_H, op.INITIAL_C):
        value = op.operand(node, index)
        if value is None:
            continue
        array = table.facts.array(value)
        if array is not None and array.shape[-1] == len(ids):
            table.slice(node, index, -1, ids)
            zero &= ~array.reshape(-1, len(ids)).any(axis=0)
            continue
        lanes = table.wanted(value, -1, len(ids))
        if lanes is None:
            table.fix(value, "unknown-reader")
            table.fixed.append((ids, "made-elsewhere"))
            zero[:] = False
        else:
            table.join(ids, lanes.ids)
            zero &= lanes.held.zero
    return zero


def _stays_at_zero(node: ir.Node, weight: Array, square: Array, bias: Array | None) -> Mask:
    """Return which units can't leave 0, in every direction."""
    directions, _, size = square.shape
    gates, candidate = op.GATES[node.op_type], _CANDIDATE[node.op_type]
    named = node.attributes.get("activations")
    if named is not None:
        names, each = named.as_strings(), _PER_DIRECTION[node.op_type]
        chosen = (
            names[d * each + k] for d in range(directions) for k in _ACTIVATIONS[node.op_type]
        )
        if not set(chosen) <= _KEEPS_ZERO:
            return np.zeros(size, bool)
    parts = [weight, square] + ([] if bias is None else [bias.reshape(directions, 2, -1)])
    busy = np.zeros(size, bool)
    for part in parts:
        rows = part.swapaxes(1, 2) if part is parts[-1] and bias is not None else part
        blocks = rows.reshape(directions, gates, size, -1)
        busy |= blocks[:, candidate].any(axis=(0, 2))
    return ~busy
