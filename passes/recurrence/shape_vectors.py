"""Sizes that hold in every run: what integer vectors made by `Shape` and the like contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.recurrence import operators as op

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts

# Longer vectors are no shapes.
_MOST_ENTRIES = 16
_SAME_ENTRIES = {"Cast", "Identity", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Size:
    """A number times free dimensions, each of them an axis of some value.

    Parameters
    ----------
    factor
        The number.
    free
        The dimensions, in a fixed order.
    """

    factor: int
    free: tuple[tuple[ir.Value, int], ...] = ()

    def __mul__(self, other: Size) -> Size:
        free = sorted((*self.free, *other.free), key=lambda axis: (id(axis[0]), axis[1]))
        return Size(self.factor * other.factor, tuple(free))

    def over(self, other: Size) -> Size | None:
        """Return the quotient, or None where it is not whole in every run."""
        left = list(self.free)
        for axis in other.free:
            if axis not in left:
                return None
            left.remove(axis)
        if other.factor == 0 or self.factor % other.factor:
            return None
        return Size(self.factor // other.factor, tuple(left))


Sizes = tuple[Size, ...]


def sizes_of(value: ir.Value, facts: Facts) -> Sizes | None:
    """Return the dimensions of a value; None where not even their number is known."""
    node = value.producer()
    made = None if node is None or node.domain != "" else _made(node, value.index() or 0, facts)
    if made is not None:
        return made
    dims = facts.dims(value)
    if dims is None:
        return None
    return tuple(
        Size(1, ((value, axis),)) if dim is None else Size(dim) for axis, dim in enumerate(dims)
    )


def _made(node: ir.Node, index: int, facts: Facts) -> Sizes | None:
    """Return the dimensions that a node gives its output, by those of its input."""
    if op.is_recurrent(node):
        return None if op.is_batch_first(node) else _of_recurrence(node, index, facts)
    if node.op_type == "Reshape":
        return reshaped(node, facts)
    source = node.inputs[0] if node.op_type in {"Transpose", "Squeeze"} else None
    sizes = None if source is None else sizes_of(source, facts)
    if sizes is None:
        return None
    if node.op_type == "Transpose":
        return tuple(sizes[k] for k in permutation(node, len(sizes)))
    axes = squeezed_axes(node, len(sizes), facts)
    return None if axes is None else tuple(s for k, s in enumerate(sizes) if k not in axes)


def squeezed_axes(node: ir.Node, rank: int, facts: Facts) -> set[int] | None:
    """Return which axes a Squeeze takes out; None where it is left to the sizes or the caller."""
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return {axis % rank for axis in attribute.as_ints()}
    axes = facts.array(op.operand(node, 1))
    return None if axes is None else {int(axis) % rank for axis in axes.reshape(-1)}


def permutation(node: ir.Node, rank: int) -> tuple[int, ...]:
    """Return the permutation of a Transpose, which reverses the axes by default."""
    attribute = node.attributes.get("perm")
    return tuple(range(rank))[::-1] if attribute is None else tuple(attribute.as_ints())


def _of_recurrence(node: ir.Node, index: int, facts: Facts) -> Sizes | None:
    x, hidden = op.operand(node, op.X), op.hidden_size(node, facts)
    if x is None or hidden is None:
        return None
    # X has three axes by the operator's definition, whether they are declared or not.
    sizes = sizes_of(x, facts) or (Size(1, ((x, 0),)), Size(1, ((x, 1),)))
    state = (Size(len(op.directions(node))), sizes[1], Size(hidden))
    return (sizes[0], *state) if index == op.Y else state


def contents(value: ir.Value | None, facts: Facts) -> Sizes | None:
    """Return the entries of a whole-number scalar or vector; None where they are not known."""
    if value is None:
        return None
    array = facts.array(value)
    if array is not None:
        fits = array.dtype.kind in "iu" and array.ndim <= 1 and array.size <= _MOST_ENTRIES
        return tuple(Size(int(entry)) for entry in array.reshape(-1)) if fits else None
    node = value.producer()
    if node is None or node.domain != "" or value.is_graph_input():
        return None
    if node.op_type == "Shape":
        return _shape(node, facts)
    if node.op_type == "Concat":
        parts = [contents(part, facts) for part in node.inputs]
        known = [part for part in parts if part is not None]
        return tuple(s for part in known for s in part) if len(known) == len(parts) else None
    entries = contents(node.inputs[0], facts)
    if entries is None:
        return None
    if node.op_type == "Mul":
        others = contents(node.inputs[1], facts)
        single = others is not None and len(entries) == len(others) == 1
        return (entries[0] * others[0],) if single and others is not None else None
    if node.op_type in _SAME_ENTRIES or (node.op_type == "Reshape" and len(entries) == 1):
        return entries
    if node.op_type in {"Gather", "Slice"}:
        positions = _taken(node, len(entries), facts)
        return None if positions is None else tuple(entries[k] for k in positions)
    return None


def _shape(node: ir.Node, facts: Facts) -> Sizes | None:
    source = node.inputs[0]
    sizes = None if source is None else sizes_of(source, facts)
    if sizes is None:
        return None
    start, end = node.attributes.get("start"), node.attributes.get("end")
    return sizes[start.as_int() if start else None : end.as_int() if end else None]


def _taken(node: ir.Node, length: int, facts: Facts) -> list[int] | None:
    """Return which entries of a vector a Gather or Slice takes."""
    if node.op_type == "Gather":
        indices = facts.array(node.inputs[1])
        inside = indices is not None and bool(np.all((indices >= -length) & (indices < length)))
        return (
            [int(k) % length for k in indices.reshape(-1)]
            if inside and indices is not None
            else None
        )
    ranges = [facts.array(value) for value in node.inputs[1:]]
    attributes = [node.attributes.get(name) for name in ("starts", "ends")]
    if not ranges and all(attributes):  # before opset 10
        return list(range(length))[slice(*(a.as_ints()[0] for a in attributes if a is not None))]
    bounds = [None if r is None or r.size != 1 else int(r.reshape(-1)[0]) for r in ranges]
    if len(bounds) < 2 or None in bounds[:2]:  # noqa: PLR2004 - start and end
        return None
    step = bounds[3] if len(bounds) > 3 else 1  # noqa: PLR2004 - after start, end and axes
    return None if not step else list(range(length))[slice(bounds[0], bounds[1], step)]


def reshaped(node: ir.Node, facts: Facts) -> Sizes | None:
    """Return the dimensions that a Reshape makes, with 0 and -1 worked out."""
    source = node.inputs[0]
    sizes = None if source is None else sizes_of(source, facts)
    wanted = contents(op.operand(node, 1), facts)
    if sizes is None or wanted is None:
        return None
    literal = node.attributes.get("allowzero")
    made: list[Size | None] = []
    for axis, size in enumerate(wanted):
        if size.factor == 0:
            if axis >= len(sizes) or (literal is not None and literal.as_int() != 0):
                return None
            made.append(sizes[axis])
        else:
            made.append(None if size == Size(-1) else size)
    if None in made:
        total, known = Size(1), Size(1)
        for size in sizes:
            total *= size
        for entry in made:
            known = known if entry is None else known * entry
        rest = total.over(known)
        made = [rest if entry is None else entry for entry in made]
    found = tuple(size for size in made if size is not None)
    return found if len(found) == len(made) else None
