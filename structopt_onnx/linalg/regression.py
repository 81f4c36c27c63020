"""Least squares on moments: linear maps refitted to a part, or to features, of what they see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

if TYPE_CHECKING:
    from collections.abc import Sequence

FloatArray = npt.NDArray[np.float64]
View = npt.NDArray[Any]
"""What a map may see of its input [n]: whole numbers [k] pick features, a matrix [k, n] makes them.
"""

# Keeps the factorization of a moment alive where features depend on each other.
_JITTER = 1e-13


def seen_through(view: View, array: FloatArray) -> FloatArray:
    """Return what a view leaves of the first axis of an array, float64 [k, ...]."""
    return np.asarray(array[view] if view.ndim == 1 else view @ array)


@dataclass(frozen=True, eq=False)
class Joint:
    """Second moments, centred or not, of inputs x [n] and of targets y [m] with them.

    Parameters
    ----------
    moment
        Of x xᵀ, float64 [n, n].
    cross
        Of y xᵀ, float64 [m, n].
    """

    moment: FloatArray
    cross: FloatArray

    def through(self, view: View) -> Joint:
        """Return the moments of what a view leaves of the inputs."""
        cross = np.ascontiguousarray(seen_through(view, self.cross.T).T)
        half = seen_through(view, self.moment)
        return Joint(np.ascontiguousarray(seen_through(view, half.T).T), cross)

    def solution(self) -> FloatArray:
        """Return the map with the least squared error, float64 [m, n]."""
        level = float(np.trace(self.moment)) / max(1, len(self.moment))
        raised = self.moment + _JITTER * level * np.eye(len(self.moment))
        try:
            factor = scipy.linalg.cho_factor(raised, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return np.asarray(np.linalg.lstsq(self.moment, self.cross.T, rcond=1e-12)[0].T)
        return np.asarray(scipy.linalg.cho_solve(factor, self.cross.T, check_finite=False).T)

    def explained(self, weight: FloatArray) -> float:
        """Return by how much a map [m, n] lowers the energy of the targets; maybe below 0."""
        product = 2 * self.cross - weight @ self.moment
        return float(np.sum(product * weight))


@dataclass(frozen=True, eq=False)
class Regression:
    """Groups of inputs and targets, with the moments to fit and those that errors count on.

    Parameters
    ----------
    seen
        Moments of the data, per group.
    fitted
        What maps are fitted to, such as the same with white inputs mixed in.
    total
        Energy of all targets.
    means
        Of the inputs [groups, n] and of the targets [groups, m]; None where nothing is centred.
    """

    seen: tuple[Joint, ...]
    fitted: tuple[Joint, ...]
    total: float
    means: tuple[FloatArray, FloatArray] | None

    def refit(self, views: Sequence[View]) -> tuple[float, FloatArray, FloatArray | None]:
        """Fit maps that see their inputs through views, one per group.

        Returns
        -------
        tuple
            Error relative to the targets' energy; the maps, float64 [groups, m, k]; and what is
            to be added to the targets, float64 [groups * m], None where nothing is centred.
        """
        joints = [joint.through(v) for joint, v in zip(self.fitted, views, strict=True)]
        maps = np.stack([joint.solution() for joint in joints])
        data = joints if self.seen is self.fitted else self.seen
        if self.seen is not self.fitted:
            data = [joint.through(v) for joint, v in zip(self.seen, views, strict=True)]
        explained = sum(joint.explained(m) for joint, m in zip(data, maps, strict=True))
        error = max(0.0, self.total - explained) / self.total if self.total > 0 else 0.0
        if self.means is None:
            return error, maps, None
        inputs = [seen_through(v, mean) for v, mean in zip(views, self.means[0], strict=True)]
        made = np.stack([m @ mean for m, mean in zip(maps, inputs, strict=True)])
        return error, maps, (self.means[1] - made).reshape(-1)
