"""The kernel of two convolutions, one after the other."""

from __future__ import annotations

from itertools import product
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from structopt_onnx.passes.convolution.geometry import Window


def composed_window(first: Window, second: Window) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return taps and dilations of the convolution that does what two do.

    Where one of the two has a single tap along an axis, the other's taps stay as far apart as
    they are, seen from the input of the first; otherwise all positions between count as taps.
    """
    kernel, dilations = [], []
    for axis in range(first.axes):
        apart = second.dilations[axis] * first.strides[axis]
        if first.kernel[axis] == 1:
            taps, step = second.kernel[axis], apart
        elif second.kernel[axis] == 1:
            taps, step = first.kernel[axis], first.dilations[axis]
        else:
            taps, step = first.span[axis] + (second.kernel[axis] - 1) * apart, 1
        kernel.append(taps)
        dilations.append(step)
    return tuple(kernel), tuple(dilations)


def composed_kernel(
    one: np.ndarray,
    groups_of_one: int,
    other: np.ndarray,
    groups_of_other: int,
    at: tuple[Window, Window],
) -> tuple[np.ndarray, int]:
    """Compose two weights.

    Parameters
    ----------
    one, other
        Weights of the first and the second convolution, float64, ``[M, I/g, *k]`` and
        ``[O, M/g, *k]``.
    groups_of_one, groups_of_other
        Their groups.
    at
        Windows of the first and the second.

    Returns
    -------
    tuple
        The weight ``[O, I/g, *k]`` and its number of groups g, the common divisor of both.
    """
    first, second = at
    groups = gcd(groups_of_one, groups_of_other)
    inner = _widened(one, groups_of_one, groups)
    outer = _widened(other, groups_of_other, groups)
    kernel, dilations = composed_window(first, second)
    made = np.zeros((groups, outer.shape[1], inner.shape[2], *kernel))
    axes = first.axes
    for tap in product(*(range(k) for k in second.kernel)):
        rows = zip(tap, second.dilations, first.strides, dilations, strict=True)
        starts = [t * d * s // step for t, d, s, step in rows]
        reach = [
            slice(
                start,
                start + (taps - 1) * (apart // step) + 1,
                max(1, apart // step),
            )
            for start, taps, apart, step in zip(
                starts, first.kernel, first.dilations, dilations, strict=True
            )
        ]
        mixed = np.einsum("gom,gmi...->goi...", outer[(slice(None),) * 3 + tap], inner)
        made[(slice(None),) * 3 + tuple(reach)] += mixed
    shape = (made.shape[0] * made.shape[1], made.shape[2], *made.shape[-axes:])
    return made.reshape(shape), groups


def _widened(weight: np.ndarray, present: int, groups: int) -> np.ndarray:
    """Return a weight as ``[groups, O/groups, I/groups, *k]``, zero between narrower groups."""
    outputs, inputs = weight.shape[:2]
    each, inside = outputs // present, present // groups
    wide = np.zeros((groups, inside, each, inside, inputs, *weight.shape[2:]))
    parts = weight.reshape(groups, inside, each, inputs, *weight.shape[2:])
    for index in range(inside):
        wide[:, index, :, index] = parts[:, index]
    return wide.reshape(groups, inside * each, inside * inputs, *weight.shape[2:])
