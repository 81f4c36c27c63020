"""Spectra as a report keeps them: few points, most of them where the energy is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_POINTS = 64
# More than a plot shows.
_DIGITS = 4


def thinned(shares: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Keep at most 64 directions, evenly by the logarithm of their numbers.

    Parameters
    ----------
    shares
        Share of the energy along each direction, the most important first.

    Returns
    -------
    tuple
        Numbers of directions, from 1, and their shares to four digits; first and last are kept.
    """
    if not shares:
        return ()
    numbers = np.geomspace(1, len(shares), _MOST_POINTS).round().astype(int)
    if len(shares) <= _MOST_POINTS:
        numbers = np.arange(1, len(shares) + 1)
    return tuple((int(n), float(f"{shares[n - 1]:.{_DIGITS}g}")) for n in np.unique(numbers))
