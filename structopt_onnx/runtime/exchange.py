"""Feeds on their way to the measuring process: numpy files that need no other library to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

_NATIVE_KINDS = "biufcU"

# ONNX element types of the ml_dtypes that numpy files would forget.
_ELEMENT_TYPES = {
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
}

FeedIndex = list[dict[str, list[Any]]]
"""Per feed, per input name: key of the array in the npz, ONNX element type or `None`."""


def write_feeds(path: Path, feeds: Sequence[Mapping[str, npt.NDArray[Any]]]) -> FeedIndex:
    """Write feeds to an npz file.

    Parameters
    ----------
    path
        The file to write.
    feeds
        An array per input name, per feed.

    Returns
    -------
    list of dict
        The index that `read_feeds` wants; it is JSON.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    index: FeedIndex = []
    for feed in feeds:
        entry: dict[str, list[Any]] = {}
        for name, array in feed.items():
            key = f"array{len(arrays)}"
            arrays[key] = _storable(array)
            entry[name] = [key, _ELEMENT_TYPES.get(array.dtype.name)]
        index.append(entry)
    np.savez(path, allow_pickle=False, **arrays)
    return index


def described(feed: Mapping[str, npt.NDArray[Any]]) -> tuple[str, ...]:
    """Return name, type and shape of each input of a feed, such as ``x float32[1,3,32,32]``."""
    return tuple(
        f"{name} {array.dtype.name}[{','.join(map(str, array.shape))}]"
        for name, array in feed.items()
    )


def read_feeds(
    path: Path, index: FeedIndex
) -> list[dict[str, tuple[npt.NDArray[Any], int | None]]]:
    """Read what `write_feeds` wrote: per feed and name, the array and its ONNX element type.

    The element type is `None` where the array's own dtype says everything.
    """
    with np.load(path, allow_pickle=False) as stored:
        return [
            {name: (stored[key], element) for name, (key, element) in entry.items()}
            for entry in index
        ]


def _storable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.name in _ELEMENT_TYPES:
        unsigned = np.uint8 if array.dtype.itemsize == 1 else np.uint16
        return np.ascontiguousarray(array).view(unsigned)
    if array.dtype.kind not in _NATIVE_KINDS:
        return array.astype(np.str_)  # objects and bytes: onnxruntime's strings
    return array
