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
from typing import TYPE_CHECKING, ClassVar

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.statistic import PatchStatistic
from structopt_onnx.passes.convolution.conv_choice import Candidate, choice_of
from structopt_onnx.passes.convolution.conv_site import REFUSALS, THIN, ConvSite, find_sites
from structopt_onnx.passes.convolution.conv_statistic import LARGEST_DIMENSION, statistic_of
from structopt_onnx.passes.low_rank.conv_choices import layouts
from structopt_onnx.passes.low_rank.conv_fit import fit_of, unscaled
from structopt_onnx.passes.low_rank.seen import seen_scales
from structopt_onnx.rewriting.passes import Choice, Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.convolution.conv_rows import Layout
    from structopt_onnx.passes.low_rank.conv_fit import ConvFit


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
        **THIN,
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
        def candidate(layout: Layout) -> Candidate:
            error, build = fit.candidate(layout)
            if scales is None:
                return Candidate(layout.label, layout, error, build)
            return Candidate(
                f"{layout.label} as seen", layout, error, lambda: unscaled(build(), scales)
            )

        candidates = [candidate(layout) for layout in fit.tried]
        choice = choice_of(
            site,
            facts,
            self.target,
            candidates,
            fit.moments,
            centred=self.centre,
            spectrum=fit.spectrum,
        )
        if choice is not None:
            yield choice
