"""The planner: which option of which choice, by an exact multiple-choice knapsack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

# Weights are rounded up to this fraction of the capacity, so that every plan stays feasible.
_GRID = 8192


@dataclass(frozen=True)
class Item:
    """One option of a group.

    Parameters
    ----------
    weight
        What it uses of the capacity, not negative.
    value
        What it costs; less is better, negative when it saves.
    """

    weight: float
    value: float


def knapsack(groups: Sequence[Sequence[Item]], capacity: float) -> list[int | None]:
    """Choose at most one item per group with the least total value within the capacity.

    Dynamic programming over the groups and a grid of the capacity (multiple-choice knapsack,
    Kellerer, Pferschy and Pisinger, "Knapsack Problems", chapter 11). Exact for weights on the
    grid; others are rounded up, which can only waste capacity, at most one part in 8192 per
    group. Taking nothing has weight and value 0.

    Parameters
    ----------
    groups
        Items per group.
    capacity
        Largest total weight allowed; not negative.

    Returns
    -------
    list
        Index of the chosen item per group, or None.
    """
    grid = [[_parts(item.weight, capacity) for item in group] for group in groups]
    best = np.zeros(_GRID + 1)
    taken: list[np.ndarray] = []
    for group, weights in zip(groups, grid, strict=True):
        following, choice = best.copy(), np.full(_GRID + 1, -1)
        for index, (item, weight) in enumerate(zip(group, weights, strict=True)):
            if weight > _GRID:
                continue
            candidate = best[: _GRID + 1 - weight] + item.value
            better = candidate < following[weight:]
            following[weight:][better] = candidate[better]
            choice[weight:][better] = index
        best = following
        taken.append(choice)
    plan: list[int | None] = []
    left = _GRID
    for choice, weights in zip(reversed(taken), reversed(grid), strict=True):
        index = int(choice[left])
        plan.append(None if index < 0 else index)
        left -= weights[index] if index >= 0 else 0
    return plan[::-1]


def _parts(weight: float, capacity: float) -> int:
    """Return a weight in parts of the capacity, rounded up; more than all for one that is over."""
    if weight <= 0:
        return 0
    if not weight <= capacity or not math.isfinite(weight):
        return _GRID + 1
    return math.ceil(weight / capacity * _GRID)
