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


def cover(groups: Sequence[Sequence[Item]], saving: float) -> list[int | None] | None:
    """Choose at most one item per group with the least total weight that saves enough.

    The dual of `knapsack`, by dynamic programming over the groups and a grid of what is to be
    saved. Exact for values on the grid; others are rounded towards saving less, so that the plan
    saves at least what was asked for, and more at most by one part in 8192 per group.

    Parameters
    ----------
    groups
        Items per group. Taking nothing has weight and value 0.
    saving
        How far the total value must fall below 0.

    Returns
    -------
    list
        Index of the chosen item per group, or None; None as a whole when no choice saves enough.
    """
    if saving <= 0:
        return [None] * len(groups)
    grid = [
        [min(_GRID, math.floor(max(-item.value, 0.0) / saving * _GRID)) for item in group]
        for group in groups
    ]
    least = np.full(_GRID + 1, math.inf)  # least weight that saves at least so many parts
    least[0] = 0.0
    taken: list[np.ndarray] = []
    for group, parts in zip(groups, grid, strict=True):
        following, choice = least.copy(), np.full(_GRID + 1, -1)
        for index, (item, part) in enumerate(zip(group, parts, strict=True)):
            before = np.concatenate([np.full(part, least[0]), least[: _GRID + 1 - part]])
            better = before + item.weight < following
            following[better] = before[better] + item.weight
            choice[better] = index
        least = following
        taken.append(choice)
    if not math.isfinite(least[_GRID]):
        return _all(groups, saving)
    plan: list[int | None] = []
    left = _GRID
    for choice, parts in zip(reversed(taken), reversed(grid), strict=True):
        index = int(choice[left])
        plan.append(None if index < 0 else index)
        left = max(0, left - (parts[index] if index >= 0 else 0))
    return plan[::-1]


def _all(groups: Sequence[Sequence[Item]], saving: float) -> list[int | None] | None:
    """Take what saves most in every group, which rounding must not make look too little."""
    plan: list[int | None] = []
    total = 0.0
    for group in groups:
        useful = [
            (item.value, item.weight, index)
            for index, item in enumerate(group)
            if item.value < 0 and math.isfinite(item.weight)
        ]
        value, _, index = min(useful, default=(0.0, 0.0, -1))
        total -= value
        plan.append(None if index < 0 else index)
    return plan if total >= saving else None


def _parts(weight: float, capacity: float) -> int:
    """Return a weight in parts of the capacity, rounded up; more than all for one that is over."""
    if weight <= 0:
        return 0
    if not weight <= capacity or not math.isfinite(weight):
        return _GRID + 1
    return math.ceil(weight / capacity * _GRID)
