"""Sums of products that neither overflow nor underflow, whatever the scale of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


@dataclass
class ScaledSum:
    """A running sum kept as `fraction * 2**exponent` with an exponent of any size.

    The idea is that of LAPACK's xLASSQ: squares of 1e200 or of 1e-200 are no floating-point
    numbers, but their sum scaled by a power of two is, and the scaling is free of rounding.
    """

    fraction: float = 0.0
    exponent: int = 0

    def add(self, other: ScaledSum) -> None:
        """Add another sum to this one."""
        if other.fraction == 0.0:
            return
        if self.fraction == 0.0:
            self.fraction, self.exponent = other.fraction, other.exponent
            return
        common = max(self.exponent, other.exponent)
        total = math.ldexp(self.fraction, self.exponent - common)
        total += math.ldexp(other.fraction, other.exponent - common)
        self.fraction, shift = math.frexp(total)
        self.exponent = common + shift

    def over(self, other: ScaledSum) -> float:
        """Quotient of two sums: 0/0 is 0, x/0 is infinite, and so is a quotient too large."""
        return _value(*_quotient(self, other))

    def root_over(self, other: ScaledSum) -> float:
        """Square root of the quotient of two sums of squares; 0/0 is 0 and x/0 infinite."""
        fraction, exponent = _quotient(self, other)
        if exponent % 2:
            fraction, exponent = 2.0 * fraction, exponent - 1
        return _value(math.sqrt(fraction), exponent // 2)

    def cosine(self, first: ScaledSum, second: ScaledSum) -> float:
        """Cosine of the angle between two vectors, this sum being their inner product.

        Two zero vectors are parallel (1), a zero vector is orthogonal to any other (0).
        """
        if first.fraction == 0.0 and second.fraction == 0.0:
            return 1.0
        if first.fraction == 0.0 or second.fraction == 0.0:
            return 0.0
        exponent = 2 * self.exponent - first.exponent - second.exponent
        fraction = math.sqrt(first.fraction) * math.sqrt(second.fraction)
        if exponent % 2:
            fraction, exponent = fraction / math.sqrt(2.0), exponent - 1
        return max(-1.0, min(1.0, _value(self.fraction / fraction, exponent // 2)))


def _quotient(over: ScaledSum, under: ScaledSum) -> tuple[float, int]:
    if over.fraction == 0.0:
        return 0.0, 0
    if under.fraction == 0.0:
        return math.copysign(math.inf, over.fraction), 0
    return over.fraction / under.fraction, over.exponent - under.exponent


def _value(fraction: float, exponent: int) -> float:
    try:
        return math.ldexp(fraction, exponent)
    except OverflowError:
        return math.copysign(math.inf, fraction)


def scaled(x: Vector) -> tuple[Vector, int]:
    """Vector and exponent with `x == vector * 2**exponent` and entries of at most 1."""
    if x.size == 0:
        return x, 0
    exponent = int(np.frexp(np.max(np.abs(x)))[1])
    return np.ldexp(x, -exponent), exponent


def inner(x: Vector, y: Vector, exponent: int) -> ScaledSum:
    """Inner product of two scaled vectors whose exponents add up to `exponent`."""
    # Not np.dot: BLAS starts threads for this, which on busy cores takes a hundred times longer.
    fraction, shift = math.frexp(float(np.einsum("i,i->", x, y)))
    return ScaledSum(fraction, exponent + shift)


@dataclass
class PairSums:
    """The sums that describe how a vector `b` stands to a vector `a`.

    Attributes
    ----------
    reference, candidate, difference
        Sums of the squares of a, b and b - a.
    product
        Sum of the products of a and b.
    max_abs
        Largest absolute entry of b - a; infinite where that is no float64.
    largest
        Largest absolute entry of a.
    """

    reference: ScaledSum
    candidate: ScaledSum
    difference: ScaledSum
    product: ScaledSum
    max_abs: float
    largest: float

    @classmethod
    def zero(cls) -> PairSums:
        """Return the sums over no elements."""
        return cls(ScaledSum(), ScaledSum(), ScaledSum(), ScaledSum(), 0.0, 0.0)

    @classmethod
    def of(cls, a: NDArray[Any], b: NDArray[Any]) -> PairSums:
        """Compute the sums over two finite float64 vectors of one length."""
        x, ex = scaled(a)
        y, ey = scaled(b)
        # Both on the larger exponent, so that the difference can't overflow.
        common = max(ex, ey)
        difference = np.ldexp(y, ey - common) - np.ldexp(x, ex - common)
        d, shift = scaled(difference)
        largest = float(np.max(np.abs(d), initial=0.0))
        return cls(
            reference=inner(x, x, 2 * ex),
            candidate=inner(y, y, 2 * ey),
            difference=inner(d, d, 2 * (common + shift)),
            product=inner(x, y, ex + ey),
            max_abs=_value(largest, common + shift),
            largest=_value(float(np.max(np.abs(x), initial=0.0)), ex),
        )

    @classmethod
    def equal(cls, a: NDArray[Any]) -> PairSums:
        """Compute the sums over a finite float64 vector and itself."""
        x, exponent = scaled(a)
        square = inner(x, x, 2 * exponent)
        largest = _value(float(np.max(np.abs(x), initial=0.0)), exponent)
        return cls(square, replace(square), ScaledSum(), replace(square), 0.0, largest)

    def add(self, other: PairSums) -> None:
        """Add the sums over further elements."""
        self.reference.add(other.reference)
        self.candidate.add(other.candidate)
        self.difference.add(other.difference)
        self.product.add(other.product)
        self.max_abs = max(self.max_abs, other.max_abs)
        self.largest = max(self.largest, other.largest)
