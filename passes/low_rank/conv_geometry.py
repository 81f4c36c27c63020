"""Attributes of convolutions, with the padding that ``auto_pad`` stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts


def integer(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return an attribute of a node that holds one integer per spatial axis or side."""
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(int(i) for i in attribute.as_ints())


def attributes(node: ir.Node) -> tuple[tuple[str, str], ...]:
    """Return what two nodes must have in common to do the same."""
    return tuple(sorted((name, str(a.value)) for name, a in node.attributes.items()))


def pads(node: ir.Node, facts: Facts) -> tuple[int, ...] | None:
    """Return begins, then ends; None where they depend on a shape that may change.

    ``SAME_UPPER`` and ``SAME_LOWER`` pad as much as makes ``ceil(size / stride)`` outputs, the
    odd one at the end or at the beginning (ONNX operator specification, Conv).
    """
    kernel = [int(k or 1) for k in (facts.dims(node.inputs[1]) or ())[2:]]
    axes = len(kernel)
    mode = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    if mode not in {"SAME_UPPER", "SAME_LOWER"}:
        zero = (0,) * (2 * axes)
        return zero if mode == "VALID" else integers(node, "pads", zero)
    dims = facts.dims(node.inputs[0])
    sizes = (None,) * axes if dims is None else dims[2:]
    strides = integers(node, "strides", (1,) * axes)
    dilations = integers(node, "dilations", (1,) * axes)
    begins, ends = [], []
    for size, stride, taps, dilation in zip(sizes, strides, kernel, dilations, strict=True):
        missing = (taps - 1) * dilation
        if stride > 1:
            if size is None:
                return None
            missing = max(0, (-(-size // stride) - 1) * stride + missing + 1 - size)
        less, more = missing // 2, missing - missing // 2
        begins.append(less if mode == "SAME_UPPER" else more)
        ends.append(more if mode == "SAME_UPPER" else less)
    return (*begins, *ends)
