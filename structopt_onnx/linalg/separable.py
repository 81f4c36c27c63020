"""Two linear maps in a row for a weight whose input has two indices, one of them kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.linalg

from structopt_onnx.linalg.low_rank import (
    OutputBasis,
    blended_inputs,
    from_output_moment,
    white_level,
)

FloatArray = npt.NDArray[np.float64]

# Directions with less than this share of the strongest one's variance count as if they had it.
_LEAST_VARIANCE = 1e-6
# The pull of the refit is this over the observations per dimension, within bounds. Chosen by
# held-out error of real layers: within a few percent of the best from 0.1 to 300 observations per
# dimension, where next to none doubles the error at 1.
_RIDGE = 0.2
_LEAST_RIDGE, _MOST_RIDGE = 0.01, 0.5
# White inputs that are mixed in go by the same rule; more of them cost more than they insure.
_MOST_UNSEEN = 0.3


@dataclass(frozen=True, eq=False)
class SeparableBasis:
    """Nested first factors for ``y[o] = sum_{a,t} W[o,a,t] x[a,t]``, and what refits the second.

    ``W ~ sum_r H[o,r,t] Q[a,r]``: every tap t is seen through the same r directions of a. With a
    = (channel, row) and t = column this is a vertical convolution before a horizontal one
    (Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions",
    2014); with a = channel and t = all taps, a 1x1 convolution before a thinner one. Q comes from
    the singular vectors of the weight whitened over a, H from least squares on the data.

    Parameters
    ----------
    weight
        Float64 [o, a, t].
    directions
        Q, orthonormal columns, float64 [a, k], the most important first.
    plain
        H before the refit, for the columns before they were made orthonormal, float64
        [o, k, t].
    triangle
        Upper triangular, float64 [k, k]: what made the columns orthonormal.
    gram, cross
        Moments of ``z = Q^T x``, float64 [k, t, k, t], and of the output with z, float64
        [o, k, t]; None when nothing is known about the data.
    total
        Energy of the output.
    ridge
        Pull of the refit towards `plain`, in parts of the mean variance of z: what the data
        hardly show stays as it was.
    unseen, level
        Share of white inputs of variance `level` among those that H is fitted to. Errors are
        those on the data alone.
    """

    weight: FloatArray
    directions: FloatArray
    plain: FloatArray
    triangle: FloatArray
    gram: FloatArray | None
    cross: FloatArray | None
    total: float
    ridge: float
    unseen: float = 0.0
    level: float = 0.0

    def unfitted(self, rank: int) -> tuple[FloatArray, FloatArray]:
        """Return Q [a, r] and the H [o, r, t] that whitening alone gives."""
        second = np.einsum("rs,ost->ort", self.triangle[:rank, :rank], self.plain[:, :rank])
        return self.directions[:, :rank], second

    def factors(self, rank: int) -> tuple[FloatArray, FloatArray]:
        """Return Q, float64 [a, r], and H, float64 [o, r, t], refitted by least squares."""
        first, second = self.unfitted(rank)
        if self.gram is None or self.cross is None:
            return first, second
        gram, cross = self._mixed(rank)
        before = second.reshape(len(second), -1)
        # The factor of a leading block is the leading block of the factor.
        lower = self._cholesky[: len(gram), : len(gram)]
        step = scipy.linalg.cho_solve((lower, True), (cross - before @ gram).T, check_finite=False)
        return first, (before + step.T).reshape(second.shape)

    @cached_property
    def _cholesky(self) -> FloatArray:
        if self.gram is None:
            raise ValueError("no moments")
        lifted = self._mixed(len(self.gram))[0].copy()
        variances = lifted.diagonal()
        ridge = self.ridge * float(variances.mean()) if variances.any() else 1.0
        np.fill_diagonal(lifted, variances + ridge)
        return np.asarray(scipy.linalg.cholesky(lifted, lower=True, overwrite_a=True))

    def error(self, rank: int) -> float:
        """Return the relative squared error of the refitted pair at a rank."""
        return self.error_of(self.factors(rank)[1])

    def error_of(self, second: FloatArray) -> float:
        """Return the relative squared error with any second factor, float64 [o, r, t]."""
        explained = float(np.trace(self._explained(second)))
        return 0.0 if self.total <= 0 else max(0.0, self.total - explained) / self.total

    def narrowed(self, rank: int) -> OutputBasis:
        """Basis of the output for a third factor: ``y ~ U U^T H z`` (Tucker's second mode).

        Its `error` counts both cuts. For the data it was made from, U and ``U^T H`` are the best
        pair for Q (reduced-rank regression).
        """
        second = self.factors(rank)[1]
        explained = self._explained(second)
        mixed = self._explained(second, mixed=True) if self.unseen else explained
        # The last of the energies are negative where the ridge made H miss the output.
        vectors = np.asarray(scipy.linalg.eigh(mixed)[1], np.float64)[:, ::-1]
        return OutputBasis(vectors, np.sum((explained @ vectors) * vectors, axis=0), self.total)

    def _mixed(self, rank: int) -> tuple[FloatArray, FloatArray]:
        """Return the moments that H is fitted to: white x make white z, and W Q with them."""
        gram, cross = self._moments(rank)
        if not self.unseen:
            return gram, cross
        gram, cross = (1 - self.unseen) * gram, (1 - self.unseen) * cross
        white = self.unseen * self.level
        gram[np.diag_indices_from(gram)] += white
        mapped = self.weight.transpose(0, 2, 1) @ self.directions[:, :rank]
        return gram, cross + white * mapped.transpose(0, 2, 1).reshape(cross.shape)

    def _moments(self, rank: int) -> tuple[FloatArray, FloatArray]:
        taps, outputs = self.weight.shape[2], len(self.weight)
        if self.gram is None or self.cross is None:
            raise ValueError("no moments")
        gram = self.gram[:rank, :, :rank].reshape(rank * taps, rank * taps)
        return gram, self.cross[:, :rank].reshape(outputs, rank * taps)

    def _explained(self, second: FloatArray, *, mixed: bool = False) -> FloatArray:
        """Return the matrix E with error ``total - tr(U^T E U)`` for any orthonormal U."""
        flat = second.reshape(len(second), -1)
        if self.gram is None or self.cross is None:
            cross = self.weight.transpose(0, 2, 1) @ self.directions[:, : second.shape[1]]
            product = cross.transpose(0, 2, 1).reshape(flat.shape) @ flat.T
            return np.asarray(product + product.T - flat @ flat.T)
        rank = second.shape[1]
        gram, cross = self._mixed(rank) if mixed else self._moments(rank)
        product = cross @ flat.T
        return np.asarray(product + product.T - flat @ gram @ flat.T)


def ridge_for(support: float) -> float:
    """Return the ridge of a refit for a number of observations per dimension."""
    return min(_MOST_RIDGE, max(_LEAST_RIDGE, _RIDGE / max(support, 1e-9)))


def unseen_share(least: float, support: float) -> float:
    """Return how much white input to mix in: at least this, more where the samples are few."""
    return max(least, min(_MOST_UNSEEN, ridge_for(support))) if least > 0 else 0.0


def separable(
    weight: npt.ArrayLike,
    moment: FloatArray | None,
    most: int,
    *,
    ridge: float = _LEAST_RIDGE,
    unseen: float = 0.0,
) -> SeparableBasis:
    """Find the first factors for a weight.

    Parameters
    ----------
    weight
        Float [o, a, t].
    moment
        Covariance, or second moment, of x with its indices in the order (a, t), float64
        [a * t, a * t]; None stands for white inputs.
    most
        Number of directions kept, at most a.
    ridge
        See `SeparableBasis` and `ridge_for`.
    unseen
        Share of white inputs among those that the factors are made for.
    """
    matrix = np.asarray(weight, np.float64)
    outputs, rows, taps = matrix.shape
    unfolded = matrix.transpose(1, 0, 2).reshape(rows, outputs * taps)
    if moment is None:
        directions = from_output_moment(unfolded @ unfolded.T, most).vectors
        plain = np.einsum("ak,oat->okt", directions, matrix)
        total = float(np.sum(matrix**2))
        triangle = np.eye(directions.shape[1])
        return SeparableBasis(matrix, directions, plain, triangle, None, None, total, ridge)
    unfolded_outputs = matrix.reshape(outputs, rows * taps)
    level = white_level(moment, unfolded_outputs)
    mixed = blended_inputs(moment, unfolded_outputs, unseen)
    tensor = mixed.reshape(rows, taps, rows, taps)
    # Whitening over a alone, with the covariance that the taps have on average.
    values, vectors = scipy.linalg.eigh(np.einsum("atbt->ab", tensor) / taps)
    scales = np.sqrt(np.maximum(values, _LEAST_VARIANCE * max(float(values[-1]), 1e-300)))
    whitened = (vectors * scales) @ (vectors.T @ unfolded)
    kept = from_output_moment(whitened @ whitened.T, most).vectors
    plain = (kept.T @ whitened).reshape(kept.shape[1], outputs, taps).transpose(1, 0, 2)
    skewed = (vectors / scales) @ (vectors.T @ kept)
    directions, triangle = scipy.linalg.qr(skewed, mode="economic")
    output = unfolded_outputs @ moment
    cross = np.einsum("oat,ak->okt", output.reshape(matrix.shape), directions, optimize=True)
    gram = directions.T @ moment.reshape(rows, -1)
    gram = np.einsum("ktbu,bl->ktlu", gram.reshape(-1, taps, rows, taps), directions, optimize=True)
    total = float(np.sum(output * matrix.reshape(output.shape)))
    return SeparableBasis(
        matrix, directions, plain, triangle, gram, cross, total, ridge, unseen, level
    )
