"""factor-recurrent-input: RNN, GRU and LSTM read a thin projection of their input sequence.

What it does
    The input weight W of D x G H x I, all directions on top of each other, becomes U V with V of
    r x I. ``MatMul(X, V^T)`` goes before the node, and U of D x G H x r takes W's place. The
    directions kept are those that carry ``W x`` on the calibration data, at the steps that
    sequence_lens lets count, or W's singular vectors when there are no data. What the mean of
    ``W x`` loses is put back into the input half of B; B is made where the node has none and it
    lowers the error by more than a tenth. Everything else about the node stays, and what else
    reads X goes on reading X. Nodes that share the weight are rewritten together.

Why
    r (D G H + I) < D G H I multiplications per step and parameters, for an error that the user's
    budget bounds. The recurrence itself costs what it did.

Leaves alone
    Weights that the caller can override or that nodes compute, that something reads in another
    role, that lie in subgraphs or functions, of other types than float16, float32 and float64,
    with infinities, or too small for any rank to pay; nodes with layout 1.

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
from structopt_onnx.passes.low_rank.recurrent_fit import fits, pooled
from structopt_onnx.passes.low_rank.recurrent_projection import projected
from structopt_onnx.passes.low_rank.recurrent_site import (
    REFUSALS,
    RecurrentSite,
    find_weights,
    site_of,
)
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.low_rank.recurrent_fit import Fit


@dataclass(frozen=True)
class FactorRecurrentInput(Pass):
    """Options of factor-recurrent-input.

    Parameters
    ----------
    target
        Where costs are predicted; also gives the multiple of ranks.
    rank_multiple
        Ranks offered are multiples of this; 0 takes the target's.
    centre
        Fit the covariance and correct B where it is constant; else the second moment.
    """

    name: ClassVar[str] = "factor-recurrent-input"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {
        **REFUSALS,
        "no-rank-pays": "no rank at the target's multiples has fewer parameters than the weight",
        "statistics-too-large": f"a step has more than {LARGEST_DIMENSION} features",
        "superseded": "an earlier rewrite of the plan took the weight",
    }

    target: str = "cpu"
    rank_multiple: int = 0
    centre: bool = True

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of the sequences that each weight found is multiplied with."""
        for site in find_weights(scope, facts):
            if isinstance(site, RecurrentSite) and self._unpaid(site) is None:
                yield from _statistics(site)

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with an option per rank that pays."""
        found = find_weights(scope, facts)
        yield from facts.workers.each(lambda site: self._proposal(site, facts), found)

    def _proposal(self, site: RecurrentSite | Refusal, facts: Facts) -> Choice | Refusal:
        if isinstance(site, Refusal):
            return site
        return self._unpaid(site) or self._choice(site, facts)

    def _unpaid(self, site: RecurrentSite) -> Refusal | None:
        name, detail = site.weight.name or "", f"shape {site.weight.shape}"
        if not self._ranks(site):
            return Refusal("no-rank-pays", detail, name)
        if site.shape[1] > LARGEST_DIMENSION:
            return Refusal("statistics-too-large", detail, name)
        return None

    def _ranks(self, site: RecurrentSite) -> range:
        rows, columns = site.shape
        step = self.rank_multiple or TARGETS[self.target].rank_multiple
        return range(step, -(-rows * columns // max(1, rows + columns)), step)

    def _choice(self, site: RecurrentSite, facts: Facts) -> Choice:
        moments = pooled([facts.statistic(wanted) for wanted in _statistics(site)])
        name = site.weight.name or ""
        before = self._cost(site, facts, None)

        def patch(fit: Fit, scope: Scope, facts: Facts) -> Patch | Refusal:
            found = site_of(name, scope, facts)
            return found if isinstance(found, Refusal) else projected(found, scope, fit)

        found = [*fits(site, moments, self._ranks(site), facts.workers, centre=self.centre)]
        options = tuple(
            Option(
                f"rank {fit.rank}",
                fit.error,
                before,
                self._cost(site, facts, fit),
                partial(patch, fit),
                fit.rank,
            )
            for fit in found
        )
        return Choice(
            frozenset({name}),
            next((output.name for output in site.uses[0].node.outputs if output.name), ""),
            options,
            "weights" if moments is None else "calibration",
            0.0 if moments is None else moments.count / moments.mean.size,
            found[-1].spectrum if found else (),
        )

    def _cost(self, site: RecurrentSite, facts: Facts, fit: Fit | None) -> Cost:
        rows, columns = site.shape
        steps = {use.data: _steps(facts.concrete(use.data)) for use in site.uses}
        size, macs, nodes = rows * columns, 0, len(site.uses)
        if fit is not None:  # a sequence is projected once, whatever number of nodes reads it
            size = fit.rank * (rows + columns) + fit.extra
            macs = sum(steps.values()) * columns * fit.rank
            nodes += len(steps)
        width = columns if fit is None else fit.rank
        cost = Cost(
            parameters=size,
            bytes=int(size * site.tensor.dtype.itemsize),
            macs=macs + sum(steps[use.data] for use in site.uses) * rows * width,
            nodes=nodes,
        )
        return replace(cost, seconds=TARGETS[self.target].seconds(cost))


def _statistics(site: RecurrentSite) -> tuple[Statistic, ...]:
    """List what can be observed: nobody hands out a sequence that is a constant."""
    observable = [u for u in site.uses if u.data.is_graph_input() or not u.data.is_initializer()]
    return tuple(dict.fromkeys(use.statistic for use in observable))


def _steps(shape: tuple[int, ...] | None) -> int:
    """Return how many vectors a sequence of this shape holds, 1 when nobody knows."""
    return int(np.prod(shape[:-1], dtype=np.int64)) if shape else 1
