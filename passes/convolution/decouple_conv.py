"""decouple-conv: a convolution becomes a depthwise one and a pointwise one behind it.

What it does
    Offers T filters per input channel and a 1x1 convolution over all they make, per group where
    there are groups. A channel's filters are those that carry most of what it adds to the
    outputs; the 1x1 is fitted by least squares to the calibration data, and the bias gets back
    what the mean of the output loses. All convolutions that share a weight are rewritten together.

Why
    A 3x3 convolution of many channels costs nine times what its depthwise and pointwise parts do
    (network decoupling, Guo et al. 2018). Networks that were not trained that way need more than
    one filter per channel, and are seldom close: the error predicted says how far off it is.

Leaves alone
    Transposed convolutions, kernels of one tap, filters that see more numbers than a covariance
    is worth, and weights that are shared with other operators, that the caller can override, that
    lie in subgraphs or functions, or of other types than float16 and float32.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from structopt_onnx.linalg.low_rank import from_input_moment
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.convolution.conv_refit import REFIT_REFUSALS, Attempt, Refit
from structopt_onnx.passes.convolution.conv_rows import Layout, Stage, pointwise
from structopt_onnx.rewriting.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from structopt_onnx.linalg.regression import Regression
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.convolution.conv_choice import Factors
    from structopt_onnx.passes.convolution.conv_site import ConvSite
    from structopt_onnx.rewriting.passes import Choice, Refusal

    FloatArray = npt.NDArray[np.float64]

# Filters per channel; beyond, depthwise convolutions take longer than they save.
_MOST_FILTERS = 6


@dataclass(frozen=True)
class DecoupleConv(Pass):
    """Options of decouple-conv.

    Parameters
    ----------
    target
        Where costs are predicted.
    unseen
        Least share of white inputs among those that are fitted, more where the samples are few:
        samples never show all that comes. 0 fits the samples alone.
    """

    name: ClassVar[str] = "decouple-conv"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = REFIT_REFUSALS

    target: str = "cpu"
    unseen: float = 0.01

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of the patches of each kernel with several taps."""
        return self._refit(facts).needs(scope, facts)

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with the options that no other one beats."""
        return self._refit(facts).propose(scope, facts)

    def _refit(self, facts: Facts) -> Refit:
        def attempts(site: ConvSite) -> list[Attempt]:
            most = min(site.taps, site.outputs // site.groups, _MOST_FILTERS)
            return [_attempt(site, filters, facts) for filters in range(1, most + 1)]

        return Refit(attempts, self.target, self.unseen)


def _attempt(site: ConvSite, filters: int, facts: Facts) -> Attempt:
    depthwise = Stage(
        "depth",
        "Conv",
        {**site.uses[0].node.attributes, "group": site.inputs},
        (site.inputs * filters, 1, *site.kernel),
    )
    inside, axes = site.inputs // site.groups * filters, len(site.kernel)
    mixing = pointwise("mixed", site.outputs, inside, axes, site.groups)
    layout = Layout("depthwise", (filters,), (depthwise, mixing))
    return Attempt(layout, partial(_fit, site=site, filters=filters, facts=facts))


def _fit(
    regression: Regression, site: ConvSite, filters: int, facts: Facts
) -> tuple[float, Factors]:
    taps = site.taps
    views, depth = [], []
    for block, joint in zip(site.blocks(facts), regression.fitted, strict=True):
        view = np.zeros((block.shape[1] // taps * filters, block.shape[1]))
        for k in range(block.shape[1] // taps):
            part = slice(k * taps, (k + 1) * taps)
            kept = _filters(block[:, part], joint.moment[part, part], filters)
            view[k * filters : (k + 1) * filters, part] = kept
            depth.append(kept)
        views.append(view)
    error, maps, lost = regression.refit(views)
    return error, ((np.concatenate(depth), maps), lost)


def _filters(weight: FloatArray, moment: FloatArray, filters: int) -> FloatArray:
    """Return the filters over one channel that carry most of its outputs, [filters, taps]."""
    basis = from_input_moment(weight, moment, filters)
    return basis.factors(weight, filters)[1]
