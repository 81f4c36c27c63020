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

# Samples that are run with and without it.
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
        For every such axis of the model, which its inputs name alike: its place in each of them.
    """

    axes: tuple[Mapping[str, int], ...] = ()

    def cut(self, feeds: Feeds) -> Feeds:
        """Return feeds without what is padding in all their rows, as views."""
        for places in self.axes:
            shown = [
                np.moveaxis(feeds[name], axis, 0)
                for name, axis in places.items()
                if name in feeds and feeds[name].ndim > axis
            ]
            if len({len(array) for array in shown}) != 1 or not len(shown[0]):
                continue
            start = max(_run(array) for array in shown)
            if 0 < start <= len(shown[0]) - _SHORTEST:
                feeds = {
                    name: np.take(array, range(start), places[name]) if name in places else array
                    for name, array in feeds.items()
                }
        return feeds


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
    padding = Padding(tuple(_named(inputs).values()))
    if not padding.axes:
        return padding
    pairs = ((feeds, padding.cut(feeds)) for feeds in samples)
    padded = [(feeds, cut) for feeds, cut in pairs if cut is not feeds]
    looked = padded[:: max(1, len(padded) // _LOOKS)]
    try:
        unseen = bool(padded) and all(_same(run(feeds), run(cut)) for feeds, cut in looked)
    except StructoptError:  # it runs at some lengths only
        unseen = False
    return padding if unseen else Padding()


def _named(inputs: Sequence[TensorInfo]) -> dict[str, dict[str, int]]:
    """Return the places of axes by their name, without what is the first axis of an input."""
    first = {info.shape[0] for info in inputs if info.shape}
    found: dict[str, dict[str, int]] = {}
    for info in inputs:
        for axis, size in enumerate(info.shape):
            if isinstance(size, str) and size not in first:
                found.setdefault(size, {}).setdefault(info.name, axis)
    return found


def _run(array: Array) -> int:
    """Return where the run of equal positions at the end of the first axis begins."""
    flat = array.reshape(len(array), -1)
    differs = np.flatnonzero((flat != flat[-1]).any(axis=1))
    return int(differs[-1]) + 1 if differs.size else 0


def _same(whole: Mapping[str, Any], cut: Mapping[str, Any]) -> bool:
    for name, value in whole.items():
        other = cut[name]
        if not isinstance(value, np.ndarray) or value.shape != np.shape(other):
            return False
        if value.dtype.kind != "f":
            if not np.array_equal(value, other):
                return False
        elif np.linalg.norm(other - value) > _SAME * np.linalg.norm(value):
            return False
    return True
