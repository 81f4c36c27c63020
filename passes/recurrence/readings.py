"""Readings: how the steps of a recurrence read one tensor, an entry each.

A reading says that the value of step k is entry ``indices[k]`` of a source along an axis, or
that it is the k-th of equal parts of the source's rows. Exporters write it as `Gather` with one
index, `Slice` of length 1, or `Split`, each with or without a `Squeeze`, `Reshape` or `Unsqueeze`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.passes.recurrence.dims import divided

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.passes.recurrence.dims import Dim, Dims
    from structopt_onnx.passes.recurrence.plumbing import Plumbing
    from structopt_onnx.passes.recurrence.sizes import Sizes


@dataclass(frozen=True)
class Reading:
    """Entries of one tensor, one per step.

    Parameters
    ----------
    source
        The tensor read.
    axis
        The axis along which the entries lie; None when the values are equal parts of the rows
        (axis 0) of the source.
    indices
        The entry, or the part, that each step reads; not negative.
    length
        How many entries or parts there are.
    """

    source: ir.Value
    axis: int | None
    indices: tuple[int, ...]
    length: Dim

    @property
    def whole(self) -> bool:
        """Whether every entry is read once, in order."""
        return self.indices == tuple(range(len(self.indices))) and self.length == len(self.indices)

    @property
    def reversed(self) -> bool:
        """Whether every entry is read once, from the last to the first."""
        return (
            self.indices == tuple(range(len(self.indices)))[::-1]
            and self.length == len(self.indices)
            and len(self.indices) > 1
        )

    def stacked(self, plumbing: Plumbing, sizes: Sizes, *, backwards: bool = False) -> Operand:
        """Return the entries as one tensor, steps first: [steps, ...].

        Parameters
        ----------
        plumbing
            Takes the nodes that this needs.
        sizes
            Knows the dimensions.
        backwards
            Return the last step first.
        """
        indices = self.indices[::-1] if backwards else self.indices
        name = self.source.name or "x"
        dims = sizes.dims(self.source) or ()
        if self.axis is None:
            first = self._time_first(plumbing, sizes, dims, name)
            in_order = indices == tuple(range(len(indices))) and self.length == len(indices)
            return first if in_order else plumbing.take(first, indices, 0, f"{name}_steps")
        taken: Operand = self.source
        if indices != tuple(range(len(indices))) or self.length != len(indices):
            taken = plumbing.take(taken, indices, self.axis, f"{name}_steps")
        rest = [axis for axis in range(len(dims)) if axis != self.axis]
        return plumbing.transpose(taken, (self.axis, *rest), f"{name}_by_step")

    def _time_first(self, plumbing: Plumbing, sizes: Sizes, dims: Dims, name: str) -> Operand:
        """Turn rows, step by step, into [steps, rows per step, ...]."""
        node = self.source.producer()
        if node is not None and node.domain == "" and node.op_type == "Reshape":
            before = sizes.dims(node.inputs[0])
            if (
                before is not None
                and len(before) == len(dims) + 1
                and before[0] == self.length
                and before[2:] == dims[1:]
            ):
                return node.inputs[0]
        rest = [int(d) for d in dims[1:] if isinstance(d, int)]
        steps = self.length if isinstance(self.length, int) else -1
        return plumbing.reshape(self.source, (steps, -1, *rest), f"{name}_by_step")


def reading(values: Sequence[ir.Value], sizes: Sizes) -> Reading | None:
    """Recognise how steps read one tensor; None when they don't.

    Parameters
    ----------
    values
        What each step reads.
    sizes
        Knows the dimensions and the indices.
    """
    entries = [entry(value, sizes) for value in values]
    if not entries or any(entry is None for entry in entries):
        return None
    found = [entry for entry in entries if entry is not None]
    source, axis, _, length = found[0]
    if any(e[0] is not source or e[1] != axis for e in found):
        return None
    if axis is None and not all(isinstance(d, int) for d in (sizes.dims(source) or (0,))[1:]):
        return None
    return Reading(source, axis, tuple(e[2] for e in found), length)


Entry = tuple["ir.Value", int | None, int, "Dim"]


def entry(value: ir.Value, sizes: Sizes) -> Entry | None:
    """Return source, axis, index and length of one read; the axis is gone in the value.

    The axis is None where the value is one of equal parts of the rows.
    """
    node = value.producer()
    if node is None or node.domain != "" or not node.inputs or node.inputs[0] is None:
        return None
    match node.op_type:
        case "Gather":
            found = _gathered(node, sizes)
            return None if found is None or found[4] else found[:4]
        case "Squeeze" | "Reshape" | "Flatten":
            kept = _kept(node.inputs[0], sizes)
            if kept is None:
                return None
            before, after, axis = sizes.dims(node.inputs[0]), sizes.dims(value), kept[1]
            if before is None or axis is None:
                return None
            return kept if before[:axis] + before[axis + 1 :] == after else None
        case "Split":
            return _part(value, node, sizes)
    return None


def _kept(value: ir.Value, sizes: Sizes) -> Entry | None:
    """Return the read of one entry whose axis stays, with size 1."""
    node = value.producer()
    if node is None or node.domain != "" or not node.inputs or node.inputs[0] is None:
        return None
    match node.op_type:
        case "Gather":
            found = _gathered(node, sizes)
            return found[:4] if found is not None and found[4] else None
        case "Slice":
            return _sliced(node, sizes)
        case "Split":
            dims = sizes.dims(node.inputs[0])
            if dims is None or sizes.part(node) != 1:
                return None
            axis = _integer(node, "axis") % len(dims)
            return node.inputs[0], axis, value.index() or 0, len(node.outputs)
    return None


def _integer(node: ir.Node, name: str, default: int = 0) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _positive(index: Dim, size: Dim) -> int | None:
    if not isinstance(index, int):
        return None
    if index >= 0:
        return index if not isinstance(size, int) or index < size else None
    return index + size if isinstance(size, int) and index + size >= 0 else None


def _gathered(node: ir.Node, sizes: Sizes) -> tuple[ir.Value, int, int, Dim, bool] | None:
    data, indices = node.inputs[0], node.inputs[1]
    dims, found = sizes.dims(data), sizes.contents(indices)
    shape = sizes.dims(indices)
    if data is None or dims is None or found is None or len(found) != 1 or shape is None:
        return None
    axis = _integer(node, "axis") % len(dims)
    index = _positive(found[0], dims[axis])
    return None if index is None else (data, axis, index, dims[axis], len(shape) == 1)


def _sliced(node: ir.Node, sizes: Sizes) -> Entry | None:
    dims = sizes.dims(node.inputs[0])
    ranges = _ranges(node, sizes)
    if dims is None or node.inputs[0] is None or ranges is None:
        return None
    first, end, axis = ranges
    axis %= len(dims)
    size = dims[axis]
    start = _positive(first, size)
    if start is None or ((end < 0 or end > start + 1) and not isinstance(size, int)):
        return None
    if isinstance(size, int):
        end = min(end + size if end < 0 else end, size)
    return (node.inputs[0], axis, start, size) if end == start + 1 else None


def _ranges(node: ir.Node, sizes: Sizes) -> tuple[int, int, int] | None:
    """Return start, end and axis of a Slice along one axis with step 1."""
    found: list[tuple[Dim, ...] | None]
    if "starts" in node.attributes:
        found = [tuple(node.attributes[n].as_ints()) for n in ("starts", "ends")]
        axes = node.attributes.get("axes")
        found.append((0,) if axes is None else tuple(axes.as_ints()))
    else:
        found = [sizes.contents(v) if v is not None else None for v in node.inputs[1:]]
        if len(node.inputs) <= 3 or node.inputs[3] is None:  # noqa: PLR2004 - Slice's axes
            found[2:3] = [(0,)]
        if len(node.inputs) > 4 and node.inputs[4] is not None and found[3] != (1,):  # noqa: PLR2004 - Slice's steps
            return None
    numbers = [f[0] for f in found[:3] if f is not None and len(f) == 1]
    known = [n for n in numbers if isinstance(n, int)]
    return (known[0], known[1], known[2]) if len(known) == 3 else None  # noqa: PLR2004 - all three


def _part(value: ir.Value, node: ir.Node, sizes: Sizes) -> Entry | None:
    """Return the read of one of equal parts of the rows."""
    source = node.inputs[0]
    if source is None or _integer(node, "axis") != 0 or len(node.outputs) == 1:
        return None
    explicit = "split" in node.attributes or len(node.inputs) > 1
    dims, count = sizes.dims(source), len(node.outputs)
    # From operator set 18 on the last of equal parts may be smaller.
    equal = sizes.part(node) if explicit else divided(dims[0], count) if dims else None
    if equal is None or (explicit and not isinstance(equal, int)):
        return None
    return source, None, value.index() or 0, count
