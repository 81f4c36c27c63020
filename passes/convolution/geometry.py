"""The windows that convolutions and pools slide, with the padding that ``auto_pad`` stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts

POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
_SLICE_INPUTS = 5  # data, starts, ends, axes and steps
_TO_THE_END = 2**31 - 1  # what the specification advises for axes of unknown size
_PLANAR = 3  # the least rank with a spatial axis


def is_open(node: ir.Node) -> bool:
    """Whether an attribute of a node is a function's parameter, known only where it is called."""
    return any(attribute.is_ref() for attribute in node.attributes.values())


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


def auto_pad(node: ir.Node) -> str:
    """Return how a node pads: ``NOTSET`` where its attribute `pads` says it."""
    attribute = node.attributes.get("auto_pad")
    return "NOTSET" if attribute is None else attribute.as_string()


def counts_padding(pool: ir.Node) -> bool:
    """Whether an average may count positions that are padding."""
    padded = any(integers(pool, "pads", ())) or bool(integer(pool, "ceil_mode", 0))
    padded = padded or auto_pad(pool).startswith("SAME")
    return padded and bool(integer(pool, "count_include_pad", 0))


def kernel_shape(node: ir.Node, facts: Facts) -> tuple[int, ...] | None:
    """Return the taps per spatial axis of a convolution or pool; None when unknown."""
    if "kernel_shape" in node.attributes:
        return integers(node, "kernel_shape", ())
    dims = facts.dims(node.inputs[1]) if node.op_type not in POOLS else None
    if dims is None or None in dims[2:]:
        return None
    return tuple(d for d in dims[2:] if d is not None)


def pads(node: ir.Node, facts: Facts) -> tuple[int, ...] | None:
    """Return begins, then ends; None where they depend on a shape that may change.

    ``SAME_UPPER`` and ``SAME_LOWER`` pad as much as makes ``ceil(size / stride)`` outputs, the
    odd one at the end or at the beginning (ONNX operator specification, Conv). Where strides pass
    over more than the kernel reads, onnxruntime crops the beginning, and others do not: None.
    """
    kernel = kernel_shape(node, facts)
    if kernel is None:
        return None
    axes = len(kernel)
    mode = auto_pad(node)
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
            missing += (-(-size // stride) - 1) * stride + 1 - size
            if missing < -1:
                return None
            missing = max(0, missing)
        less, more = missing // 2, missing - missing // 2
        begins.append(less if mode == "SAME_UPPER" else more)
        ends.append(more if mode == "SAME_UPPER" else less)
    return (*begins, *ends)


@dataclass(frozen=True)
class Window:
    """What a convolution or pool reads per output position, one entry per spatial axis.

    Parameters
    ----------
    kernel, strides, dilations
        Taps, distance between outputs, distance between taps.
    pads
        Begins, then ends.
    ceil
        Whether a last window that is only partly inside makes an output too (pools).
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    ceil: bool = False

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def span(self) -> tuple[int, ...]:
        """Positions from the first tap to the last, both included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def padding(self) -> tuple[int, ...]:
        """Begin and end together."""
        return tuple(self.pads[i] + self.pads[i + self.axes] for i in range(self.axes))

    @property
    def is_point(self) -> bool:
        """Whether an output reads one position, and nothing is padded."""
        return set(self.kernel) == {1} and not any(self.pads)

    def lattice(self, sizes: Sequence[int | None]) -> tuple[int, ...]:
        """Return the lattice of positions that are read: per axis every so many, from 0 on.

        Stride, dilation and padding must be multiples of it; with one tap there is no dilation,
        and the padding of the end follows from a size that is known.

        Parameters
        ----------
        sizes
            Of the input, as far as they are known.
        """
        found = []
        for axis, size in enumerate(sizes):
            dilation = self.dilations[axis] if self.kernel[axis] > 1 else 0
            end = self.pads[axis + self.axes] if size is None else 0
            found.append(gcd(self.strides[axis], dilation, self.pads[axis], end))
        return tuple(found)

    def on_lattice(self, steps: Sequence[int], sizes: Sequence[int | None]) -> Window:
        """Return the window that reads the same of an input with every so many positions left."""
        begins = [pad // step for pad, step in zip(self.pads, steps, strict=False)]
        ends = [
            pad // step if size is None else (size - 1 + pad) // step - (size - 1) // step
            for pad, step, size in zip(self.pads[self.axes :], steps, sizes, strict=True)
        ]
        strides = tuple(s // step for s, step in zip(self.strides, steps, strict=True))
        dilations = tuple(d // step or 1 for d, step in zip(self.dilations, steps, strict=True))
        return replace(self, strides=strides, dilations=dilations, pads=(*begins, *ends))

    def outputs(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the number of whole windows in an input of these sizes."""
        rows = zip(sizes, self.padding, self.span, self.strides, strict=True)
        return tuple((n + p - k) // s + 1 for n, p, k, s in rows)

    def has_partial(self, dims: Sequence[int | None] | None) -> bool:
        """Whether a pool may make an output of a last window that is only partly inside.

        Parameters
        ----------
        dims
            Shape of the input, batch and channels first.
        """
        if not self.ceil:
            return False
        if dims is None or len(dims) != self.axes + 2:
            return True
        rows = zip(dims[2:], self.padding, self.span, self.strides, strict=True)
        return any(s > 1 and (n is None or (n + p - k) % s != 0) for n, p, k, s in rows)


def sliced_window(node: ir.Node, facts: Facts) -> Window | None:
    """Return a Slice of every so many positions as a window of one tap; None for any other.

    It must start at the first position and end behind the last, and leave no channels out.
    """
    rank, dims = facts.rank(node.inputs[0]), facts.dims(node.inputs[0])
    if rank is None or rank < _PLANAR or len(node.inputs) != _SLICE_INPUTS:
        return None
    starts, ends, axes, steps = (facts.array(value) for value in node.inputs[1:])
    if starts is None or ends is None or steps is None or (axes is None and node.inputs[3]):
        return None
    strides = [1] * rank
    along = range(len(starts)) if axes is None else axes.tolist()
    for axis, start, end, step in zip(
        along, starts.tolist(), ends.tolist(), steps.tolist(), strict=True
    ):
        size = None if dims is None else dims[axis]
        if start != 0 or step < 1 or end < (_TO_THE_END if size is None else size):
            return None
        strides[axis] = step
    ones = (1,) * (rank - 2)
    points = Window(ones, tuple(strides[2:]), ones, (0,) * (2 * len(ones)))
    return points if strides[:2] == [1, 1] else None


def window(node: ir.Node, facts: Facts) -> Window | None:
    """Return the window of a convolution or pool; None where it depends on a shape or a call."""
    if is_open(node):
        return None
    kernel, padding = kernel_shape(node, facts), pads(node, facts)
    if kernel is None or padding is None:
        return None
    ones = (1,) * len(kernel)
    return Window(
        kernel,
        integers(node, "strides", ones),
        integers(node, "dilations", ones),
        padding,
        bool(integer(node, "ceil_mode", 0)),
    )
