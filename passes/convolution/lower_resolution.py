"""lower-resolution: a convolution makes one value per block, raised again only where it must be.

What it does
    Fits a convolution of twice the stride to the means of blocks of two positions along each axis
    with single steps and an even size, by least squares on the calibration data. Such a mean is
    exactly a convolution by a kernel one tap wider; parts of that are offered, too. A 1x1
    convolution reads the means of its input instead. What follows position by position (operators
    by element, normalization, 1x1 convolutions) then runs on blocks. A Resize copies a value to
    all positions of its block where something else reads it, or the caller; a mean or maximum of
    the whole map reads the blocks themselves.

Why
    A 3x3 convolution costs four ninths of what it did, or a quarter by as many taps, and 1x1
    convolutions behind it cost a quarter. What differs within a block is lost, and that is seldom
    little without training: the error predicted counts it.

Leaves alone
    Sizes that are odd or not known to be even, weights as for shrink-filter, or of several
    convolutions, filters that see more numbers than a covariance is worth, and opsets without
    nearest copies. Without calibration data nobody knows what differs within a block.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.coarse_conv import CoarseConv
from structopt_onnx.passes.convolution.coarse_region import CoarseRegions, on_blocks
from structopt_onnx.passes.convolution.coarse_site import CoarseSite, coarse_site
from structopt_onnx.passes.convolution.conv_cost import cost_alone, offered
from structopt_onnx.passes.convolution.conv_refit import REFIT_REFUSALS
from structopt_onnx.passes.convolution.kernel_parts import (
    kept_features,
    middle_parts_of,
    part_of,
    sizes,
)
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.convolution.kernel_parts import Taps
    from structopt_onnx.rewriting.cost import Cost

    Paying = tuple[Taps | None, Cost, Cost]


@dataclass(frozen=True)
class LowerResolution(Pass):
    """Options of lower-resolution.

    Parameters
    ----------
    target
        Where costs are predicted.
    unseen
        Least share of white inputs among those that are fitted, more where the samples are few.
        0 fits the samples alone.
    """

    name: ClassVar[str] = "lower-resolution"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {
        **REFIT_REFUSALS,
        "needs-calibration": "what differs within a block can only be seen in data",
        "odd-size": "the convolution makes an odd number of positions",
        "opset": "Resize has no exact copies before opset 11",
        "size-unknown": "the number of positions may be odd",
        "weight-shared": "other convolutions use the weight, too",
    }
    # What a first look asks for, errors of a tenth at most, blocks hardly ever keep.
    brief: ClassVar[bool] = False

    target: str = "cpu"
    unseen: float = 0.01

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of the patches that blocks see, where an option may pay."""
        sites = self._sites(scope, facts)
        return [site[0].statistic for site in sites if not isinstance(site, Refusal) and site[1]]

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with the options that no other one beats."""
        propose = partial(self._proposal, facts=facts)
        yield from facts.workers.each(propose, self._sites(scope, facts))

    def _sites(
        self, scope: Scope, facts: Facts
    ) -> Iterator[tuple[CoarseSite, list[Paying]] | Refusal]:
        """Yield each convolution with what may pay, or why it must stay."""
        regions: CoarseRegions | None = None
        for weight in tuple(scope.graph.initializers.values()):
            found = coarse_site(weight, scope, facts)
            if isinstance(found, CoarseSite):
                regions = regions or CoarseRegions(scope, facts)
                yield found, self._paying(found, regions, facts)
            elif found is not None:
                yield found

    def _proposal(
        self, found: tuple[CoarseSite, list[Paying]] | Refusal, facts: Facts
    ) -> Choice | Refusal:
        if isinstance(found, Refusal):
            return found
        match, paying = found
        site, name = match.site, match.site.weight.name or ""
        moments = facts.statistic(match.statistic)
        if moments is None and paying:
            return Refusal("needs-calibration", f"shape {site.shape}", name)
        options = []
        if moments is not None:
            made = self._made(match, [taps for taps, _, _ in paying], moments, facts)
            for (error, conv), (_, before, after) in zip(made, paying, strict=True):
                if error < 1:
                    patch = partial(_patch, name, conv)
                    options.append(Option(conv.label, error, before, after, patch))
        if not options or moments is None:
            return Refusal("no-option-pays", f"shape {site.shape}", name)
        fitted = 1 if match.averages else moments.mean.size
        at, support = site.uses[0].made.name or "", moments.count / fitted
        # Weights inside the region are no part of the site: what factors them goes with this. Of
        # two that lower the same resolution the second is superseded.
        return Choice(frozenset({name}), at, offered(options), "calibration", support)

    def _made(
        self, match: CoarseSite, forms: list[Taps | None], moments: Moments, facts: Facts
    ) -> Iterator[tuple[float, CoarseConv]]:
        """Yield the error and what makes blocks, for each part of the kernel or the mean."""
        site, kernel = match.site, match.slides.kernel
        data, held = site.uses[0].data.name or "", site.uses[0].bias
        regression = None if match.averages else match.regression(facts, moments, self.unseen)
        for taps in forms:
            if taps is None or regression is None:
                yield match.lost(moments), CoarseConv(data, match.slides, None)
                continue
            kept = kept_features(kernel, taps, site.inputs // site.groups)
            error, maps, lost = regression.refit([kept] * site.groups)
            weight = maps.reshape(*site.shape[:2], *sizes(taps))
            bias = np.zeros(site.outputs) if lost is None else lost
            fit = taps, weight, bias if held is None else bias + held
            yield error, CoarseConv(data, match.slides, fit)

    def _paying(self, match: CoarseSite, regions: CoarseRegions, facts: Facts) -> list[Paying]:
        """Return what lowers a cost: parts of the wider kernel, or None for the mean first."""
        site, steps, kernel = match.site, match.steps, match.slides.kernel
        region = regions.behind(site.uses[0].made, match.axes)
        shape = facts.concrete(site.uses[0].made) or (1,) * len(site.shape)
        dims, biased = facts.dims(site.uses[0].data), site.uses[0].bias is not None
        every, fewer = region.costs(steps, facts, self.target)
        count = partial(cost_alone, site, target=self.target)
        before = count(site.kernel, shape, biased=biased, nodes=1) + every
        whole, low = tuple(slice(0, size, 1) for size in kernel), on_blocks(shape, steps)
        found: list[Paying] = []
        if match.averages:
            after = count(site.kernel, low, biased=biased, nodes=2)
            found.append((None, before, after + fewer))
        # Blocks have no side: of parts as large the one in the middle stands for all.
        for taps in () if match.averages else (whole, *middle_parts_of(kernel)):
            part = part_of(match.slides, taps, dims)
            if part is not None:
                nodes = 1 + (min(part[1]) < 0)
                after = count(sizes(taps), low, biased=True, nodes=nodes)
                found.append((taps, before, after + fewer))
        return [
            (taps, was, now)
            for taps, was, now in found
            if now.parameters < was.parameters or now.macs < was.macs
        ]


def _patch(name: str, coarse: CoarseConv, scope: Scope, facts: Facts) -> Patch | Refusal:
    weight = scope.graph.initializers.get(name)
    match = None if weight is None else coarse_site(weight, scope, facts)
    made = coarse.nodes(match, facts) if isinstance(match, CoarseSite) else None
    if not isinstance(match, CoarseSite) or made is None:
        return Refusal("superseded", "an earlier rewrite took it", name)
    nodes, low = made
    use = match.site.uses[0]
    region = CoarseRegions(scope, facts).behind(use.made, match.axes)
    behind = region.edit(use.node, low, match.steps, facts.opset(scope) or 0)
    edit = replace(behind, add=(*nodes, *behind.add))
    blocks = "x".join(str(step) for step in match.steps)
    return Patch(f"{name} by blocks of {blocks}, {coarse.label}", use.node, {scope: edit})
