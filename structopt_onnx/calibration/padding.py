"""Padding of sample inputs: found where a model does not look at it, and cut off.

Inputs of many lengths come padded to one. What a model makes of the padding is masked, yet it
would count in the statistics of every layer as much as the rest, and take its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.errors import StructoptError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from structopt_onnx.calibration.layout import Array, Feeds
    from structopt_onnx.runtime.session import TensorInfo

# Samples that are run with and without it, beside the one that is shortest without.
_LOOKS = 8
# Relative L2 difference of an output that other shapes of the same sums make.
_SAME = 1e-4
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
    samples: Sequence[Feeds], inputs: Sequence[TensorInfo], run: Callable[[Feeds], dict[str, Any]]
) -> Padding:
    """Return what may be cut off samples of a model; nothing where its outputs tell a difference.

    Parameters
    ----------
    samples
        Inputs of single runs.
    inputs
        The model's inputs: an axis that may be of any length has a name there.
    run
        Runs the model.
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
            if not _same(run(samples[index]), run(padding.cut(samples[index]))):
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


def _same(whole: Mapping[str, Any], cut: Mapping[str, Any]) -> bool:
    return all(_alike(value, cut[name]) for name, value in whole.items())


def _alike(a: object, b: object) -> bool:
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return False
    away, size = np.linalg.norm(y[finite] - x[finite]), np.linalg.norm(x[finite])
    return bool(away <= _SAME * size)
