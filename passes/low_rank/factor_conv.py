"""factor-conv: a convolution becomes two or three thinner ones in a row.

What it does
    Offers several shapes for each weight: the kernel to r channels and then 1x1 (channel, or
    pointwise for 1x1 kernels; per group where there are groups; also for ConvTranspose), 1x1 to
    r channels and then the kernel (input), both at once (tucker), and kh x 1 before 1 x kw or
    the other way round (spatial). With calibration data the channels kept are those that carry
    the layer's output, the last kernel is refitted to the data by least squares, and the bias
    gets back what the mean of the output loses. Where a normalization or weights behind it hear
    some channels louder than others, the same shapes fitted to that are a second choice on
    request. All convolutions that share a weight are rewritten together.

Why
    Fewer multiplications and parameters, for an error that the user's budget bounds. Which shape
    loses least differs from layer to layer, so all that pay are fitted and the best are offered.

Leaves alone
    Depthwise convolutions, first layers, and weights that are shared with other operators, that
    the caller can override, that lie in subgraphs or functions, or of other types than float16
    and float32.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.statistic import PatchStatistic
from structopt_onnx.passes.low_rank.conv_choices import cost, layouts, offered
from structopt_onnx.passes.low_rank.conv_fit import fit_of, unscaled
from structopt_onnx.passes.low_rank.conv_forms import dense, rewritten
from structopt_onnx.passes.low_rank.conv_site import REFUSALS, ConvSite, find_sites, site_of
from structopt_onnx.passes.low_rank.conv_statistic import LARGEST_DIMENSION, statistic_of
from structopt_onnx.passes.low_rank.seen import seen_scales
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.low_rank.conv_fit import ConvFit, Factors
    from structopt_onnx.passes.low_rank.conv_forms import Layout


@dataclass(frozen=True)
class FactorConv(Pass):
    """Options of factor-conv.

    Parameters
    ----------
    target
        Where costs are predicted; also gives the multiple of ranks.
    rank_multiple
        Ranks offered are multiples of this; 0 takes the target's, less for narrow layers.
    centre
        Fit the covariance and correct the bias; else the second moment.
    unseen
        Least share of white inputs among those that are fitted, more where the samples are few:
        samples never show all that comes. 0 fits the samples alone. A pitch tracker that is
        judged on other notes than it was fitted to keeps, with 69 % of its parameters, an
        accuracy of 0.906 at 0 and of 0.961 at 0.01 (whole: 0.983).
    seen
        Also offer fits in the metric that the layers behind see; the probe tells which is better.
        Off by default: it takes a probe more per layer, and with few samples to probe on, plans
        came out better and worse.
    """

    name: ClassVar[str] = "factor-conv"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {
        **REFUSALS,
        "no-option-pays": "no shape at the ranks tried has fewer parameters or products",
        "statistics-too-large": f"the moments needed have more than {LARGEST_DIMENSION} rows, or "
        "there are none for uses with different biases",
        "superseded": "an earlier rewrite of the plan took the weight",
    }

    target: str = "cpu"
    rank_multiple: int = 0
    centre: bool = True
    unseen: float = 0.01
    seen: bool = False

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of the patches, or of the output, for each weight found."""
        for site in find_sites(scope, facts):
            if isinstance(site, ConvSite):
                wanted = statistic_of(site)
                patches = isinstance(wanted, PatchStatistic)
                if wanted is not None and self._layouts(site, facts, separable=patches):
                    yield wanted

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with the options that no other one beats."""
        found = find_sites(scope, facts)
        for proposals in facts.workers.each(lambda site: self._proposals(site, facts), found):
            yield from proposals

    def _proposals(self, site: ConvSite | Refusal, facts: Facts) -> list[Choice | Refusal]:
        if isinstance(site, Refusal):
            return [site]
        name, wanted = site.weight.name or "", statistic_of(site)
        if wanted is None:
            return [Refusal("statistics-too-large", f"shape {site.shape}", name)]
        choices = list(self._choices(site, facts, wanted))
        return [*choices] or [Refusal("no-option-pays", f"shape {site.shape}", name)]

    def _layouts(self, site: ConvSite, facts: Facts, *, separable: bool) -> list[Layout]:
        return layouts(site, facts, self.target, self.rank_multiple, separable=separable)

    def _choices(self, site: ConvSite, facts: Facts, wanted: Statistic) -> Iterator[Choice]:
        fit = fit_of(site, facts, wanted, centre=self.centre, unseen=self.unseen)
        fit = replace(fit, tried=tuple(self._layouts(site, facts, separable=fit.serves_inputs)))
        yield from self._choice(site, facts, fit, None)
        if self.seen and fit.moments is not None and len(site.uses) == 1:
            passing = fit.share_above_zero()
            scales = seen_scales(site.uses[0].made, 1, site.outputs, facts, passing)
            if scales is not None:
                yield from self._choice(site, facts, fit.scaled(scales), scales)

    def _choice(
        self,
        site: ConvSite,
        facts: Facts,
        fit: ConvFit,
        scales: npt.NDArray[np.float64] | None,
    ) -> Iterator[Choice]:
        name, moments = site.weight.name or "", fit.moments
        corrected = self.centre and moments is not None
        added = site.outputs if corrected and any(u.bias is None for u in site.uses) else 0
        bias = Cost(parameters=added, bytes=int(added * site.tensor.dtype.itemsize))
        before = cost(site, facts, dense(site), self.target)

        def patch(
            layout: Layout, build: Callable[[], Factors], scope: Scope, facts: Facts
        ) -> Patch | Refusal:
            found = site_of(name, scope, facts)
            if isinstance(found, Refusal):
                return found
            factors = build() if scales is None else unscaled(build(), scales)
            return rewritten(found, scope, layout, factors)

        options = []
        for layout in fit.tried:
            error, build = fit.candidate(layout)
            if not np.isfinite(error) or error >= 1:
                continue
            after = cost(site, facts, layout, self.target) + bias
            make = partial(patch, layout, build)
            label = layout.label if scales is None else f"{layout.label} as seen"
            options.append(Option(label, error, before, after, make))
        if options:
            yield Choice(
                frozenset({name}),
                site.uses[0].made.name or "",
                offered(options),
                "weights" if moments is None else "calibration",
                0.0 if moments is None else moments.count / moments.mean.size,
            )
