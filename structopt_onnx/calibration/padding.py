"""Padding of sample inputs: found where a model does not look at it, and cut off.

Inputs of many lengths come padded to one. What a model makes of the padding is masked, yet it
would count in the statistics of every layer as much as the rest, and take its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.errors import StructoptError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from structopt_onnx.calibration.layout import Array, Feeds
    from structopt_onnx.runtime.session import TensorInfo

# Samples that are run with and without it, beside the one that is shortest without.
_LOOKS = 8
# One position at the end that differs from the one before is none.
_SHORTEST = 2


@dataclass(frozen=True)
class Padding:
    """Axes along which equal positions at the end may be cut off.

    Parameters
    ----------
    axes
        Each as the name of an input and its place there. Those of one length are cut alike:
        exporters give the length of two inputs two names.
    """

    axes: tuple[tuple[str, int], ...] = ()

    def cut(self, feeds: Feeds) -> Feeds:
        """Return feeds without what is padding in all their rows, as views; the same where none."""
        alike: dict[int, list[tuple[str, int]]] = {}
        for name, axis in self.axes:
            if name in feeds and feeds[name].ndim > axis:
                alike.setdefault(feeds[name].shape[axis], []).append((name, axis))
        cut = feeds
        for length, places in alike.items():
            start = max(_run(feeds[name], axis) for name, axis in places)
            if 0 < start <= length - _SHORTEST:
                cut = dict(cut)
                for name, axis in places:
                    cut[name] = cut[name][(slice(None),) * axis + (slice(start),)]
        return cut


def padding_of(
    samples: Sequence[Feeds], inputs: Sequence[TensorInfo], same: Callable[[Feeds, Feeds], bool]
) -> Padding:
    """Return what may be cut off samples of a model; nothing where its outputs tell a difference.

    Parameters
    ----------
    samples
        Inputs of single runs.
    inputs
        The model's inputs: an axis that may be of any length has a name there.
    same
        Whether the model makes the same of two inputs; it may raise where it can't run.
    """
    padding = Padding(_named(inputs))
    if not padding.axes:
        return padding
    sizes = {}
    for index, feeds in enumerate(samples):
        if (cut := padding.cut(feeds)) is not feeds:
            sizes[index] = sum(array.size for array in cut.values())
    if not sizes:
        return Padding()
    looked = {min(sizes, key=sizes.__getitem__), *list(sizes)[:: -(-len(sizes) // _LOOKS)]}
    try:
        for index in sorted(looked):
            if not same(samples[index], padding.cut(samples[index])):
                return Padding()
    except StructoptError:  # it runs at some lengths only
        return Padding()
    return padding


def _named(inputs: Sequence[TensorInfo]) -> tuple[tuple[str, int], ...]:
    """Return the axes with a name that is not that of the first axis of an input."""
    first = {info.shape[0] for info in inputs if info.shape}
    return tuple(
        (info.name, axis)
        for info in inputs
        for axis, size in enumerate(info.shape)
        if isinstance(size, str) and size not in first
    )


def _run(array: Array, axis: int) -> int:
    """Return where the run of equal positions at the end of an axis begins."""
    flat = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    differs = np.flatnonzero((flat != flat[-1:]).any(axis=1))
    return int(differs[-1]) + 1 if differs.size else 0
