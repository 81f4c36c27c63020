"""Which activation moments a pass wants to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Statistic:
    """Mean and covariance of one axis of an activation, pooled over samples.

    Parameters
    ----------
    values
        Names of the tensors pooled together, all of the main graph. More than one where several
        nodes share one weight, so that the weight is judged on everything it makes.
    axis
        The feature axis; every position along the other axes is one observation. It may be
        negative, as in NumPy.
    """

    values: tuple[str, ...]
    axis: int
