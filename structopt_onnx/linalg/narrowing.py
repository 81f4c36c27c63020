"""Weights computed in float64 as they are stored, where that type can hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def narrowed(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
    """Return an array in a narrower type, or None where that type can't hold it.

    A type can't hold an array with an element beyond its range, infinities and NaN among them,
    nor one that is not zero and has no element that is a normal number of the type.

    Parameters
    ----------
    array
        Floating point, any shape.
    dtype
        A floating-point type of NumPy.
    """
    wanted = np.dtype(dtype)
    with np.errstate(all="ignore"):
        stored = array.astype(wanted)
    largest = np.abs(stored.astype(np.float64)).max(initial=0.0)
    lost = bool(array.any()) and largest < float(np.finfo(wanted).tiny)
    return stored if np.isfinite(largest) and not lost else None
