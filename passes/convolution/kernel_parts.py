"""Parts of a kernel: which are worth trying, and the window that is left."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.convolution.taps import leaves_input, padding_left

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.edit import AttributeValue
    from structopt_onnx.passes.convolution.geometry import Window

# Sizes tried along an axis, spread evenly where the kernel has more.
_MOST_SIZES = 6

Taps = tuple[slice, ...]


def label(taps: Taps) -> str:
    """Name a part of a kernel, such as ``taps 0:2,0:3:2``."""
    return "taps " + ",".join(f"{t.start}:{t.stop}" + f":{t.step}" * (t.step > 1) for t in taps)


def sizes(taps: Taps) -> tuple[int, ...]:
    """Return how many taps are kept per axis."""
    return tuple(len(range(t.start, t.stop, t.step)) for t in taps)


def kept_features(kernel: tuple[int, ...], taps: Taps, channels: int) -> np.ndarray:
    """Return which numbers of a patch a part of a kernel sees, channel by channel."""
    places = np.arange(np.prod(kernel)).reshape(kernel)[taps].reshape(-1)
    return np.asarray((np.arange(channels)[:, None] * np.prod(kernel) + places).reshape(-1))


def part_of(
    slides: Window, taps: Taps, dims: tuple[int | None, ...] | None
) -> tuple[dict[str, AttributeValue], tuple[int, ...]] | None:
    """Return the attributes of a convolution by a part of a kernel.

    Parameters
    ----------
    slides
        The window of the whole kernel.
    taps
        Those kept.
    dims
        Shape of the input, as far as it is known.

    Returns
    -------
    tuple
        Attributes, and the padding, begins then ends, below 0 where the input must be sliced; None
        where that may leave nothing of it.
    """
    pads = padding_left(slides, taps, dims)
    if not leaves_input(pads, dims):
        return None
    attributes: dict[str, AttributeValue] = {
        "kernel_shape": sizes(taps),
        "strides": slides.strides,
        "dilations": tuple(d * t.step for d, t in zip(slides.dilations, taps, strict=True)),
        "pads": tuple(max(pad, 0) for pad in pads),
    }
    return attributes, pads


def parts_of(kernel: tuple[int, ...]) -> Iterator[Taps]:
    """Yield the parts of a kernel worth trying: all taps of an axis, or fewer, cut axes alike."""
    for taps in product(*(_lines(size) for size in kernel)):
        cut = {
            (len(range(line.start, line.stop, line.step)), line.step)
            for line, size in zip(taps, kernel, strict=True)
            if line != slice(0, size, 1)
        }
        if len(cut) == 1:
            yield taps


def middle_parts_of(kernel: tuple[int, ...]) -> Iterator[Taps]:
    """Yield parts around the middle that are cut along every axis with the most taps."""
    for taps in parts_of(kernel):
        rows = list(zip(taps, kernel, sizes(taps), strict=True))
        middle = all(t.step == 1 and t.start == (size - left) // 2 for t, size, left in rows)
        if middle and all(left < size for _, size, left in rows if size == max(kernel)):
            yield taps


def _lines(size: int) -> Iterator[slice]:
    """Yield all taps of an axis, fewer around the middle, and every other one."""
    yield slice(0, size, 1)
    shorter = range(1, size)
    if len(shorter) > _MOST_SIZES:
        shorter = range(size // _MOST_SIZES, size, size // _MOST_SIZES)
    for length in shorter:
        for start in sorted({(size - length) // 2, (size - length + 1) // 2}):
            yield slice(start, start + length, 1)
    for start in range(2):
        others = range(start, size, 2)
        if len(others) > 1:
            yield slice(start, others[-1] + 1, 2)
