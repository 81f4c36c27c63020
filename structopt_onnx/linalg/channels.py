"""Which inputs a linear map can do without, when what it does with the others is fitted anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.linalg

if TYPE_CHECKING:
    from collections.abc import Iterable

FloatArray = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

# Channels that go at once, in parts of those that are left: what one takes over from another is
# seen at the next round only.
_ROUNDS = 32


def channel_order(weight: FloatArray, moment: FloatArray, taps: int, least: int) -> Ints:
    """Order the channels of a map's input, the first to go first (optimal brain surgeon).

    A channel is worth what the squared error grows by when it goes and all others answer as they
    should, ``tr(W_c (P_cc)^-1 W_cᵀ)`` with P the inverse moment of those that are left (B. Hassibi
    and D. Stork, "Second order derivatives for network pruning", 1992; in blocks: E. Kurtic et
    al., "ZipLM", 2023).

    Parameters
    ----------
    weight
        Float64 [m, channels * taps].
    moment
        Second moments of the inputs, positive definite, float64 [channels * taps] squared.
    taps
        Inputs per channel, side by side.
    least
        Channels that are left in the end, in any order.

    Returns
    -------
    array
        Every channel once.
    """
    channels = weight.shape[1] // taps
    factor = scipy.linalg.cho_factor(moment, lower=True, check_finite=False)
    inverse = scipy.linalg.cho_solve(factor, np.eye(len(moment)), check_finite=False)
    found, left, order = weight.copy(), np.arange(channels), list[Ints]()
    while len(left) > least:
        scores = _scores(found, inverse, taps)
        count = min(len(left) - least, max(1, len(left) // _ROUNDS))
        going = np.zeros(len(left), bool)
        going[np.argsort(scores, kind="stable")[:count]] = True
        order.append(left[going][np.argsort(scores[going], kind="stable")])
        out = np.repeat(going, taps)
        gain = scipy.linalg.solve(inverse[np.ix_(out, out)], inverse[out][:, ~out], assume_a="pos")
        found = found[:, ~out] - found[:, out] @ gain
        inverse = inverse[np.ix_(~out, ~out)] - inverse[~out][:, out] @ gain
        left = left[~going]
    return np.concatenate([*order, left]).astype(np.intp)


def _scores(weight: FloatArray, inverse: FloatArray, taps: int) -> FloatArray:
    blocks = weight.reshape(len(weight), -1, taps).transpose(1, 2, 0)
    places = np.arange(blocks.shape[0] * taps).reshape(-1, taps)
    own = inverse[places[:, :, None], places[:, None, :]]
    return np.asarray(np.sum(blocks * np.linalg.solve(own, blocks), axis=(1, 2)))


def fitted_to(weight: FloatArray, moment: FloatArray, kept: Iterable[int]) -> FloatArray:
    """Return the map from some of the inputs that comes nearest to a map from all.

    Parameters
    ----------
    weight
        W, float64 [m, n].
    moment
        H, second moments of the inputs, positive definite, float64 [n, n].
    kept
        Numbers of the k inputs that are left.

    Returns
    -------
    array
        ``W H_:K (H_KK)^-1``, float64 [m, k].
    """
    places = np.asarray(list(kept), np.intp)
    seen = moment[:, places]
    return np.asarray(
        scipy.linalg.solve(seen[places], (weight @ seen).T, assume_a="pos", check_finite=False).T
    )
