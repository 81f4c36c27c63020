"""Rows of a matrix that are multiples of others, to what their type can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from structopt_onnx.passes.sparsity.lanes import Floats, Ints

# What agrees in one random direction to this many roundings is compared element by element.
_NEAR = 16
_CHUNK = 256


def proportional(rows: npt.NDArray[Any], labels: Ints, epsilon: float) -> tuple[Ints, Floats]:
    """Find for each row the first one that it is a multiple of.

    Parameters
    ----------
    rows
        n x m, none of them zero.
    labels
        One per row; rows of different labels are not compared.
    epsilon
        Distance from 1 to the next number of the type that they are stored in. A row is a
        multiple of another when every element is, to this.

    Returns
    -------
    tuple of ndarray
        Index of the first row of the kind, the row's own where it is alone, and the factor.
    """
    count, width = rows.shape
    leaders, factors = np.arange(count), np.ones(count)
    probe = np.random.default_rng(0).standard_normal(width)
    directions = np.empty(count)
    for start in range(0, count, _CHUNK):
        wide = rows[start : start + _CHUNK].astype(np.float64)
        directions[start : start + _CHUNK] = np.abs(wide @ probe) / np.linalg.norm(wide, axis=1)
    order = np.lexsort((directions, labels))
    steps = (np.diff(directions[order]) > _NEAR * epsilon) | (np.diff(labels[order]) != 0)
    starts = np.flatnonzero(np.concatenate([[True], steps]))
    ends = np.append(starts[1:], count)
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        left = np.sort(order[start:end])
        while len(left) > 1:
            first, left = left[0], left[1:]
            lead, others = rows[first].astype(np.float64), rows[left].astype(np.float64)
            scale = others @ lead / (lead @ lead)
            near = np.abs(others - scale[:, None] * lead) <= epsilon * np.abs(others)
            alike = near.all(axis=1)
            leaders[left[alike]], factors[left[alike]] = first, scale[alike]
            left = left[~alike]
    return leaders, factors
