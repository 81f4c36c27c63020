"""Operators that move lanes, or look at each of them over space, and mix none."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.convolution.geometry import integer, integers
from structopt_onnx.passes.sparsity import arithmetic
from structopt_onnx.passes.sparsity.lanes import Change, Cut, Held, Lanes

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from structopt_onnx.model.facts import Shape
    from structopt_onnx.passes.sparsity.lanes import Ints, Table

_SIZES_AS_INPUT = 13  # Split


def source(table: Table, node: ir.Node) -> Lanes | None:
    """Return the lanes of the first operand."""
    value = node.inputs[0]
    return None if value is None else table.lanes.get(value)


def _axis(table: Table, node: ir.Node, axis: int) -> int | None:
    """Return an axis of the first operand from the end; None where its rank is not known."""
    if axis < 0:
        return axis
    rank = table.facts.rank(node.inputs[0])
    return None if rank is None else axis - rank


def integers_of(table: Table, node: ir.Node, index: int, name: str) -> tuple[int, ...] | None:
    """Return integers that are an attribute or a stored operand, by version; None where neither."""
    if name in node.attributes:
        return integers(node, name, ())
    value = node.inputs[index] if index < len(node.inputs) else None
    array = table.facts.array(value)
    return None if array is None else tuple(int(i) for i in array.reshape(-1))


def _put(table: Table, node: ir.Node, lanes: Lanes, axis: int, held: Held) -> None:
    table.lanes[node.outputs[0]] = Lanes(axis, lanes.ids, held)


def transpose(table: Table, node: ir.Node) -> str:
    """Note a Transpose."""
    lanes = source(table, node)
    if lanes is None:
        return ""
    rank = table.facts.rank(node.inputs[0])
    if rank is None:
        return "unknown-reader"
    order = integers(node, "perm", tuple(reversed(range(rank))))
    _put(table, node, lanes, order.index(lanes.axis + rank) - rank, _moved(table, lanes))
    return ""


def _moved(table: Table, lanes: Lanes) -> Held:
    return arithmetic.linear(table, lanes.held)


def squeeze(table: Table, node: ir.Node) -> str:
    """Note a Squeeze or Unsqueeze."""
    lanes = source(table, node)
    if lanes is None:
        return ""
    rank = table.facts.rank(node.inputs[0])
    axes = integers_of(table, node, 1, "axes")
    if rank is None or axes is None:
        return "unknown-reader"
    at = lanes.axis + rank
    if node.op_type == "Squeeze":
        gone = {axis % rank for axis in axes}
        if at in gone:
            return "unknown-reader"
        after = rank - len(gone)
        _put(table, node, lanes, at - sum(g < at for g in gone) - after, _moved(table, lanes))
        return ""
    after = rank + len(axes)
    new = {axis % after for axis in axes}
    stays = [axis for axis in range(after) if axis not in new]
    _put(table, node, lanes, stays[at] - after, _moved(table, lanes))
    return ""


def reshape(table: Table, node: ir.Node) -> str:
    """Note a Flatten, or a Reshape behind which each position of an axis is of one channel."""
    lanes, value = source(table, node), node.inputs[0]
    if lanes is None:
        return ""
    before, after = table.facts.shape(value), table.facts.shape(node.outputs[0])
    sizes = table.facts.array(node.inputs[1]) if node.op_type == "Reshape" else None
    if before is None or after is None or integer(node, "allowzero", 0):
        return "mixes-channels"
    at = len(before) + lanes.axis
    for to in range(len(after)):
        split = _split(before, after, at, to)
        if split is None:
            continue
        outer, inner = split
        if node.op_type == "Reshape":
            if sizes is None or (sizes[to] == 0 and to != at):
                return "mixes-channels"
            if sizes[to] > 0:
                table.changes[node] = _resized(sizes, to, lanes.ids, outer * inner)
        index = np.tile(np.repeat(np.arange(lanes.size), inner), outer)
        # Which part of the channel a lane is: where of its inner positions, in which outer one.
        part = np.tile(np.arange(inner), outer * lanes.size)
        part += inner * np.repeat(np.arange(outer), inner * lanes.size)
        held = arithmetic.linear(table, lanes.held.at(index), part)
        table.lanes[node.outputs[0]] = Lanes(to - len(after), lanes.ids[index], held)
        return ""
    return "mixes-channels"


def _resized(sizes: Ints, to: int, ids: Ints, times: int) -> Callable[[Cut], Change]:
    def change(cut: Cut) -> Change:
        changed = sizes.copy()
        changed[to] = int(cut.kept(ids).sum()) * times
        return Change(operands={1: changed})

    return change


def _split(before: Shape, after: Shape, at: int, to: int) -> tuple[int, int] | None:
    """Return how many outer and inner positions axis `to` holds for each of the channels `at`."""
    channels, size = before[at], after[to]
    if not isinstance(channels, int) or not isinstance(size, int) or 0 in (*before, *after):
        return None
    outer, inner = _ratio(before[:at], after[:to]), _ratio(before[at + 1 :], after[to + 1 :])
    if outer is None and inner is not None and size % (channels * inner) == 0:
        outer = size // (channels * inner)
    if inner is None and outer is not None and size % (channels * outer) == 0:
        inner = size // (channels * outer)
    if outer is None or inner is None or outer * channels * inner != size:
        return None
    return outer, inner


def _ratio(before: Shape, after: Shape) -> int | None:
    """Return the number of positions of some axes over that of others; None if not known whole."""
    ours, others = Counter(before), Counter(after)
    left, right = ours - others, others - ours
    if None in (*before, *after) or any(isinstance(d, str) for d in (*left, *right)):
        return None
    top = prod(d for d in left.elements() if isinstance(d, int))
    bottom = prod(d for d in right.elements() if isinstance(d, int))
    return top // bottom if top % bottom == 0 else None


def split(table: Table, node: ir.Node) -> str:
    """Note a Split, of channels or of something else."""
    lanes = source(table, node)
    if lanes is None:
        return ""
    axis = _axis(table, node, integer(node, "axis", 0))
    if axis is None:
        return "unknown-reader"
    if axis != lanes.axis:
        for place, output in enumerate(node.outputs):
            held = arithmetic.linear(table, lanes.held, np.full(lanes.size, place))
            table.lanes[output] = Lanes(axis=lanes.axis, ids=lanes.ids, held=held)
        return ""
    stored = len(node.inputs) > 1 and node.inputs[1] is not None
    sizes = integers_of(table, node, 1, "split")
    if sizes is None and stored:
        return "unknown-reader"
    if sizes is None:  # equal parts, of which the last may be smaller
        part = -(-lanes.size // len(node.outputs))
        sizes = tuple(min(part, lanes.size - part * k) for k in range(len(node.outputs)))
    ends = np.cumsum(sizes)
    parts = []
    for output, size, end in zip(node.outputs, sizes, ends, strict=True):
        part_of = slice(int(end) - size, int(end))
        table.lanes[output] = Lanes(lanes.axis, lanes.ids[part_of], lanes.held.at(part_of))
        parts.append(lanes.ids[part_of])
    by_input = (table.facts.opset(table.scope) or 1) >= _SIZES_AS_INPUT

    def change(cut: Cut) -> Change:
        kept = tuple(int(cut.kept(ids).sum()) for ids in parts)
        if by_input:
            return Change(operands={1: np.array(kept, np.int64)}, dropped=("num_outputs",))
        return Change(attributes={"split": kept})

    table.changes[node] = change
    return ""


def cut_out(table: Table, node: ir.Node) -> str:
    """Note a Slice that takes neighbouring channels, or positions elsewhere."""
    lanes = source(table, node)
    if lanes is None:
        return ""
    if any(table.facts.tensor(value) is None for value in node.inputs[3:] if value is not None):
        return "unknown-reader"
    starts, ends = (integers_of(table, node, k, n) for k, n in ((1, "starts"), (2, "ends")))
    axes = integers_of(table, node, 3, "axes")
    steps = integers_of(table, node, 4, "steps")
    if starts is None or ends is None:
        known = None if axes is None else [_axis(table, node, axis) for axis in axes]
        if known is None or None in known or lanes.axis in known:
            return "unknown-reader"
        _put(table, node, lanes, lanes.axis, _moved(table, lanes))
        return ""
    given = [_axis(table, node, a) for a in (range(len(starts)) if axes is None else axes)]
    if None in given:
        return "unknown-reader"
    if lanes.axis not in given:
        _put(table, node, lanes, lanes.axis, _moved(table, lanes))
        return ""
    at = given.index(lanes.axis)
    whole = slice(starts[at], ends[at], 1).indices(lanes.size)
    if (steps is not None and steps[at] != 1) or "starts" in node.attributes:
        return "unknown-reader"
    taken = lanes.ids[slice(*whole)]
    held = lanes.held.at(slice(*whole))
    if len(given) > 1:  # other axes too, so that a lane is not what it was
        held = arithmetic.linear(table, held)
    table.lanes[node.outputs[0]] = Lanes(lanes.axis, taken, held)

    def change(cut: Cut) -> Change:
        before, inside = cut.kept(lanes.ids[: whole[0]]).sum(), cut.kept(taken).sum()
        firsts, lasts = list(starts), list(ends)
        firsts[at], lasts[at] = int(before), int(before + inside)
        operands = {1: np.array(firsts, np.int64), 2: np.array(lasts, np.int64)}
        return Change(operands=operands)

    table.changes[node] = change
    return ""


def concat(table: Table, node: ir.Node) -> str:
    """Note a Concat, of channels or of something else."""
    found = [table.lanes[v] for v in node.inputs if v in table.lanes]
    if not found:
        return ""
    lead = found[0]
    axis = _axis(table, node, integer(node, "axis", 0))
    if axis is None or any(lanes.axis != lead.axis for lanes in found):
        return "unknown-reader"
    parts: list[Lanes] = []
    for value in node.inputs:
        dims = table.facts.dims(value)
        size = lead.size if axis != lead.axis else None if dims is None else dims[axis]
        lanes = table.lanes.get(value) if value is not None else None
        if lanes is None and size is not None:
            lanes = table.wanted(value, lead.axis, size)
        if lanes is None or (axis != lead.axis and lanes.size != lead.size):
            return "unknown-reader"
        parts.append(lanes)
    if axis == lead.axis:
        ids = np.concatenate([lanes.ids for lanes in parts])
        symbols = np.concatenate([lanes.held.symbols for lanes in parts])
        factors = np.concatenate([lanes.held.factors for lanes in parts])
        table.lanes[node.outputs[0]] = Lanes(axis, ids, Held(symbols, factors))
        return ""
    for lanes in parts:
        table.join(lead.ids, lanes.ids)
    numbers = np.stack([lanes.held.factors for lanes in parts])
    mask = np.logical_and.reduce([lanes.held.constant for lanes in parts])
    mask &= (numbers == numbers[0]).all(axis=0)
    held = arithmetic.any_function(table, [p.held for p in parts], mask, numbers[0])
    _put(table, node, lead, lead.axis, held)
    return ""


def gather(table: Table, node: ir.Node) -> str:
    """Note a Gather of positions on another axis."""
    lanes = source(table, node)
    if lanes is None:
        return "unknown-reader" if node.inputs[1] in table.lanes else ""
    axis = _axis(table, node, integer(node, "axis", 0))
    rank = table.facts.rank(node.inputs[1])
    if axis is None or rank is None or axis == lanes.axis:
        return "unknown-reader"
    behind = lanes.axis if axis < lanes.axis else lanes.axis + 1 - rank
    _put(table, node, lanes, behind, _moved(table, lanes))
    return ""
