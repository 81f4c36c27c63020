"""A few values that many numbers are rounded to, at the least squared error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_BINS = 4096
_MOST_STEPS = 60
_SETTLED = 1e-4


def codebook(values: FloatArray, size: int) -> FloatArray:
    """Find values to round to (S. Lloyd, "Least squares quantization in PCM", 1982).

    Starts where many values would be best: as dense as the cube root of the numbers' density
    (P. Panter, W. Dite, "Quantization distortion in pulse-count modulation", 1951). On sorted
    numbers with running sums a step costs a search per value.

    Parameters
    ----------
    values
        Finite float64 [count], at least one.
    size
        How many values there may be.

    Returns
    -------
    array
        At most `size` values, float64, ascending.
    """
    ordered = np.sort(values)
    different = np.unique(ordered)
    if different.size <= size:
        return different
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    counts, edges = np.histogram(ordered, bins=_BINS)
    shares = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    found = np.unique(np.interp((np.arange(size) + 0.5) / size * shares[-1], shares, edges))
    reach = float(ordered[-1] - ordered[0])
    for _ in range(_MOST_STEPS):
        inner = np.searchsorted(ordered, (found[1:] + found[:-1]) / 2)
        ends = np.concatenate([[0], inner, [ordered.size]])
        held = np.diff(ends)
        used = held > 0
        means = np.diff(sums[ends])[used] / held[used]
        settled = used.all() and float(np.abs(means - found).max()) <= _SETTLED * reach / size
        found = means
        if settled:
            break
    return found


def rounded(values: FloatArray, book: FloatArray) -> FloatArray:
    """Return for each number the nearest value of a codebook, float64 [count]."""
    return np.asarray(book[np.searchsorted((book[1:] + book[:-1]) / 2, values)])
