"""Convolutions and matrix products: stored weights that mix lanes and make new ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.passes.convolution.geometry import integer, integers, kernel_shape, pads
from structopt_onnx.passes.sparsity.lanes import CONSTANT, Change, Cut, Held, Lanes, Offset, Read
from structopt_onnx.passes.sparsity.proportional import proportional

if TYPE_CHECKING:
    from structopt_onnx.passes.sparsity.lanes import Floats, Ints, Table

_FLOATS = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}
_BIAS = 2
_MATRIX = 2
_SUM_LIMIT = 4
"""A summand below the unit roundoff of another by this is lost whichever way it is rounded."""


@dataclass(frozen=True, eq=False)
class Product:
    """A node that multiplies lanes by a stored weight.

    Parameters
    ----------
    node, source, weight
        The node and the positions of its two factors.
    axis
        Of the lanes it reads and of those it makes, from the end.
    into, out
        The axes of the weight that go with them.
    groups
        In how many blocks lanes are mixed.
    takes_bias
        Whether the operator has one, as its third operand.
    spreads
        Whether a constant lane adds the same to every position.
    scale, share
        What products and the bias are multiplied by.
    """

    node: ir.Node
    source: int
    weight: int
    axis: int
    into: int
    out: int
    groups: int = 1
    takes_bias: bool = True
    spreads: bool = True
    scale: float = 1.0
    share: float = 1.0


def convolution(table: Table, node: ir.Node) -> str:
    """Note a Conv or ConvTranspose."""
    rank = table.facts.rank(node.inputs[1])
    if rank is None:
        return "weight-can-change"
    groups, transposed = integer(node, "group", 1), node.op_type == "ConvTranspose"
    kernel, padding = kernel_shape(node, table.facts), pads(node, table.facts)
    ones = (1,) * (rank - 2)
    point = kernel == ones
    if transposed:
        plain = integers(node, "strides", ones) == ones and "output_shape" not in node.attributes
        plain = plain and not any(integers(node, "output_padding", ()))
        spreads = point and plain and padding is not None and not any(padding)
    else:
        spreads = padding is not None and not any(padding)
    into, out = (0, 1) if transposed else (1, 0)
    found = Product(node, 0, 1, 1 - rank, into, out, groups, spreads=spreads)
    return _note(table, found)


def gemm(table: Table, node: ir.Node) -> str:
    """Note a Gemm with a stored second factor."""
    if integer(node, "transA", 0):
        return "weight-can-change"
    into, out = (1, 0) if integer(node, "transB", 0) else (0, 1)
    scale, share = (
        1.0 if name not in node.attributes else node.attributes[name].as_float()
        for name in ("alpha", "beta")
    )
    found = Product(node, 0, 1, -1, into, out, scale=scale, share=share)
    return _note(table, found)


def matmul(table: Table, node: ir.Node) -> str:
    """Note a MatMul with a stored matrix on either side."""
    left, right = node.inputs
    if table.facts.tensor(right) is not None:
        return _note(table, Product(node, 0, 1, -1, 0, 1, takes_bias=False))
    if table.facts.tensor(left) is not None:
        return _note(table, Product(node, 1, 0, -2, 1, 0, takes_bias=False))
    return "weight-can-change"


def _note(table: Table, found: Product) -> str:
    node, facts = found.node, table.facts
    value, weight = node.inputs[found.source], node.inputs[found.weight]
    tensor = facts.tensor(weight)
    if value is None or weight is None or tensor is None:
        return "weight-can-change"
    if tensor.dtype not in _FLOATS:
        return "not-floating"
    if not found.takes_bias and len(tensor.shape) != _MATRIX:
        return "unknown-reader"
    if found.source == 1 and (facts.rank(value) or 0) < _MATRIX:
        return "unknown-reader"
    array = tensor.numpy()
    lanes = table.lanes.get(value)
    sources, results = array.shape[found.into], array.shape[found.out]
    if node.op_type == "Conv":
        sources *= found.groups
    elif node.op_type == "ConvTranspose":
        results *= found.groups
    if lanes is not None and (lanes.axis, lanes.size) != (found.axis, sources):
        return "unknown-reader"
    held = table.unknown(sources) if lanes is None else lanes.held
    ids = table.new_ids(results)
    bias, takes = _bias(table, found, results, ids)
    rows = _rows(array, found)
    made = _made(table, found, rows, held, bias, epsilon=float(np.finfo(array.dtype).eps))
    table.lanes[node.outputs[0]] = Lanes(found.axis, ids, made)
    table.makers.append(node)
    kept_axis = found.out - array.ndim
    if found.groups == 1:
        table.slice(node, found.weight, kept_axis, ids)
        if lanes is None:
            return ""
        table.slice(node, found.weight, found.into - array.ndim, lanes.ids)
        zero = ~rows.any(axis=(0, 2))
        free = zero | held.zero | (held.constant & (takes and found.spreads))
        code = "padded-constant" if not found.spreads else "bias-can-change"
        read = Read(node, lanes, free, merges=True, code=code)
        table.reads.append(read)
        table.changes[node] = partial(_change, found, table, read, ids)
        return ""
    return _grouped(table, found, lanes, ids, array.ndim)


def _grouped(table: Table, found: Product, lanes: Lanes | None, ids: Ints, rank: int) -> str:
    """Join the lanes of each group: a group goes as a whole."""
    groups, node = found.groups, found.node
    if lanes is None:  # an input of the model is not cut, nor is what it is multiplied by
        table.fix(node.outputs[0], "made-elsewhere")
        return ""
    if not found.spreads:
        table.padded.append(lanes.ids[lanes.held.constant & ~lanes.held.zero])
    blocks = np.concatenate([lanes.ids.reshape(groups, -1), ids.reshape(groups, -1)], axis=1)
    table.join(np.repeat(blocks[:, 0], blocks.shape[1]), blocks.reshape(-1))
    if blocks.shape[1] > _MATRIX:
        table.blocks.append(blocks.reshape(-1))
    # The weight has all groups one after another along its first axis.
    table.slice(node, found.weight, -rank, ids if found.out == 0 else lanes.ids)
    per_group = ids.reshape(groups, -1)[:, 0]
    table.changes[node] = lambda cut: Change({"group": int(cut.kept(per_group).sum())})
    return ""


def _rows(array: npt.NDArray[Any], found: Product) -> npt.NDArray[Any]:
    """Return a weight as [results, sources of one group, taps], half precision widened."""
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if found.out == 0 or found.groups == 1:
        rows = np.moveaxis(array, (found.out, found.into), (0, 1))
    else:  # of a ConvTranspose: [sources, results of one group, ...]
        blocks = array.reshape(found.groups, -1, *array.shape[1:])
        rows = np.moveaxis(blocks, 2, 1).reshape(-1, blocks.shape[1], *array.shape[2:])
    return rows.reshape(rows.shape[0], rows.shape[1], -1)


def _bias(table: Table, found: Product, results: int, ids: Ints) -> tuple[Floats | None, bool]:
    """Return the bias per result, None where it is not that, and whether it can be added to."""
    value = _operand(found)
    if value is None:
        return np.zeros(results), True
    array = table.facts.array(value)
    if array is None:
        lanes = table.wanted(value, -1, results)
        if lanes is None:
            table.fix(value, "may-broadcast")
            table.fixed.append((ids, "bias-can-change"))
        else:
            table.join(ids, lanes.ids)
        return None, False
    each = array.ndim > 0 and array.shape[-1] == results
    if each and results > 1:
        table.slice(found.node, _BIAS, -1, ids)
    if array.size > 1 and not (each and array.size == results):
        return None, True
    wide = array.astype(np.float64).reshape(-1) * found.share
    return np.broadcast_to(wide, (results,)), True


def _operand(found: Product) -> ir.Value | None:
    has = found.takes_bias and len(found.node.inputs) > _BIAS
    return found.node.inputs[_BIAS] if has else None


def _made(
    table: Table,
    found: Product,
    rows: npt.NDArray[Any],
    held: Held,
    bias: Floats | None,
    *,
    epsilon: float,
) -> Held:
    """Return what the results hold; `epsilon` is that of the type of the weight."""
    results, width, _ = rows.shape
    if bias is None:
        return table.unknown(results)
    per_group = results // found.groups
    first = np.arange(results) // per_group * width
    index = first[:, None] + np.arange(width)[None, :]
    constant = held.constant
    live, offset, lost = rows, bias, np.zeros(results)
    if constant.any():
        numbers = np.where(constant, held.factors, 0.0)[index] * found.scale
        sums = np.einsum("oit,oi->o", rows.astype(np.float64), numbers)
        live = np.where(constant[index][:, :, None], 0, rows)
        if found.spreads:
            offset = bias + sums
        else:
            lost = np.einsum("oit,oi->o", np.abs(rows.astype(np.float64)), np.abs(numbers))
    flat = live.reshape(results, -1)
    idle = ~flat.any(axis=1)
    # What is padded makes a constant one that differs at the border; not where it is rounded off.
    rounding = float(np.finfo(rows.dtype).eps) / _SUM_LIMIT
    fixed = idle & (lost <= np.abs(offset) * rounding)
    symbols, factors = table.unknown(results).symbols, np.ones(results)
    symbols[fixed], factors[fixed] = CONSTANT, offset[fixed]
    moving = np.flatnonzero(~idle & (lost == 0))
    if len(moving) > 1:
        labels = np.zeros(len(moving), np.int64)
        if found.groups > 1:
            labels = np.unique(held.symbols[index[moving]], axis=0, return_inverse=True)[1]
            flat = (live * held.factors[index][:, :, None]).reshape(results, -1)
        whole = np.concatenate([flat, offset[:, None].astype(flat.dtype)], axis=1)[moving]
        leaders, factors[moving] = proportional(whole, labels.reshape(-1), epsilon)
        symbols[moving] = symbols[moving][leaders]
    return Held(symbols, factors)


def _change(found: Product, table: Table, read: Read, ids: Ints, cut: Cut) -> Change:
    """Add what lost lanes gave to others and to the bias."""
    operands: dict[int, npt.NDArray[Any]] = {}
    array = np.asarray(table.facts.array(found.node.inputs[found.weight]))
    merged = cut.merged.get(read, ())
    if merged:
        columns = np.moveaxis(array.astype(np.float64), found.into, 0)
        for lost, kept, factor in merged:
            columns[kept] += factor * columns[lost]
        operands[found.weight] = np.moveaxis(columns, 0, found.into).astype(array.dtype)
    held = read.lanes.held
    gone = ~cut.kept(read.lanes.ids) & held.constant & (held.factors != 0)
    gone[[lost for lost, _, _ in merged]] = False
    sums = _rows(array, found)[:, gone].astype(np.float64).sum(axis=2) @ held.factors[gone]
    if not sums.any():
        return Change(operands=operands)
    added = sums * found.scale
    if not found.takes_bias:
        return Change(operands=operands, offset=Offset(found.axis, ids, added))
    value = _operand(found)
    if value is None:
        operands[_BIAS] = added[cut.kept(ids)].astype(array.dtype)
    else:
        bias = np.asarray(table.facts.array(value))
        operands[_BIAS] = (bias.astype(np.float64) * found.share + added).astype(bias.dtype)
    attributes = {"beta": 1.0} if found.share != 1 else {}
    return Change(attributes, operands)
