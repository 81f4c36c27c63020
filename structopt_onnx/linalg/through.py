"""A linear map fitted to what an activation behind it makes of its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from structopt_onnx.linalg.piecewise import PiecewiseLinear
    from structopt_onnx.linalg.refit import Pulled

FloatArray = npt.NDArray[np.float64]
Fitted = tuple[tuple[FloatArray, ...], FloatArray]

# How hard the stand-ins are held to what the map can make: loosely at first, then in earnest.
_PENALTIES = (0.01, 0.1, 1.0)
_TURNS = 12


def fitted_through(
    function: PiecewiseLinear, inputs: FloatArray, made: FloatArray, regression: Pulled
) -> tuple[Fitted, float, float]:
    """Fit ``f(y) ~ f(L x + b)`` over the map L and the bias b.

    What lies below zero before a Relu need not be met. Stand-ins z for y are fitted by the
    regression and then moved to where ``(f(z) - f(y))^2 + penalty (z - L x - b)^2`` is least, in
    turn (Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
    Detection", 2015, section 3.2).

    Parameters
    ----------
    function
        f.
    inputs, made
        x and y, float [N, n] and [N, m], one observation per row.
    regression
        How a map is fitted to targets; its moments are those of `inputs`.

    Returns
    -------
    tuple
        The best map seen and its bias, as of `Pulled.fit`; and the mean squared error behind the
        activation of the regression of y itself, then that of the map returned, which is no
        larger.
    """
    aim = function(made)
    stays = regression.bias
    centred = inputs - regression.mean if stays is None else inputs

    def fit(targets: FloatArray) -> tuple[Fitted, FloatArray, float]:
        cross = (targets if stays is None else targets - stays).T @ centred / len(inputs)
        factors, bias = regression.fit(cross, targets.mean(axis=0))
        found = inputs
        for factor in reversed(factors):
            found = found @ factor.T
        found = found + bias
        return (factors, bias), found, float(np.mean((function(found) - aim) ** 2))

    best, found, first = fit(made)
    least = first
    for penalty in _PENALTIES:
        for _ in range(_TURNS):
            fitted, found, error = fit(function.nearest(aim, found, penalty))
            if error < least:
                best, least = fitted, error
    return best, first, least
