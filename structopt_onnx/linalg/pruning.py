"""Which weights of a linear map to zero, and what the others become.

By size alone where nothing is known of the inputs. Else the mask comes from alternating directions:
one side fits the inputs, the other has the zeros, and both are pulled together (X. Meng et al.,
"ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large Language Models", NeurIPS
2024); then the weights kept are fitted anew. Where the products that this takes are too large,
columns are zeroed one after the other, and those to come make up for it (E. Frantar, D. Alistarh,
"SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot", ICML 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.linalg

from structopt_onnx.linalg.masked_refit import masked_refit

FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Multiply-accumulates of a product [m, n] x [n, n] from which on columns go one by one: of such
# products the better way takes about a hundred.
_LARGE = 3e9
# Columns that are chosen together, and whose effect on the rest is added up first.
_BLOCK = 128
# The pull between the two sides, in parts of the mean variance, and how it grows every few steps:
# faster while more than these shares of the kept weights change. On real layers a slower growth
# lowers the error by half a percent, and a faster one raises it by one.
_PULL, _STEPS, _MOST_STEPS = 0.1, 3, 150
_GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
_SETTLED = 1e-3


@dataclass(frozen=True)
class Pattern:
    """How zeros may lie.

    Parameters
    ----------
    zeros
        Share of zeros.
    group
        Length of the runs of a row that each hold this share of zeros; 0 lets them lie anywhere.
    """

    zeros: float
    group: int = 0

    @classmethod
    def of(cls, text: str) -> Pattern:
        """Read ``2:4``: 2 weights are kept of every 4 in a row.

        Raises
        ------
        ValueError
            When it is not two such numbers.
        """
        parts = text.split(":")
        if len(parts) != 2 or not all(part.isdecimal() for part in parts):  # noqa: PLR2004
            raise ValueError(f"a pattern is two numbers such as 2:4, not '{text}'")
        kept, group = (int(part) for part in parts)
        if not 0 < kept < group:
            raise ValueError(f"a pattern keeps some and not all, such as 2:4, not '{text}'")
        return cls(1 - kept / group, group)


def largest(scores: npt.NDArray[np.floating], pattern: Pattern, *, by_row: bool = False) -> Mask:
    """Return where the highest scores are: the weights to keep, bool [m, n].

    Parameters
    ----------
    scores
        Float [m, n].
    pattern
        How many are kept, and where. What is left of a row beyond its last whole run is kept.
    by_row
        Whether every row keeps as many, where runs do not see to it.
    """
    rows, columns = scores.shape
    if pattern.group:
        whole = columns - columns % pattern.group
        kept = np.ones(scores.shape, bool)
        runs = scores[:, :whole].reshape(-1, pattern.group)
        kept[:, :whole] = _without_lowest(runs, pattern.zeros).reshape(rows, whole)
        return kept
    compared = scores if by_row else scores.reshape(1, -1)
    return _without_lowest(compared, pattern.zeros).reshape(scores.shape)


def _without_lowest(scores: npt.NDArray[np.floating], zeros: float) -> Mask:
    size = scores.shape[1]
    count = min(size, round(zeros * size))
    kept = np.ones(scores.shape, bool)
    if count:
        lowest = np.argpartition(scores, count - 1, axis=1)[:, :count]
        np.put_along_axis(kept, lowest, values=False, axis=1)
    return kept


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is known of the inputs of a linear map.

    Parameters
    ----------
    moment
        Their covariance or second moments, positive definite, float64 [n, n].
    """

    moment: FloatArray

    @cached_property
    def scales(self) -> FloatArray:
        """Square roots of the diagonal, float64 [n]."""
        return np.sqrt(self.moment.diagonal())

    @cached_property
    def spectrum(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Eigenvalues and eigenvectors after scaling to a diagonal of ones, float32."""
        scaled = self.moment / np.outer(self.scales, self.scales)
        values, vectors = scipy.linalg.eigh(scaled, overwrite_a=True, check_finite=False)
        return values.astype(np.float32), vectors.astype(np.float32)

    @cached_property
    def inverse_factor(self) -> FloatArray:
        """Upper triangular U with ``Uᵀ U = moment^-1``, float64 [n, n]."""
        # moment = R Rᵀ with R upper triangular is the Cholesky factorization from the end.
        turned = scipy.linalg.cholesky(self.moment[::-1, ::-1], lower=True, check_finite=False)
        identity = np.eye(len(self.moment))
        found = scipy.linalg.solve_triangular(turned[::-1, ::-1], identity, check_finite=False)
        return np.asarray(found)


def pruned(weight: FloatArray, inputs: Inputs | None, pattern: Pattern) -> FloatArray:
    """Return a sparse map near to another one on its inputs.

    Parameters
    ----------
    weight
        Float64 [m, n].
    inputs
        Of the n inputs; None keeps the largest weights as they are.
    pattern
        How many become zero, and where.

    Returns
    -------
    array
        Float64 [m, n].
    """
    if inputs is None:
        return np.where(largest(np.abs(weight), pattern), weight, 0.0)
    if weight.size * weight.shape[1] > _LARGE:
        return sparsegpt(weight, inputs, pattern)
    kept = alternating(weight, inputs, pattern)
    return masked_refit(weight, inputs.moment, kept)


def alternating(weight: FloatArray, inputs: Inputs, pattern: Pattern) -> Mask:
    """Return which weights to keep, by the alternating direction method of multipliers (ALPS).

    Parameters
    ----------
    weight
        Float64 [m, n].
    inputs, pattern
        As of `pruned`.

    Returns
    -------
    array
        Bool [m, n].
    """
    values, vectors = inputs.spectrum
    target = (weight * inputs.scales).astype(np.float32)
    pulled = ((target @ vectors) * values) @ vectors.T
    pull = np.float32(_PULL)
    kept = largest(np.abs(target), pattern)
    sparse, dual, before = target * kept, np.zeros_like(target), kept
    for step in range(1, _MOST_STEPS + 1):
        dense = ((pulled - dual + pull * sparse) @ vectors / (values + pull)) @ vectors.T
        wanted = dense + dual / pull
        kept = largest(np.abs(wanted), pattern)
        sparse = wanted * kept
        dual += pull * (dense - sparse)
        if step % _STEPS == 0:
            changed = float(np.mean(kept != before) / max(_SETTLED, float(np.mean(kept))))
            if changed < _SETTLED:
                break
            before = kept
            pull *= np.float32(next(growth for share, growth in _GROWTH if changed > share))
    return kept


def sparsegpt(weight: FloatArray, inputs: Inputs, pattern: Pattern) -> FloatArray:
    """Zero weights one column after the other; those to come make up for it (SparseGPT).

    In each block of columns the weights with the least ``w_ij^2 / U_jj^2`` go, which is what the
    squared error grows by when all later weights of the row answer as they should.

    Parameters
    ----------
    weight
        Float64 [m, n].
    inputs, pattern
        As of `pruned`.

    Returns
    -------
    array
        Float64 [m, n].
    """
    upper, found = inputs.inverse_factor, weight.copy()
    group = pattern.group
    width = max(1, _BLOCK // group) * group if group else _BLOCK
    for start in range(0, weight.shape[1], width):
        stop = min(start + width, weight.shape[1])
        # Columns are rows here: each is then read and written in one piece.
        part, triangle = found[:, start:stop].T.copy(), upper[start:stop, start:stop]
        scales = triangle.diagonal()[:, None]
        kept = np.ones(part.shape, bool) if group else largest(np.abs(part / scales), pattern)
        errors = np.zeros(part.shape)
        for j in range(stop - start):
            if group and j % group == 0 and j + group <= stop - start:
                run = slice(j, j + group)
                kept[run] = largest(np.abs(part[run] / scales[run]).T, pattern).T
            errors[j] = np.where(kept[j], 0.0, part[j] / triangle[j, j])
            part[j:] -= np.outer(triangle[j, j:], errors[j])
        found[:, start:stop] = np.where(kept, part, 0.0).T
        found[:, stop:] -= errors.T @ upper[start:stop, stop:]
    return found
