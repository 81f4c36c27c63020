"""Some taps of a kernel: what padding they need, and what of the input lies before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.edit import Fresh, NewNode, Operand

if TYPE_CHECKING:
    from structopt_onnx.passes.convolution.geometry import Window

SLICES_BY_INPUT = 10
"""Opset in which Slice takes starts and ends as inputs."""
_TO_THE_END = np.iinfo(np.int64).max


def padding_left(
    slides: Window, taps: tuple[slice, ...], dims: tuple[int | None, ...] | None
) -> tuple[int, ...]:
    """Return the padding that remains for some taps of a kernel.

    Parameters
    ----------
    slides
        The window of the whole kernel.
    taps
        Those kept, one slice per axis.
    dims
        Shape of the input, batch and channels first.

    Returns
    -------
    tuple
        Begins, then ends; below 0 for positions that must be sliced off.
    """
    begins, ends = [], []
    for axis, kept in enumerate(taps):
        dilation, stride = slides.dilations[axis], slides.strides[axis]
        begin = slides.pads[axis] - kept.start * dilation
        end = slides.pads[axis + slides.axes] - (slides.kernel[axis] - kept.stop) * dilation
        size = None if dims is None else dims[axis + 2]
        if end < 0 and size is not None:
            # Positions after the last window do no harm if they make no window of their own.
            rest = (size + slides.padding[axis] - slides.span[axis]) % stride
            end = 0 if rest - end < stride else end
        begins.append(begin)
        ends.append(end)
    return (*begins, *ends)


def meets_input(
    slides: Window, dims: tuple[int | None, ...] | None
) -> tuple[npt.NDArray[np.bool_], ...]:
    """Tell, per axis, which taps have a position of the input before them in some window.

    The others only ever see padding. Where the size is not known, or no tap meets anything, all
    count as meeting it.
    """
    found = []
    for axis, taps in enumerate(slides.kernel):
        size = None if dims is None else dims[axis + 2]
        met: npt.NDArray[np.bool_] = np.ones(taps, np.bool_)
        if size is not None and size + slides.padding[axis] >= slides.span[axis]:
            stride = slides.strides[axis]
            last = (size + slides.padding[axis] - slides.span[axis]) // stride
            places = np.arange(taps) * slides.dilations[axis] - slides.pads[axis]
            first = np.maximum(0, -(places // stride))  # window in which a tap is not before it
            inside = (first <= last) & (places + first * stride < size)
            met = np.asarray(inside) if inside.any() else met
        found.append(met)
    return tuple(found)


def leaves_input(pads: tuple[int, ...], dims: tuple[int | None, ...] | None) -> bool:
    """Whether slicing takes no more positions than there are, in every run."""
    axes = len(pads) // 2
    for axis in range(axes):
        begin, end = pads[axis], pads[axis + axes]
        size = None if dims is None else dims[axis + 2]
        cut = max(-begin, 0) + max(-end, 0)
        if cut and (max(begin, end) > 0 if size is None else cut > size):
            return False
    return True


def sliced(source: Operand, made: Fresh, pads: tuple[int, ...]) -> NewNode:
    """Return the Slice that takes off as many positions as pads are below 0."""
    axes = len(pads) // 2
    cut = [a for a in range(axes) if min(pads[a], pads[a + axes]) < 0]
    starts = [max(0, -pads[a]) for a in cut]
    ends = [min(0, pads[a + axes]) or _TO_THE_END for a in cut]
    inputs = [
        Fresh(f"{made.name}_{what}", ir.tensor(np.array(values, np.int64)))
        for what, values in (("starts", starts), ("ends", ends), ("axes", [a + 2 for a in cut]))
    ]
    return NewNode("Slice", (source, *inputs), (made,))
