"""Activations that are straight in pieces, and what before them comes nearest to a target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """``slope z + offset`` for z from `low` to `high`."""

    low: float
    high: float
    slope: float
    offset: float = 0.0

    def __call__(self, array: FloatArray) -> FloatArray:
        """Return the values of the line, wherever the piece ends."""
        return self.slope * array + self.offset


@dataclass(frozen=True)
class PiecewiseLinear:
    """A continuous function of one number, applied to every element.

    Parameters
    ----------
    pieces
        Without gaps, from minus to plus infinity.
    """

    pieces: tuple[Piece, ...]

    def __call__(self, array: FloatArray) -> FloatArray:
        """Return the values, of the same shape."""
        found = self.pieces[0](array)
        for piece in self.pieces[1:]:
            found = np.where(array > piece.low, piece(array), found)
        return found

    def nearest(self, target: FloatArray, towards: FloatArray, penalty: float) -> FloatArray:
        """Return ``argmin_z (f(z) - target)^2 + penalty (z - towards)^2``, element by element.

        Parameters
        ----------
        target, towards
            Of one shape.
        penalty
            Above 0.
        """
        best, least = towards, np.full(target.shape, math.inf)
        for piece in self.pieces:
            aim = piece.slope * (target - piece.offset) + penalty * towards
            z = np.clip(aim / (piece.slope**2 + penalty), piece.low, piece.high)
            cost = (piece(z) - target) ** 2 + penalty * (z - towards) ** 2
            best, least = np.where(cost < least, z, best), np.minimum(cost, least)
        return best


def leaky_relu(slope: float = 0.0) -> PiecewiseLinear:
    """Return LeakyRelu; Relu at slope 0."""
    return PiecewiseLinear((Piece(-math.inf, 0.0, slope), Piece(0.0, math.inf, 1.0)))


def clip(low: float, high: float) -> PiecewiseLinear:
    """Return Clip; Relu6 from 0 to 6. A bound may be infinite."""
    pieces = [Piece(low, high, 1.0)]
    if low > -math.inf:
        pieces = [Piece(-math.inf, low, 0.0, low), *pieces]
    if high < math.inf:
        pieces.append(Piece(high, math.inf, 0.0, high))
    return PiecewiseLinear(tuple(pieces))
