"""factor-matmul: a Gemm or MatMul with a constant weight becomes two thin ones.

What it does
    ``y = x W`` with W of n x m becomes ``y = (x P) Q`` with P of n x r and Q of r x m. The
    directions kept are those that carry the layer's output on calibration data: eigenvectors of
    the output covariance, or the weight's singular vectors when there are no data. What the mean
    of the output loses is put back into the bias where there is a constant one. Where a
    normalization or weights behind it hear some features louder than others, ranks fitted to
    that are a second choice. All nodes that share the weight are rewritten together, on one
    pair of factors.

Why
    r (m + n) < m n multiplications and parameters, for an error that the user's budget bounds.

Leaves alone
    Weights that something other than a product reads, that the caller can override, that lie
    in subgraphs or functions, of more than two dimensions, of other types than float16, float32
    and float64, or too small for any rank to pay.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from structopt_onnx.linalg.low_rank import (
    blended,
    from_input_moment,
    from_output_moment,
    from_weight,
)
from structopt_onnx.linalg.moments import LARGEST_DIMENSION
from structopt_onnx.linalg.separable import unseen_share
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.statistic import Statistic
from structopt_onnx.passes.low_rank.matmul_pair import Fit, factored
from structopt_onnx.passes.low_rank.matmul_site import (
    REFUSALS,
    MatmulSite,
    find_sites,
    site_of,
)
from structopt_onnx.passes.low_rank.seen import seen_scales, share_above_zero
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FactorMatmul(Pass):
    """Options of factor-matmul.

    Parameters
    ----------
    target
        Where costs are predicted; also gives the multiple of ranks.
    rank_multiple
        Ranks offered are multiples of this; 0 takes the target's.
    centre
        Fit the covariance and correct the bias where it is constant; else the second moment.
    unseen
        Least share of white inputs among those that are fitted, more where the samples are few:
        samples never show all that comes. 0 fits the samples alone.
    seen
        Also offer fits in the metric that the layers behind see; the probe tells which is better.
    """

    name: ClassVar[str] = "factor-matmul"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {
        **REFUSALS,
        "no-rank-pays": "no rank at the target's multiples has fewer parameters than the weight",
        "statistics-too-large": f"the moments needed have more than {LARGEST_DIMENSION} rows",
        "superseded": "an earlier rewrite of the plan took the weight",
    }

    target: str = "cpu"
    rank_multiple: int = 0
    centre: bool = True
    unseen: float = 0.01
    seen: bool = True

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return output or input moments, whichever is smaller, for each weight found."""
        for site in find_sites(scope, facts):
            if isinstance(site, MatmulSite) and self._ranks(site) and not self._too_large(site):
                yield self._statistic(site)

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with an option per rank that pays."""
        found = find_sites(scope, facts)
        for proposals in facts.workers.each(lambda site: self._proposals(site, facts), found):
            yield from proposals

    def _proposals(self, site: MatmulSite | Refusal, facts: Facts) -> list[Choice | Refusal]:
        if isinstance(site, Refusal):
            return [site]
        name = site.weight.name or ""
        if not self._ranks(site):
            return [Refusal("no-rank-pays", f"shape {site.weight.shape}", name)]
        if self._too_large(site):
            return [Refusal("statistics-too-large", f"shape {site.weight.shape}", name)]
        return [*self._choices(site, facts)]

    def _ranks(self, site: MatmulSite) -> range:
        rows, columns = site.shape
        step = self.rank_multiple or TARGETS[self.target].rank_multiple
        return range(step, -(-rows * columns // max(1, rows + columns)), step)

    @classmethod
    def _too_large(cls, site: MatmulSite) -> bool:
        outputs, inputs = site.shape
        return (outputs if cls._by_output(site) else inputs) > LARGEST_DIMENSION

    @staticmethod
    def _by_output(site: MatmulSite) -> bool:
        """Whether the moments of the product can be had from those of the node's output."""
        outputs, inputs = site.shape
        first = site.uses[0]
        plain = first.node.op_type == "MatMul" or (first.bias is not None and first.scale != 0)
        return outputs <= inputs and len(site.uses) == 1 and plain

    @classmethod
    def _statistic(cls, site: MatmulSite) -> Statistic:
        first = site.uses[0]
        if cls._by_output(site):
            return Statistic((first.node.outputs[0].name or "",), first.output_axis)
        names = dict.fromkeys(use.data.name or "" for use in site.uses)
        return Statistic(tuple(names), first.data_axis)

    def _fit(self, site: MatmulSite, facts: Facts, scales: Vector | None = None) -> Fit:
        weight, most = site.matrix(facts), self._ranks(site)[-1]
        solve = facts.workers.solve
        if scales is not None:
            weight = weight * scales[:, None]
        wanted = self._statistic(site)
        moments = facts.statistic(wanted)
        if moments is None:
            return Fit(solve(from_weight, weight, most), None)
        centred = self.centre and all(use.bias is not None for use in site.uses)
        first = site.uses[0]
        unseen = unseen_share(self.unseen, moments.count / moments.mean.size)
        if self._by_output(site):
            bias = first.bias if first.node.op_type == "Gemm" and first.bias is not None else 0.0
            mean = (moments.mean - bias) / first.scale
            covariance = moments.covariance / first.scale**2
            moment = covariance if centred else covariance + np.outer(mean, mean)
            if scales is not None:
                mean, moment = scales * mean, moment * np.outer(scales, scales)
            guide = blended(moment, weight @ weight.T, unseen) if unseen else None
            basis = solve(from_output_moment, moment, most, guide=guide)
            return Fit(basis, mean if centred else None, scales)
        moment = moments.covariance if centred else moments.second_moment
        basis = solve(from_input_moment, weight, moment, min(most, *weight.shape), unseen=unseen)
        return Fit(basis, weight @ moments.mean if centred else None, scales)

    def _choices(self, site: MatmulSite, facts: Facts) -> Iterator[Choice]:
        yield self._choice(site, facts, self._fit(site, facts))
        if self.seen and len(site.uses) == 1 and facts.statistic(self._statistic(site)) is not None:
            use = site.uses[0]
            passing = self._passing(site, facts)
            scales = seen_scales(
                use.node.outputs[0], use.output_axis, site.shape[0], facts, passing
            )
            if scales is not None:
                yield self._choice(site, facts, self._fit(site, facts, scales))

    def _passing(self, site: MatmulSite, facts: Facts) -> Vector | None:
        """Return how often each feature is above zero, its bias added, [m]."""
        moments, first = facts.statistic(self._statistic(site)), site.uses[0]
        if moments is None or first.bias is None:
            return None
        if self._by_output(site):
            added = first.bias if first.node.op_type == "MatMul" else 0.0
            return share_above_zero(moments.mean + added, moments.covariance.diagonal())
        weight = first.scale * site.matrix(facts)
        variance = np.sum((weight @ moments.covariance) * weight, axis=1)
        return share_above_zero(weight @ moments.mean + first.bias, variance)

    def _choice(self, site: MatmulSite, facts: Facts, fit: Fit) -> Choice:
        name = site.weight.name or ""
        moments = facts.statistic(self._statistic(site))

        def patch(rank: int, scope: Scope, facts: Facts) -> Patch | Refusal:
            found = site_of(name, scope, facts)
            return found if isinstance(found, Refusal) else factored(found, scope, facts, fit, rank)

        return Choice(
            frozenset({name}),
            site.uses[0].node.outputs[0].name or "",
            tuple(
                Option(
                    f"rank {rank}{'' if fit.scales is None else ' as seen'}",
                    fit.basis.error(rank),
                    self._cost(site, facts, None),
                    self._cost(site, facts, rank),
                    partial(patch, rank),
                )
                for rank in self._ranks(site)
                if rank <= fit.basis.size
            ),
            "weights" if moments is None else "calibration",
            0.0 if moments is None else moments.count / moments.mean.size,
        )

    def _cost(self, site: MatmulSite, facts: Facts, rank: int | None) -> Cost:
        outputs, inputs = site.shape
        size = outputs * inputs if rank is None else rank * (outputs + inputs)
        positions = 0
        for use in site.uses:
            made = facts.concrete(use.node.outputs[0])
            positions += int(np.prod(made, dtype=np.int64)) // outputs if made else 1
        cost = Cost(
            parameters=size,
            bytes=int(size * site.tensor.dtype.itemsize),
            macs=positions * size,
            nodes=len(site.uses) * (1 if rank is None else 2),
        )
        return replace(cost, seconds=TARGETS[self.target].seconds(cost))
