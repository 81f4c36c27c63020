"""Factors of a product fitted to what really reaches them: least squares, and of reduced rank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from structopt_onnx.linalg.low_rank import blended, from_output_moment

if TYPE_CHECKING:
    from structopt_onnx.linalg.moments import Moments

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pulled:
    """Ridge regression of targets y [m] on inputs x [n] towards a map that is at hand, not to 0.

    ``L = W + (K - W S) (S + ridge tr(S) / n I)^-1``, where S is the moment of x and K that of y
    with x: directions that the data hardly show stay as they are in W. Of reduced rank it is
    ``U_r U_r^T L`` with the leading eigenvectors U of ``L S L^T`` (Izenman, "Reduced-rank
    regression for the multivariate linear model", 1975).

    Parameters
    ----------
    towards
        W, float64 [m, n].
    mean, gram
        Mean of x and S, float64 [n] and [n, n]: the covariance where a bias is fitted as well,
        else the second moment.
    ridge
        Pull towards W, in parts of the mean variance of x.
    rank
        Rank of what is found; None leaves it full.
    bias
        b, float64 [m], where it must stay as it is; None where it is fitted as well.
    unseen
        Share of white inputs among those that the directions of a reduced rank are made for: see
        `blended`.
    """

    towards: FloatArray
    mean: FloatArray
    gram: FloatArray
    ridge: float
    rank: int | None = None
    bias: FloatArray | None = None
    unseen: float = 0.0

    @cached_property
    def _pull(self) -> float:
        return self.ridge * float(np.trace(self.gram)) / len(self.gram)

    @cached_property
    def _factor(self) -> tuple[Any, bool]:
        raised = self.gram.copy()
        raised[np.diag_indices_from(raised)] += self._pull
        return scipy.linalg.cho_factor(raised, lower=True, overwrite_a=True)

    @property
    def degenerate(self) -> bool:
        """Whether nothing was seen to vary, so that there is nothing to fit to."""
        return not self._pull > 0

    def fit(self, cross: FloatArray, made: FloatArray) -> tuple[tuple[FloatArray, ...], FloatArray]:
        """Fit the map to targets.

        Parameters
        ----------
        cross
            K, float64 [m, n]: the covariance of y with x where the bias is fitted, else the
            second moment of ``y - b`` with x.
        made
            Mean of y, float64 [m].

        Returns
        -------
        tuple
            The map as its factors in the order in which they are multiplied, A [m, r] and
            B [r, n], or L [m, n] alone at full rank; and the bias [m].
        """
        missing = cross - self.towards @ self.gram
        found = self.towards + scipy.linalg.cho_solve(self._factor, missing.T).T
        factors: tuple[FloatArray, ...] = (found,)
        shift = found @ self.mean
        if self.rank is not None:
            seen = found @ self.gram @ found.T
            guide = blended(seen, found @ found.T, self.unseen) if self.unseen else None
            kept = from_output_moment(seen, self.rank, guide=guide).vectors
            factors = kept, kept.T @ found
            shift = kept @ (kept.T @ shift)
        return factors, made - shift if self.bias is None else self.bias


def pulled(
    towards: FloatArray,
    bias: FloatArray,
    moments: Moments,
    *,
    ridge: float,
    free: bool,
    rank: int | None = None,
    unseen: float = 0.0,
) -> tuple[Pulled, FloatArray, FloatArray]:
    """Return the regression that moments of x and y side by side stand for, K and the mean of y.

    Parameters
    ----------
    towards, bias
        W and b.
    moments
        Of x and y side by side, n + m numbers.
    ridge, rank, unseen
        As of `Pulled`.
    free
        Whether b may change as well.
    """
    n = towards.shape[1]
    inputs, made = moments.mean[:n], moments.mean[n:]
    gram, cross = moments.covariance[:n, :n], moments.covariance[n:, :n]
    if free:
        return Pulled(towards, inputs, gram, ridge, rank, None, unseen), cross, made
    gram = gram + np.outer(inputs, inputs)
    cross = cross + np.outer(made - bias, inputs)
    return Pulled(towards, inputs, gram, ridge, rank, bias, unseen), cross, made


def refitted(
    factor: FloatArray, bias: FloatArray, moments: Moments, *, ridge: float, free: bool
) -> tuple[FloatArray, FloatArray]:
    """Fit ``y ~ A z + b`` anew, with z as the compressed model has it and y the original's.

    Parameters
    ----------
    factor
        A, float64 [m, r].
    bias
        b, float64 [m].
    moments
        Of z and y side by side, r + m numbers.
    ridge
        Pull towards A, in parts of the mean variance of z.
    free
        Whether b may change as well; else A alone is fitted, to second moments of y - b.

    Returns
    -------
    tuple of array
        A' and b', of the same shapes.
    """
    regression, cross, made = pulled(factor, bias, moments, ridge=ridge, free=free)
    if regression.degenerate:
        return factor, bias
    (found,), offset = regression.fit(cross, made)
    return found, offset
