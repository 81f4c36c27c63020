"""Best low-rank replacements of a linear map, by the covariance of its output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

FloatArray = npt.NDArray[np.float64]


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
        Energy along each direction, float64 [k], descending, not negative.
    total
        Energy of the whole output; at least the sum of `energies`.
    """

    vectors: FloatArray
    energies: FloatArray
    total: float

    def error(self, rank: int) -> float:
        """Return the share of the energy that the first `rank` directions leave out."""
        if self.total <= 0:
            return 0.0
        return float(max(0.0, self.total - float(self.energies[:rank].sum())) / self.total)

    def factors(self, weight: npt.ArrayLike, rank: int) -> tuple[FloatArray, FloatArray]:
        """Return ``(U_r, U_r^T W)``, float64 [m, r] and [r, n]."""
        basis = self.vectors[:, :rank]
        return basis, basis.T @ np.asarray(weight, np.float64)


def from_output_moment(moment: FloatArray, most: int) -> OutputBasis:
    """Basis from the covariance, or second moment, of the output.

    Parameters
    ----------
    moment
        Symmetric positive semi-definite, float64 [m, m].
    most
        Number of directions kept.
    """
    values, directions = scipy.linalg.eigh(moment)
    energies, vectors = np.asarray(values, np.float64), np.asarray(directions, np.float64)
    order = np.argsort(energies)[::-1][:most]
    return OutputBasis(
        np.ascontiguousarray(vectors[:, order]),
        np.clip(energies[order], 0.0, None),
        float(np.clip(energies, 0.0, None).sum()),
    )


def from_input_moment(weight: npt.ArrayLike, moment: FloatArray, most: int) -> OutputBasis:
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
        Number of directions kept, at most min(m, n).
    """
    matrix = np.asarray(weight, np.float64)
    if matrix.shape[0] <= matrix.shape[1]:
        return from_output_moment(matrix @ moment @ matrix.T, most)
    values, vectors = scipy.linalg.eigh(moment)
    return _from_tall(matrix @ (vectors * np.sqrt(np.clip(values, 0.0, None))), most)


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
        Number of directions kept, at most min(m, n).
    """
    matrix = np.asarray(weight, np.float64)
    if matrix.shape[0] > matrix.shape[1]:
        return _from_tall(matrix, most)
    return from_output_moment(matrix @ matrix.T, most)
