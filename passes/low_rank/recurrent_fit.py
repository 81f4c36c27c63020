"""Which directions of ``W x`` the input weight of a recurrent node keeps at each rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from structopt_onnx.linalg.low_rank import from_input_moment, from_weight
from structopt_onnx.linalg.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structopt_onnx.linalg.low_rank import OutputBasis
    from structopt_onnx.linalg.workers import Workers
    from structopt_onnx.passes.low_rank.recurrent_site import RecurrentSite

FloatArray = npt.NDArray[np.float64]

# A B that was not there must take this share off the error to be worth its parameters.
_WORTH_A_BIAS = 0.1


@dataclass(frozen=True, eq=False)
class Fit:
    """A low-rank replacement of ``W x``: ``U U^T W x`` plus, when centred, a constant.

    Parameters
    ----------
    directions
        U, orthonormal columns, float64 [m, r].
    lost
        What the mean of ``W x`` loses, to be added back, float64 [m]; None when nothing is.
    error
        Mean squared error over the variance of ``W x``; over its energy when nothing is known
        of x, which then counts as white.
    extra
        Parameters that adding `lost` brings.
    spectrum
        Share of the energy along these directions and further ones.
    """

    directions: FloatArray
    lost: FloatArray | None
    error: float
    extra: int = 0
    spectrum: tuple[float, ...] = ()

    @property
    def rank(self) -> int:
        """Number of directions."""
        return int(self.directions.shape[1])


def fits(
    site: RecurrentSite,
    moments: Moments | None,
    ranks: Sequence[int],
    workers: Workers,
    *,
    centre: bool,
) -> Iterator[Fit]:
    """Yield the best replacement of a weight at each rank.

    Parameters
    ----------
    site
        The weight.
    moments
        Those of x; None when there are no data.
    ranks
        Ascending, at least one.
    workers
        Who does the linear algebra.
    centre
        Whether a constant may be added, where every node's B is a constant or absent.
    """
    weight, most = site.matrix(), ranks[-1]
    if moments is None:
        basis = workers.solve(from_weight, weight, most)
        found = (rank for rank in ranks if rank <= basis.size)
        yield from (
            Fit(basis.vectors[:, :rank], None, basis.error(rank), spectrum=basis.spectrum)
            for rank in found
        )
        return
    extra = site.bias_parameters() if centre else None
    variance = float(np.sum((weight @ moments.covariance) * weight))

    def solved(moment: FloatArray) -> OutputBasis:
        return workers.solve(from_input_moment, weight, moment, most)

    centred = None if extra is None else solved(moments.covariance)
    plain = None if extra == 0 else solved(moments.second_moment)
    mean = weight @ moments.mean
    largest = min(basis.size for basis in (centred, plain) if basis is not None)
    for rank in (rank for rank in ranks if rank <= largest):
        best = None if centred is None else _left(centred, rank)
        if plain is not None and best is not None:
            pays = rank * sum(site.shape) + (extra or 0) < weight.size
            worth = best < (1 - _WORTH_A_BIAS) * _left(plain, rank)
            best = best if pays and worth else None
        if centred is not None and best is not None:
            kept = centred.vectors[:, :rank]
            lost = mean - kept @ (kept.T @ mean)
            yield Fit(kept, lost, _share(best, variance), extra or 0, centred.spectrum)
        elif plain is not None:
            left = _share(_left(plain, rank), variance)
            yield Fit(plain.vectors[:, :rank], None, left, spectrum=plain.spectrum)


def _left(basis: OutputBasis, rank: int) -> float:
    """Return the mean squared error at a rank."""
    return basis.error(rank) * basis.total


def _share(error: float, variance: float) -> float:
    return error / variance if variance > 0 else 0.0


def pooled(parts: Sequence[Moments | None]) -> Moments | None:
    """Return the moments of the observations of all parts together; None when there are none."""
    known = [part for part in parts if part is not None and part.count]
    if not known:
        return None
    count = sum(part.count for part in known)
    mean = np.zeros_like(known[0].mean)
    for part in known:
        mean += part.count / count * part.mean
    covariance = np.zeros_like(known[0].covariance)
    for part in known:
        away = part.mean - mean
        covariance += part.count / count * (part.covariance + np.outer(away, away))
    return Moments(count, mean, covariance)
