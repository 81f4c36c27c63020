"""factor-matmul: a Gemm or MatMul with a constant weight becomes two thin ones.

What it does
    ``y = x W`` with W of n x m becomes ``y = (x P) Q`` with P of n x r and Q of r x m. The
    directions kept are those that carry the layer's output on calibration data: eigenvectors of
    the output covariance, or the weight's singular vectors when there are no data. What the mean
    of the output loses is put back into the bias where there is a constant one. Where a
    normalization or weights behind it hear some features louder than others, ranks fitted to
    that are a second choice. All nodes that share the weight are rewritten together, on one
    pair of factors. Weights that multiply one input, such as queries, keys and values, may share
    the first factor: r (n + m_1 + m_2 + m_3) parameters.

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

from structopt_onnx.linalg.moments import LARGEST_DIMENSION
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.low_rank.matmul_fit import by_output, fit_of, passing, statistic_of
from structopt_onnx.passes.low_rank.matmul_joint import JointSite, joint_sites
from structopt_onnx.passes.low_rank.matmul_pair import factored
from structopt_onnx.passes.low_rank.matmul_site import (
    REFUSALS,
    MatmulSite,
    find_sites,
    site_of,
)
from structopt_onnx.passes.low_rank.seen import seen_scales
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.low_rank.matmul_pair import Fit

# Layers too narrow for this many ranks at the target's multiple get halves and quarters of it:
# there the parameters are what a cut saves.
_FEW_RANKS = 4


@dataclass(frozen=True)
class FactorMatmul(Pass):
    """Options of factor-matmul.

    Parameters
    ----------
    target
        Where costs are predicted; also gives the multiple of ranks.
    rank_multiple
        Ranks offered are multiples of this; 0 takes the target's, less for narrow layers.
    centre
        Fit the covariance and correct the bias where it is constant; else the second moment.
    unseen
        Least share of white inputs among those that are fitted, more where the samples are few:
        samples never show all that comes. 0 fits the samples alone.
    seen
        Also offer fits in the metric that the layers behind see; the probe tells which is better.
    joint
        Also offer one first factor for all weights that multiply the same input.
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
    joint: bool = True

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return output or input moments, whichever is smaller, for each weight found."""
        found = find_sites(scope, facts)
        fitting = [site for site in found if isinstance(site, MatmulSite) and self._fits(site)]
        yield from map(statistic_of, fitting)
        yield from (together.statistic for together in self._together(fitting))

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield the choices of each weight, with an option per rank that pays."""
        found = list(find_sites(scope, facts))
        for proposals in facts.workers.each(lambda site: self._proposals(site, facts), found):
            yield from proposals
        fitting = [s for s in found if isinstance(s, MatmulSite) and self._fits(s)]

        def jointly(together: JointSite) -> Choice:
            ranks = self._ranks(together)
            fit = together.fit(facts, ranks[-1], centre=self.centre, unseen=self.unseen)
            return together.choice(facts, ranks, fit, self._timed)

        yield from facts.workers.each(jointly, self._together(fitting))

    def _fits(self, site: MatmulSite) -> bool:
        return bool(self._ranks(site)) and not self._too_large(site)

    def _proposals(self, site: MatmulSite | Refusal, facts: Facts) -> list[Choice | Refusal]:
        if isinstance(site, Refusal):
            return [site]
        name = site.weight.name or ""
        if not self._ranks(site):
            return [Refusal("no-rank-pays", f"shape {site.weight.shape}", name)]
        if self._too_large(site):
            return [Refusal("statistics-too-large", f"shape {site.weight.shape}", name)]
        return [*self._choices(site, facts)]

    def _together(self, sites: Sequence[MatmulSite]) -> Iterator[JointSite]:
        for site in joint_sites(sites) if self.joint else ():
            if self._ranks(site) and site.shape[1] <= LARGEST_DIMENSION:
                yield site

    def _timed(self, cost: Cost) -> Cost:
        return replace(cost, seconds=TARGETS[self.target].seconds(cost))

    def _ranks(self, site: MatmulSite | JointSite) -> range:
        rows, columns = site.shape
        stop = -(-rows * columns // max(1, rows + columns))
        step = self.rank_multiple
        if not step:
            step = whole = TARGETS[self.target].rank_multiple
            while step * _FEW_RANKS > stop and step * 4 > whole and step > 1:
                step //= 2
        return range(step, stop, step)

    @classmethod
    def _too_large(cls, site: MatmulSite) -> bool:
        outputs, inputs = site.shape
        return (outputs if by_output(site) else inputs) > LARGEST_DIMENSION

    def _choices(self, site: MatmulSite, facts: Facts) -> Iterator[Choice]:
        fit = partial(
            fit_of,
            site,
            facts,
            self._ranks(site)[-1],
            centre=self.centre,
            unseen=self.unseen,
        )
        yield self._choice(site, facts, fit())
        if self.seen and len(site.uses) == 1 and facts.statistic(statistic_of(site)) is not None:
            use = site.uses[0]
            made, axis = use.node.outputs[0], use.output_axis
            scales = seen_scales(made, axis, site.shape[0], facts, passing(site, facts))
            if scales is not None:
                yield self._choice(site, facts, fit(scales=scales))

    def _choice(self, site: MatmulSite, facts: Facts, fit: Fit) -> Choice:
        name = site.weight.name or ""
        moments = facts.statistic(statistic_of(site))
        extra = 0 if fit.mean is None else site.bias_parameters()

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
                    self._cost(site, facts, rank, extra),
                    partial(patch, rank),
                    rank,
                )
                for rank in self._ranks(site)
                if rank <= fit.basis.size
            ),
            "weights" if moments is None else "calibration",
            0.0 if moments is None else moments.count / moments.mean.size,
            fit.basis.spectrum,
        )

    def _cost(self, site: MatmulSite, facts: Facts, rank: int | None, extra: int = 0) -> Cost:
        outputs, inputs = site.shape
        size = outputs * inputs if rank is None else rank * (outputs + inputs)
        positions = 0
        for use in site.uses:
            made = facts.concrete(use.node.outputs[0])
            positions += int(np.prod(made, dtype=np.int64)) // outputs if made else 1
        cost = Cost(
            parameters=size + extra,
            bytes=int((size + extra) * site.tensor.dtype.itemsize),
            macs=positions * size,
            nodes=len(site.uses) * (1 if rank is None else 2),
        )
        return self._timed(cost)
