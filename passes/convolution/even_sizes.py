"""Spatial sizes that are even in every run, also where nobody declares them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.passes.convolution.geometry import (
    POOLS,
    auto_pad,
    integer,
    integers,
    is_open,
    window,
)
from structopt_onnx.passes.convolution.pointwise import BROADCASTING, UNARY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts

_SCALES = 2  # the input of Resize that holds them
_PER_POSITION = UNARY | BROADCASTING | {"BatchNormalization", "LRN"}


def is_even(value: ir.Value, axis: int, facts: Facts) -> bool | None:
    """Tell whether a size is even in every run; None where nothing is known.

    A size of 2 or more is looked for upstream, as far as operators keep it, until a Resize by an
    even number, a ConvTranspose or a DepthToSpace makes it even or a declaration says so.

    Parameters
    ----------
    value
        An activation [N, C, spatial...].
    axis
        Of the value, 2 or more.
    facts
        Knows shapes and constants.
    """
    dims = facts.dims(value)
    if dims is None:
        return None
    declared = dims[axis]
    if declared is not None:
        return declared > 0 and declared % 2 == 0
    waiting, seen = [value], {value}
    while waiting:
        found = waiting.pop()
        known, node = facts.dims(found), found.producer()
        size = known[axis] if known is not None and len(known) == len(dims) else 0
        if size is not None and size > 0 and size % 2 == 0:
            return True
        if size is not None or node is None or node.domain != "" or is_open(node):
            continue
        if _makes_even(node, axis, facts):
            return True
        sources = [v for v in _of_one_size(node, axis, facts) if v is not None and v not in seen]
        waiting += sources
        seen.update(sources)
    return None


def _of_one_size(node: ir.Node, axis: int, facts: Facts) -> Sequence[ir.Value | None]:
    """Return operands of which an even size makes that of the output even.

    An operand of one position is broadcast to the size of another, so any will do.
    """
    if node.op_type in {"BatchNormalization", "LRN"}:
        return node.inputs[:1]
    if node.op_type in _PER_POSITION:
        return node.inputs
    rank = facts.rank(node.inputs[0]) or 0
    if node.op_type == "Concat":
        return node.inputs if rank and integer(node, "axis", 1) % rank != axis else ()
    if node.op_type == "Conv" or node.op_type in POOLS:
        slides = window(node, facts)
        at = axis - 2
        if slides is not None and slides.strides[at] == 1 and not slides.ceil:
            return node.inputs[:1] if slides.padding[at] == slides.span[at] - 1 else ()
    return ()


def _makes_even(node: ir.Node, axis: int, facts: Facts) -> bool:
    if node.op_type == "DepthToSpace":
        return integer(node, "blocksize", 1) % 2 == 0
    if node.op_type == "Resize" and len(node.inputs) > _SCALES:
        scales = facts.array(node.inputs[_SCALES])
        axes = [a % (facts.rank(node.inputs[0]) or 1) for a in integers(node, "axes", ())]
        at = axes.index(axis) if axis in axes else None if axes else axis
        # An even number of positions for each: nothing is rounded.
        return scales is not None and at is not None and scales.size > at and scales[at] % 2 == 0
    if node.op_type == "ConvTranspose" and auto_pad(node) == "NOTSET":
        slides, at = window(node, facts), axis - 2
        if slides is None or "output_shape" in node.attributes or slides.strides[at] % 2:
            return False
        extra = integers(node, "output_padding", (0,) * slides.axes)[at]
        return (slides.span[at] - slides.padding[at] + extra) % 2 == 0
    return False
