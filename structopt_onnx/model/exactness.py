"""How much a rewrite may change what a model computes."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Exactness(Enum):
    """What a rewrite promises about the outputs, from the strongest promise to the weakest."""

    BITWISE = "bitwise"
    """The same bits: values are moved or copied, no arithmetic changes."""

    ROUNDING = "rounding"
    """The same function of real numbers, computed in another order."""

    LOSSY = "lossy"
    """Another function, close to the first; how close is a matter of measurement."""

    @property
    def rank(self) -> int:
        """Position in the order of promises: 0 for the strongest."""
        return list(Exactness).index(self)

    @classmethod
    def weakest(cls, promises: Iterable[Exactness]) -> Exactness:
        """Promise of several rewrites together: the weakest of them, BITWISE for none."""
        return max(promises, key=lambda promise: promise.rank, default=cls.BITWISE)
