"""Dimensions that are known for every run: numbers, symbols and multiples of symbols."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Unknown:
    """A size that equals only itself."""


@dataclass(frozen=True)
class Times:
    """A whole multiple of a size."""

    factor: int
    of: str | Unknown


Dim = int | str | Unknown | Times
Dims = tuple[Dim, ...]


def broadcast(shapes: Sequence[Dims]) -> Dims:
    """Return the shape that several broadcast to (ONNX specification, "Broadcasting")."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(_common(sizes) for sizes in zip(*padded, strict=True))


def _common(sizes: Sequence[Dim]) -> Dim:
    distinct = list(dict.fromkeys(size for size in sizes if size != 1))
    if not distinct:
        return 1
    fixed = [size for size in distinct if isinstance(size, int)]
    if fixed:
        return fixed[0]
    return distinct[0] if len(distinct) == 1 else Unknown()


def divided(size: Dim, count: int) -> Dim | None:
    """Return a size divided by a number; None where it may leave a rest."""
    if isinstance(size, int):
        return None if size % count else size // count
    if not isinstance(size, Times) or size.factor % count:
        return None
    return size.of if size.factor == count else Times(size.factor // count, size.of)


def rest_of(shape: Dims, wanted: Dims) -> Dim:
    """Divide the product of all sizes by that of the given ones."""
    numbers, symbols = _factors(shape)
    divisor, given = _factors([w for w in wanted if w != -1])
    for symbol in given:
        if symbol not in symbols:
            return Unknown()
        symbols.remove(symbol)
    if divisor == 0 or numbers % divisor or len(symbols) > 1:
        return Unknown()
    factor = numbers // divisor
    if not symbols:
        return factor
    return symbols[0] if factor == 1 else Times(factor, symbols[0])


def _factors(sizes: Sequence[Dim]) -> tuple[int, list[str | Unknown]]:
    numbers = [s if isinstance(s, int) else s.factor for s in sizes if isinstance(s, int | Times)]
    symbols = [s.of if isinstance(s, Times) else s for s in sizes if not isinstance(s, int)]
    return math.prod(numbers), symbols
