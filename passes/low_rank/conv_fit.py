"""What each way of thinning out a convolution costs in accuracy, and the factors that do it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from structopt_onnx.linalg.low_rank import (
    OutputBasis,
    blended,
    from_input_moment,
    from_output_moment,
)
from structopt_onnx.linalg.separable import SeparableBasis, ridge_for, separable, unseen_share
from structopt_onnx.linalg.workers import Workers
from structopt_onnx.model.statistic import PatchStatistic
from structopt_onnx.passes.low_rank.seen import share_above_zero

if TYPE_CHECKING:
    from collections.abc import Callable

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.convolution.conv_choice import Factors
    from structopt_onnx.passes.convolution.conv_rows import Layout
    from structopt_onnx.passes.convolution.conv_site import ConvSite

FloatArray = npt.NDArray[np.float64]


def fit_of(
    site: ConvSite, facts: Facts, wanted: Statistic, *, centre: bool, unseen: float = 0.0
) -> ConvFit:
    """Fit a weight to the moments gathered, or to itself alone when there are none.

    Parameters
    ----------
    site, facts
        The weight, and what is known.
    wanted
        What `statistic_of` asked for.
    centre
        Fit the covariance and give back the mean; else the second moment.
    unseen
        Least share of white inputs among those that are fitted: see `unseen_share`.
    """
    moments = facts.statistic(wanted)
    of_patches = isinstance(wanted, PatchStatistic)
    bias = site.uses[0].bias
    if moments is not None and not of_patches and bias is not None:
        moments = replace(moments, mean=moments.mean - bias)
    if moments is not None:
        # Positions share most of their numbers: what counts is how many patches lie side by side.
        shared = math.prod(max(1.0, k / s) for k, s in zip(site.kernel, site.strides, strict=True))
        unseen = unseen_share(unseen, moments.count / shared / moments.mean.size)
    blocks, workers = site.blocks(facts), facts.workers
    return ConvFit(site, blocks, moments, of_patches, centre, unseen, workers=workers)


def unscaled(factors: Factors, scales: FloatArray) -> Factors:
    """Undo `ConvFit.scaled` in the last of the factors and in what the mean loses."""
    arrays, lost = factors
    last = arrays[-1].reshape(scales.size, -1) / scales[:, None]
    rest = None if lost is None else lost / scales
    return (*arrays[:-1], last.reshape(arrays[-1].shape)), rest


@dataclass(frozen=True, eq=False)
class ConvFit:
    """Bases for every scheme, each made when first asked for.

    Parameters
    ----------
    site
        The weight; only its geometry is looked at.
    blocks
        The filters per group, float64 [groups, outputs, inputs * taps].
    moments
        What was gathered, or None.
    of_patches
        Whether `moments` are those of the patches, else of the output without its bias.
    centred
        Fit the covariance and give back the mean; else the second moment.
    unseen
        Share of white inputs among those that are fitted; errors are those on the data alone.
    tried
        The layouts that will be asked for; none stands for all.
    workers
        Who does the linear algebra.
    """

    site: ConvSite
    blocks: FloatArray
    moments: Moments | None
    of_patches: bool
    centred: bool
    unseen: float = 0.0
    tried: tuple[Layout, ...] = ()
    workers: Workers = field(default_factory=Workers)

    def scaled(self, scales: FloatArray) -> ConvFit:
        """Return the fit of outputs whose channels are multiplied by these scales [outputs]."""
        blocks = self.blocks * scales.reshape(len(self.blocks), -1, 1)
        moments = self.moments
        if moments is not None and not self.of_patches:
            covariance = moments.covariance * np.outer(scales, scales)
            moments = replace(moments, mean=moments.mean * scales, covariance=covariance)
        return replace(self, blocks=blocks, moments=moments)

    def share_above_zero(self) -> FloatArray | None:
        """Return how often each channel of the output is above zero, [outputs]."""
        if self.moments is None:
            return None
        mean, covariance = self.moments.mean, self.moments.covariance
        variance = covariance.diagonal()
        if self.of_patches:
            weight = self.blocks[0]
            mean, variance = weight @ mean, np.sum((weight @ covariance) * weight, axis=1)
        bias = self.site.uses[0].bias
        return share_above_zero(mean if bias is None else mean + bias, variance)

    @property
    def serves_inputs(self) -> bool:
        """Whether schemes can be fitted that thin out the inputs."""
        return self.moments is None or self.of_patches

    def candidate(self, layout: Layout) -> tuple[float, Callable[[], Factors]]:
        """Return the relative squared error of a layout and what builds its factors."""
        rank = layout.ranks[0]
        if layout.output_rank:
            by_output = self._channel
            return by_output.error(rank), lambda: by_output.factors(rank)
        if layout.scheme in {"input", "tucker"}:
            thinned = self._input
            if layout.scheme == "input":
                return thinned.basis.error(rank), lambda: thinned.factors(rank)
            outer = layout.ranks[1]
            error = self._narrowed(rank).error(outer)
            return error, lambda: thinned.narrowed(rank, outer)
        split = self._columns_first if layout.scheme == "spatial-transposed" else self._rows_first
        return split.basis.error(rank), lambda: split.factors(rank)

    @property
    def spectrum(self) -> tuple[float, ...]:
        """Spectrum of the outputs, where layouts cut them; else empty."""
        return self._channel.spectrum if any(t.output_rank for t in self.tried) else ()

    def _narrowed(self, rank: int) -> OutputBasis:
        if rank not in self._spectra:
            self._spectra[rank] = self._input.basis.narrowed(rank)
        return self._spectra[rank]

    @cached_property
    def _spectra(self) -> dict[int, OutputBasis]:
        return {}

    @cached_property
    def _moment(self) -> FloatArray | None:
        if self.moments is None:
            return None
        return self.moments.covariance if self.centred else self.moments.second_moment

    @property
    def _mean(self) -> FloatArray | None:
        return self.moments.mean if self.moments is not None and self.centred else None

    @cached_property
    def _channel(self) -> ChannelFit:
        moment, mean, solve = self._moment, self._mean, self.workers.solve
        _, outputs, inputs = self.blocks.shape
        schemes = ("channel", "pointwise")
        ranks = [t.ranks[0] for t in self.tried if t.scheme in schemes]
        most = max(ranks, default=min(outputs, inputs))
        if moment is None:
            bases = [solve(from_output_moment, b @ b.T, most) for b in self.blocks]
            return self._by_output(bases, None)
        if self.of_patches:
            weight = self.blocks[0]
            basis = solve(from_input_moment, weight, moment, most, unseen=self.unseen)
            return self._by_output([basis], None if mean is None else weight @ mean)
        parts = [slice(k * outputs, (k + 1) * outputs) for k in range(len(self.blocks))]
        bases = []
        for part, b in zip(parts, self.blocks, strict=True):
            own = moment[part, part]
            guide = blended(own, b @ b.T, self.unseen)
            bases.append(solve(from_output_moment, own, most, guide=guide))
        return self._by_output(bases, mean)

    def _by_output(self, bases: list[OutputBasis], mean: FloatArray | None) -> ChannelFit:
        turned = self.site.taps if self.site.transposed else None
        return ChannelFit(self.blocks, bases, mean, turned)

    @cached_property
    def _input(self) -> SeparableFit:
        return self._separable((0, 1, 2), self.site.inputs, ("input", "tucker"))

    @cached_property
    def _rows_first(self) -> SeparableFit:
        return self._separable((0, 1, 2), self.site.inputs * self.site.kernel[0], ("spatial",))

    @cached_property
    def _columns_first(self) -> SeparableFit:
        rows = self.site.inputs * self.site.kernel[1]
        return self._separable((0, 2, 1), rows, ("spatial-transposed",))

    def _separable(
        self, order: tuple[int, int, int], rows: int, schemes: tuple[str, ...]
    ) -> SeparableFit:
        """Fit with the first `rows` of the input's indices (channel, row, column) in an order."""
        weight, moment, mean = self.blocks[0], self._moment, self._mean
        if order != (0, 1, 2):
            inputs, kernel = self.site.inputs, self.site.kernel
            grid = np.arange(weight.shape[1]).reshape(inputs, *kernel)
            turned = grid.transpose(order).reshape(-1)
            weight = weight[:, turned]
            moment = None if moment is None else moment[np.ix_(turned, turned)]
            mean = None if mean is None else mean[turned]
        split = weight.reshape(len(weight), rows, -1)
        most = max((t.ranks[0] for t in self.tried if t.scheme in schemes), default=rows)
        ridge = 0.0 if self.moments is None else ridge_for(self.moments.count / weight.shape[1])
        basis = self.workers.solve(separable, split, moment, most, ridge=ridge, unseen=self.unseen)
        return SeparableFit(basis, mean)


@dataclass(frozen=True, eq=False)
class ChannelFit:
    """Directions of the output to keep in each group, and the output's mean.

    `turned` is the number of taps where the weight is stored with its input channels first.
    """

    blocks: FloatArray
    bases: list[OutputBasis]
    mean: FloatArray | None
    turned: int | None

    @property
    def spectrum(self) -> tuple[float, ...]:
        """Share of the energy along each direction, that of all groups together."""
        total = sum(basis.total for basis in self.bases) or 1.0
        along = zip(*(basis.energies for basis in self.bases), strict=False)
        return tuple(float(sum(energies)) / total for energies in along)

    def error(self, rank: int) -> float:
        """Return the relative squared error at a rank per group."""
        total = sum(basis.total for basis in self.bases)
        left = sum(basis.error(rank) * basis.total for basis in self.bases)
        return left / total if total > 0 else 0.0

    def factors(self, rank: int) -> Factors:
        """Return [groups, r, inputs * taps] and [groups, outputs, r], and the lost mean.

        The first is [groups, inputs, r, taps] where turned.
        """
        pairs = [b.factors(w, rank) for b, w in zip(self.bases, self.blocks, strict=True)]
        upper = np.stack([pair[0] for pair in pairs])
        lower = np.stack([pair[1] for pair in pairs])
        if self.turned is not None:
            lower = lower.reshape(*lower.shape[:2], -1, self.turned).transpose(0, 2, 1, 3)
        if self.mean is None:
            return (lower, upper), None
        mean = self.mean.reshape(len(upper), -1, 1)
        lost = mean - upper @ (upper.transpose(0, 2, 1) @ mean)
        return (lower, upper), lost.reshape(-1)


@dataclass(frozen=True, eq=False)
class SeparableFit:
    """Directions of the input to keep, and the input's mean."""

    basis: SeparableBasis
    mean: FloatArray | None

    def factors(self, rank: int) -> Factors:
        """Return [r, rows] and [outputs, r, taps], and the lost mean."""
        first, second = self.basis.factors(rank)
        return (first.T, second), self._lost(first, second)

    def narrowed(self, rank: int, outer: int) -> Factors:
        """Return [r, rows], [outer, r, taps] and [outputs, outer], and the lost mean."""
        first, second = self.basis.factors(rank)
        kept = self.basis.narrowed(rank).vectors[:, :outer]
        core = np.tensordot(kept.T, second, 1)
        return (first.T, core, kept), self._lost(first, np.tensordot(kept, core, 1))

    def _lost(self, first: FloatArray, second: FloatArray) -> FloatArray | None:
        if self.mean is None:
            return None
        weight = self.basis.weight
        mean = self.mean.reshape(weight.shape[1:])
        was = np.tensordot(weight, mean, 2)
        return np.asarray(was - np.tensordot(second, first.T @ mean, 2))
