"""Mean and covariance of vectors that arrive in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas

FloatArray = npt.NDArray[np.float64]

LARGEST_DIMENSION = 8192
"""Largest dimension whose moments are worth their memory: 512 MiB."""

# A rank-k update of the sum reads and writes d^2 numbers whatever k is: rows are collected until
# the product costs more than that traffic.
_MIN_ROWS = 128
_BUFFER_ELEMENTS = 2**17
# Triangles are mirrored in blocks that stay in the cache.
_BLOCK = 256


@dataclass(frozen=True)
class Moments:
    """First and second moments of `count` observed vectors of length d.

    Parameters
    ----------
    count
        Number of observed vectors.
    mean
        Mean vector, float64 [d].
    covariance
        Covariance matrix, float64 [d, d], symmetric; divided by `count`, not by `count - 1`, so
        that its trace is the mean squared deviation of the observations themselves.
    """

    count: int
    mean: FloatArray
    covariance: FloatArray

    @property
    def second_moment(self) -> FloatArray:
        """Mean of x xᵀ, float64 [d, d]."""
        return self.covariance + np.outer(self.mean, self.mean)


class MomentsAccumulator:
    """Streams mean and covariance; memory is O(d²), whatever the number of observations.

    Sums of x - s and (x - s)(x - s)ᵀ are kept in float64, where s is the mean of the first update:
    without the shift, activations with a mean far larger than their spread would lose the spread
    to cancellation (Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983).

    Parameters
    ----------
    dimension
        Length d of an observed vector.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._count = 0
        self._shift: FloatArray | None = None
        self._sum: FloatArray = np.zeros(dimension)
        # Fortran order and the lower triangle only: what BLAS updates in place, at half the work.
        self._products: FloatArray = np.zeros((dimension, dimension), order="F")
        self._buffer: FloatArray | None = None
        self._filled = 0

    @staticmethod
    def nbytes(dimension: int) -> int:
        """Return the memory that an accumulator of this dimension holds while it is fed."""
        return 8 * (dimension * dimension + _rows(dimension) * dimension)

    @property
    def count(self) -> int:
        """Number of vectors observed so far."""
        return self._count

    def update(self, array: npt.NDArray[Any], axis: int = -1) -> None:
        """Observe every vector along one axis of an array.

        Parameters
        ----------
        array
            Numbers of any real dtype, [..., d, ...]. Zero vectors change nothing.
        axis
            The axis of length d; the others are observations.

        Raises
        ------
        ValueError
            When the axis has another length than `dimension`.
        """
        rows = np.moveaxis(array, axis, -1)
        if rows.shape[-1] != self.dimension:
            message = f"axis {axis} of shape {array.shape} is not of length {self.dimension}"
            raise ValueError(message)
        if rows.size == 0:
            return
        rows = rows.reshape(-1, self.dimension)
        if self._shift is None:
            self._shift = rows.mean(axis=0, dtype=np.float64)
        if self._buffer is None:
            self._buffer = np.empty((_rows(self.dimension), self.dimension))
        self._count += len(rows)
        start = 0
        while start < len(rows):
            taken = min(len(rows) - start, len(self._buffer) - self._filled)
            part = self._buffer[self._filled : self._filled + taken]
            np.subtract(rows[start : start + taken], self._shift, out=part)
            start += taken
            self._filled += taken
            if self._filled == len(self._buffer):
                self._flush()

    def moments(self) -> Moments:
        """Return the moments of everything observed so far; zeros when nothing was."""
        self._flush()
        n = max(self._count, 1)
        offset = self._sum / n
        covariance = blas.dsyr(-1.0, offset, lower=1, a=self._products / n, overwrite_a=1)
        _mirror(covariance)
        # Rounding may leave the variance of a constant a hair below zero.
        np.fill_diagonal(covariance, np.maximum(covariance.diagonal(), 0.0))
        shift = self._sum if self._shift is None else self._shift
        return Moments(self._count, shift + offset, covariance)

    def _flush(self) -> None:
        if self._buffer is None or not self._filled:
            return
        rows = self._buffer[: self._filled]
        self._sum += rows.sum(axis=0)
        self._products = blas.dsyrk(1.0, rows.T, beta=1.0, c=self._products, lower=1, overwrite_c=1)
        self._filled = 0


def _rows(dimension: int) -> int:
    return max(_MIN_ROWS, _BUFFER_ELEMENTS // max(dimension, 1))


def _mirror(lower: FloatArray) -> None:
    """Copy the lower triangle onto the upper one, block by block, without a second matrix."""
    for start in range(0, len(lower), _BLOCK):
        stop = start + _BLOCK
        diagonal = np.tril(lower[start:stop, start:stop])
        lower[start:stop, start:stop] = diagonal + np.tril(diagonal, -1).T
        lower[start:stop, stop:] = lower[stop:, start:stop].T
