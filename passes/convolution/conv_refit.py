"""Convolutions fitted anew by least squares to what they make of calibration data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.linalg.low_rank import white_level
from structopt_onnx.linalg.regression import Joint, Regression
from structopt_onnx.linalg.separable import unseen_share
from structopt_onnx.passes.convolution.conv_choice import Candidate, choice_of
from structopt_onnx.passes.convolution.conv_cost import cost
from structopt_onnx.passes.convolution.conv_rows import dense
from structopt_onnx.passes.convolution.conv_site import REFUSALS, ConvSite, find_sites
from structopt_onnx.passes.convolution.conv_statistic import LARGEST_PATCH, patches_of
from structopt_onnx.passes.convolution.geometry import Window
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.convolution.conv_choice import Factors
    from structopt_onnx.passes.convolution.conv_rows import Layout
    from structopt_onnx.rewriting.passes import Choice

    FloatArray = npt.NDArray[np.float64]

REFIT_REFUSALS = {
    **REFUSALS,
    "no-option-pays": "nothing tried has fewer parameters or products at an error below 1",
    "pads-depend-on-size": "auto_pad depends on a size that may change, or is not known",
    "statistics-too-large": f"the filters see more than {LARGEST_PATCH} numbers",
    "superseded": "an earlier rewrite of the plan took the weight",
}
# White inputs that are always mixed in: what the samples never show must have some answer.
_LEAST_WHITE = 1e-10


@dataclass(frozen=True, eq=False)
class Attempt:
    """A layout that may come close to a convolution.

    Parameters
    ----------
    layout
        What to put there.
    fit
        Makes relative squared error, weights and lost mean of a regression.
    """

    layout: Layout
    fit: Callable[[Regression], tuple[float, Factors]]


@dataclass(frozen=True, eq=False)
class Refit:
    """How a pass fits convolutions anew.

    Parameters
    ----------
    attempts
        Lists what to try for a site.
    target
        Where costs are predicted.
    unseen
        Least share of white inputs among those that are fitted: see `unseen_share`.
    """

    attempts: Callable[[ConvSite], list[Attempt]]
    target: str
    unseen: float

    def needs(self, scope: Scope, facts: Facts) -> Iterator[Statistic]:
        """Yield the moments of the patches of every weight for which something may pay."""
        for site in find_sites(scope, facts, thin=True):
            if isinstance(site, ConvSite):
                wanted = patches_of(site)
                if wanted is not None and self._paying(site, facts):
                    yield wanted

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with the options that no other one beats."""
        found = find_sites(scope, facts, thin=True)
        for proposal in facts.workers.each(lambda site: self._proposal(site, scope, facts), found):
            if proposal is not None:
                yield proposal

    def _proposal(
        self, site: ConvSite | Refusal, scope: Scope, facts: Facts
    ) -> Choice | Refusal | None:
        if isinstance(site, Refusal):
            weights = scope.graph.initializers
            dims = facts.dims(weights.get(site.node))
            return None if set((dims or ())[2:]) == {1} else site
        if site.transposed or site.taps == 1:
            return None
        name, shape = site.weight.name or "", f"shape {site.shape}"
        if site.pads is None:
            return Refusal("pads-depend-on-size", shape, name)
        wanted = patches_of(site)
        if wanted is None:
            return Refusal("statistics-too-large", shape, name)
        attempts = self._paying(site, facts)
        moments = facts.statistic(wanted)
        choice = None
        if attempts:
            regression = regression_of(site, facts, moments, self.unseen)
            candidates = (_candidate(attempt, regression) for attempt in attempts)
            choice = choice_of(site, facts, self.target, candidates, moments)
        return choice or Refusal("no-option-pays", shape, name)

    def _paying(self, site: ConvSite, facts: Facts) -> list[Attempt]:
        if site.transposed or site.taps == 1 or site.pads is None:
            return []
        was = cost(site, facts, dense(site), self.target)

        def pays(attempt: Attempt) -> bool:
            now = cost(site, facts, attempt.layout, self.target)
            return now.parameters < was.parameters or now.macs < was.macs

        return [attempt for attempt in self.attempts(site) if pays(attempt)]


def _candidate(attempt: Attempt, regression: Regression) -> Candidate:
    error, factors = attempt.fit(regression)
    return Candidate(attempt.layout.label, attempt.layout, error, lambda: factors)


def regression_of(
    site: ConvSite, facts: Facts, moments: Moments | None, unseen: float
) -> Regression:
    """Return what a convolution makes of its patches, per group; of white ones without moments.

    Maps are fitted to the data and, to a share, to white inputs, so that they stay near the
    weights where the samples show little. Errors count on the data alone.
    """
    blocks = site.blocks(facts)
    if moments is None:
        white = tuple(Joint(np.eye(blocks.shape[2]), block) for block in blocks)
        return Regression(white, white, float(np.sum(blocks * blocks)), None)
    slides = Window(site.kernel, site.strides, site.dilations, site.pads or ())
    return fitted_to(blocks, slides, moments, unseen)


def fitted_to(blocks: FloatArray, slides: Window, moments: Moments, unseen: float) -> Regression:
    """Return what filters make of the patches before a window, per group.

    Parameters
    ----------
    blocks
        The filters, float64 [groups, outputs, inputs].
    slides
        What the patches are cut out by.
    moments
        Of the patches, group by group.
    unseen
        Least share of white inputs.
    """
    groups, outputs, inputs = blocks.shape
    # Positions share most of their numbers: what counts is how many patches lie side by side.
    shared = math.prod(max(1.0, k / s) for k, s in zip(slides.kernel, slides.strides, strict=True))
    share = max(_LEAST_WHITE, unseen_share(unseen, moments.count / shared / moments.mean.size))
    seen, fitted, total = [], [], 0.0
    for group, block in enumerate(blocks):
        part = slice(group * inputs, (group + 1) * inputs)
        data = Joint(moments.covariance[part, part], block @ moments.covariance[part, part])
        level = share * white_level(data.moment, block)
        mixed = (1 - share) * data.moment
        mixed[np.diag_indices(inputs)] += level
        seen.append(data)
        fitted.append(Joint(mixed, block @ mixed))
        total += float(np.sum(data.cross * block))
    mean = moments.mean.reshape(groups, inputs)
    made = np.einsum("gmn,gn->gm", blocks, mean)
    return Regression(tuple(seen), tuple(fitted), total, (mean, made.reshape(groups, outputs)))
