"""Which samples are fitted to, probed with, and judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.calibration.layout import Array

_PARTS = 3
# Without sources, every part has a block of each stretch: of so many at most, of a length at least
# at which neighbours across a cut are few.
_MOST_STRETCHES, _LEAST_STRETCH = 5, 30
# Share of so many samples that is probed with, and that is judged by; and that of further ones.
_JUDGED, _FIRST, _JUDGED_BEYOND = 0.2, 1000, 0.05


def default_fractions(count: int) -> tuple[float, float, float]:
    """Return the shares that are fitted to, probed with and judged by."""
    judged = _JUDGED * min(count, _FIRST) + _JUDGED_BEYOND * max(0, count - _FIRST)
    return 1 - 2 * judged / count, judged / count, judged / count


def blocks(count: int, fractions: tuple[float, float, float]) -> list[Array]:
    """Return the rows of each part: blocks of the same stretches, neighbours kept together."""
    stretches = max(1, min(_MOST_STRETCHES, count // _LEAST_STRETCH))
    first, second = _block_ends(count, fractions)
    sizes = np.array([first, second - first, count - second])
    # Cumulated, so that the parts are as large as they would be of one stretch.
    ends = np.rint(np.outer(np.arange(stretches + 1) / stretches, sizes)).astype(np.intp)
    lengths = np.diff(ends, axis=0).reshape(-1)
    rows = np.split(np.arange(count), np.cumsum(lengths)[:-1])
    return [np.concatenate(rows[part::_PARTS]) for part in range(_PARTS)]


def _block_ends(count: int, fractions: tuple[float, float, float]) -> list[int]:
    total = sum(fractions)
    probe, final = (max(1, round(count * share / total)) for share in fractions[1:])
    first = max(1, count - probe - final)
    return [first, min(first + probe, count - 1)]


def share_out(sizes: Sequence[int], fractions: tuple[float, float, float]) -> list[int]:
    """Give each source to the part that lacks most, the largest source first."""
    total = sum(sizes) / sum(fractions)
    lacking = [share * total for share in fractions]
    owner = [0] * len(sizes)
    empty = set(range(_PARTS))
    order = sorted(range(len(sizes)), key=lambda k: -sizes[k])
    for done, k in enumerate(order):
        open_to = empty if len(sizes) - done == len(empty) else range(_PARTS)
        part = max(open_to, key=lambda p: (lacking[p], -p))
        owner[k] = part
        lacking[part] -= sizes[k]
        empty.discard(part)
    return owner
