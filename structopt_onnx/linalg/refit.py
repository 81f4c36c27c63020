"""Least squares for the last of a row of factors, on what really reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.linalg

if TYPE_CHECKING:
    from structopt_onnx.linalg.moments import Moments

FloatArray = npt.NDArray[np.float64]


def refitted(
    factor: FloatArray, bias: FloatArray, moments: Moments, *, ridge: float, free: bool
) -> tuple[FloatArray, FloatArray]:
    """Fit ``y ~ A z + b`` anew, with z as the compressed model has it and y the original's.

    ``A' = A + (K - A S) (S + ridge tr(S) / r I)^-1``, where S is the covariance of z and K that of
    y with z: ridge regression towards the present factor, so that directions which the data hardly
    show stay as they were.

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
    r = factor.shape[1]
    inputs, made = moments.mean[:r], moments.mean[r:]
    gram, cross = moments.covariance[:r, :r], moments.covariance[r:, :r]
    if not free:
        gram = gram + np.outer(inputs, inputs)
        cross = cross + np.outer(made - bias, inputs)
    pull = ridge * float(np.trace(gram)) / r
    if not pull > 0:
        return factor, bias  # nothing was seen to vary
    missing = cross - factor @ gram
    moved = scipy.linalg.solve(gram + pull * np.eye(r), missing.T, assume_a="pos").T
    found = factor + moved
    return found, made - found @ inputs if free else bias
