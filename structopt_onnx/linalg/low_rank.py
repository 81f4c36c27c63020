"""Best low-rank replacements of a linear map, by the covariance of its output.

Up to dimension 4096 all directions are found, by eigendecomposition in float64; beyond, leading
ones by random projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.linalg

from structopt_onnx.linalg.randomized import leading_eigenvectors

if TYPE_CHECKING:
    from collections.abc import Callable

FloatArray = npt.NDArray[np.float64]

LARGEST_EXACT = 4096
"""Largest dimension that is decomposed exactly: it takes half a minute and 0.4 GB."""


@dataclass(frozen=True)
class OutputBasis:
    """Orthonormal directions of a layer's output, the most important first.

    With ``U_r`` the first r columns, ``W ~ U_r (U_r^T W)`` is the best rank-r replacement of
    ``W`` [m, n] in the metric the basis was made for, and `error` its relative squared error
    (Eckart and Young 1936, applied to the outputs ``W X`` instead of ``W``).

    Parameters
    ----------
    vectors
        Columns are directions, float64 [m, k] with k <= m.
    energies
        Energy of the output along each direction, float64 [k], not negative; descending where
        the directions were made for nothing but that output.
    total
        Energy of the whole output; at least the sum of `energies`.
    """

    vectors: FloatArray
    energies: FloatArray
    total: float

    @property
    def size(self) -> int:
        """Number of directions: the largest rank that can be asked for."""
        return int(self.vectors.shape[1])

    @property
    def spectrum(self) -> tuple[float, ...]:
        """The share of the whole energy along each direction."""
        whole = self.total if self.total > 0 else 1.0
        return tuple(float(energy) / whole for energy in self.energies)

    def error(self, rank: int) -> float:
        """Return the share of the energy that the first `rank` directions leave out."""
        if self.total <= 0:
            return 0.0
        return float(max(0.0, self.total - float(self.energies[:rank].sum())) / self.total)

    def factors(self, weight: npt.ArrayLike, rank: int) -> tuple[FloatArray, FloatArray]:
        """Return ``(U_r, U_r^T W)``, float64 [m, r] and [r, n]."""
        basis = self.vectors[:, :rank]
        return basis, basis.T @ np.asarray(weight, np.float64)


def from_output_moment(
    moment: FloatArray, most: int, *, guide: FloatArray | None = None
) -> OutputBasis:
    """Basis from the covariance, or second moment, of the output.

    Parameters
    ----------
    moment
        Symmetric positive semi-definite, float64 [m, m].
    most
        Number of directions kept; fewer beyond dimension 4096, see `leading_eigenvectors`.
    guide
        What to take the directions from, where that is not `moment` alone: see `blended`.
    """
    basis = _of_moment(moment if guide is None else guide, most)
    if guide is None:
        return basis
    along = np.sum((moment @ basis.vectors) * basis.vectors, axis=0)
    return OutputBasis(basis.vectors, np.clip(along, 0.0, None), float(np.trace(moment)))


def _of_moment(moment: FloatArray, most: int) -> OutputBasis:
    if len(moment) > LARGEST_EXACT:
        return _leading(lambda columns: moment @ columns, len(moment), np.trace(moment), most)
    values, directions = scipy.linalg.eigh(moment)
    energies, vectors = np.asarray(values, np.float64), np.asarray(directions, np.float64)
    order = np.argsort(energies)[::-1][:most]
    return OutputBasis(
        np.ascontiguousarray(vectors[:, order]),
        np.clip(energies[order], 0.0, None),
        float(np.clip(energies, 0.0, None).sum()),
    )


def from_input_moment(
    weight: npt.ArrayLike, moment: FloatArray, most: int, *, unseen: float = 0.0
) -> OutputBasis:
    """Basis of the output ``W x`` from the covariance, or second moment, of the input.

    Works in the smaller of the two dimensions: for m <= n through ``W S W^T``, else through the
    eigenvectors of ``(W S^1/2)^T (W S^1/2)``, made orthonormal again by a QR decomposition.

    Parameters
    ----------
    weight
        Float [m, n].
    moment
        Symmetric positive semi-definite, float64 [n, n].
    most
        Number of directions kept, at most min(m, n); fewer where both are beyond 4096.
    unseen
        Share of white inputs among those that the directions are made for: see `blended`.
    """
    matrix = np.asarray(weight, np.float64)
    large = min(matrix.shape) > LARGEST_EXACT
    if matrix.shape[0] <= matrix.shape[1] and not large:
        output = matrix @ moment @ matrix.T
        guide = blended(output, matrix @ matrix.T, unseen) if unseen else None
        return from_output_moment(output, most, guide=guide)
    mixed = blended_inputs(moment, matrix, unseen)
    if large:
        total = np.sum((matrix @ mixed) * matrix)
        basis = _leading(lambda y: matrix @ (mixed @ (matrix.T @ y)), len(matrix), total, most)
    else:
        values, vectors = scipy.linalg.eigh(mixed)
        basis = _from_tall(matrix @ (vectors * np.sqrt(np.clip(values, 0.0, None))), most)
    if not unseen:
        return basis
    lower = basis.vectors.T @ matrix
    along = np.clip(np.sum((lower @ moment) * lower, axis=1), 0.0, None)
    return OutputBasis(basis.vectors, along, float(np.sum((matrix @ moment) * matrix)))


def blended(moment: FloatArray, other: FloatArray, share: float) -> FloatArray:
    """Mix two moments so that a share of the energy is the other's.

    Samples show some of the directions that inputs can have. Mixed with what white inputs would
    make, ``W W^T``, the directions of an output keep some of what the weight does to the others
    (shrinkage of a covariance, Ledoit and Wolf 2004, towards the answer of a plain singular
    value decomposition).

    Parameters
    ----------
    moment, other
        Float64 [m, m].
    share
        From 0 to 1.
    """
    energy = float(np.trace(other))
    if share <= 0 or energy <= 0:
        return moment
    return (1 - share) * moment + (share * float(np.trace(moment)) / energy) * other


def blended_inputs(moment: FloatArray, weight: FloatArray, share: float) -> FloatArray:
    """Mix the inputs' moment with white ones that carry this share of the output's energy.

    Parameters
    ----------
    moment
        Float64 [n, n].
    weight
        Float64 [m, n].
    share
        From 0 to 1.
    """
    if share <= 0:
        return moment
    mixed = (1 - share) * moment
    mixed[np.diag_indices_from(mixed)] += share * white_level(moment, weight)
    return mixed


def white_level(moment: FloatArray, weight: FloatArray) -> float:
    """Return the variance of white inputs [n] that make an output ``W x`` of the same energy."""
    size = float(np.sum(weight * weight))
    return float(np.sum((weight @ moment) * weight)) / size if size > 0 else 0.0


def _leading(
    apply: Callable[[FloatArray], FloatArray], dimension: int, total: float, most: int
) -> OutputBasis:
    vectors, energies = leading_eigenvectors(apply, dimension, float(total), most)
    return OutputBasis(vectors, energies, max(float(total), float(energies.sum())))


def _from_tall(half: FloatArray, most: int) -> OutputBasis:
    """Return the basis of ``half half^T`` for half [m, n] with m > n, without making it."""
    right = from_output_moment(half.T @ half, most)
    directions, _ = scipy.linalg.qr(half @ right.vectors, mode="economic")
    return OutputBasis(np.asarray(directions, np.float64), right.energies, right.total)


def from_weight(weight: npt.ArrayLike, most: int) -> OutputBasis:
    """Basis of the weight alone: its left singular vectors and squared singular values.

    The same as an input that is white; what to use when nothing is known about the data. Found
    through the Gram matrix, which tells singular values down to 1e-8 of the largest.

    Parameters
    ----------
    weight
        Float [m, n].
    most
        Number of directions kept, at most min(m, n); fewer where both are beyond 4096.
    """
    matrix = np.asarray(weight, np.float64)
    if min(matrix.shape) > LARGEST_EXACT:
        total = np.sum(matrix * matrix)
        return _leading(lambda y: matrix @ (matrix.T @ y), len(matrix), total, most)
    if matrix.shape[0] > matrix.shape[1]:
        return _from_tall(matrix, most)
    return from_output_moment(matrix @ matrix.T, most)
