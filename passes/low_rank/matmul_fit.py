"""What a matrix product is fitted to: which moments, and the directions they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from structopt_onnx.linalg.low_rank import (
    blended,
    from_input_moment,
    from_output_moment,
    from_weight,
)
from structopt_onnx.linalg.separable import unseen_share
from structopt_onnx.model.statistic import Statistic
from structopt_onnx.passes.low_rank.matmul_pair import Fit
from structopt_onnx.passes.low_rank.seen import share_above_zero

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.low_rank.matmul_site import MatmulSite

Vector = npt.NDArray[np.float64]


def by_output(site: MatmulSite) -> bool:
    """Whether the moments of the product can be had from those of the node's output."""
    outputs, inputs = site.shape
    first = site.uses[0]
    plain = first.node.op_type == "MatMul" or (first.bias is not None and first.scale != 0)
    return outputs <= inputs and len(site.uses) == 1 and plain


def statistic_of(site: MatmulSite) -> Statistic:
    """Return output or input moments, whichever is smaller."""
    first = site.uses[0]
    if by_output(site):
        return Statistic((first.node.outputs[0].name or "",), first.output_axis)
    names = dict.fromkeys(use.data.name or "" for use in site.uses)
    return Statistic(tuple(names), first.data_axis)


def fit_of(
    site: MatmulSite,
    facts: Facts,
    most: int,
    *,
    centre: bool,
    unseen: float,
    scales: Vector | None = None,
) -> Fit:
    """Fit a weight to the moments gathered, or to itself alone when there are none.

    Parameters
    ----------
    site, facts
        The weight, and what is known.
    most
        Number of directions kept.
    centre
        Fit the covariance where every bias is constant; else the second moment.
    unseen
        Least share of white inputs among those that are fitted: see `unseen_share`.
    scales
        What to multiply the features of the output by before fitting: see `seen_scales`.
    """
    weight = site.matrix(facts)
    if scales is not None:
        weight = weight * scales[:, None]
    solve = facts.workers.solve
    moments = facts.statistic(statistic_of(site))
    if moments is None:
        return Fit(solve(from_weight, weight, most), None)
    centred = centre and all(use.bias is not None for use in site.uses)
    first = site.uses[0]
    share = unseen_share(unseen, moments.count / moments.mean.size)
    if by_output(site):
        bias = first.bias if first.node.op_type == "Gemm" and first.bias is not None else 0.0
        mean = (moments.mean - bias) / first.scale
        covariance = moments.covariance / first.scale**2
        moment = covariance if centred else covariance + np.outer(mean, mean)
        if scales is not None:
            mean, moment = scales * mean, moment * np.outer(scales, scales)
        guide = blended(moment, weight @ weight.T, share) if share else None
        basis = solve(from_output_moment, moment, most, guide=guide)
        return Fit(basis, mean if centred else None, scales)
    moment = moments.covariance if centred else moments.second_moment
    basis = solve(from_input_moment, weight, moment, min(most, *weight.shape), unseen=share)
    return Fit(basis, weight @ moments.mean if centred else None, scales)


def passing(site: MatmulSite, facts: Facts) -> Vector | None:
    """Return how often each feature is above zero, its bias added, [m]."""
    moments, first = facts.statistic(statistic_of(site)), site.uses[0]
    if moments is None or first.bias is None:
        return None
    if by_output(site):
        added = first.bias if first.node.op_type == "MatMul" else 0.0
        return share_above_zero(moments.mean + added, moments.covariance.diagonal())
    weight = first.scale * site.matrix(facts)
    variance = np.sum((weight @ moments.covariance) * weight, axis=1)
    return share_above_zero(weight @ moments.mean + first.bias, variance)
