"""shrink-filter: a convolution keeps some taps of its kernel, fitted anew to what all made.

What it does
    Offers smaller kernels for each weight: fewer taps along one axis or along several alike, in
    the middle or beside it, and every other tap as a dilated kernel. What remains is refitted by
    least squares to the calibration data, the bias gets back what the mean of the output loses,
    and padding shrinks with the kernel, or the input is sliced. All convolutions that share a
    weight are rewritten together.

Why
    A 3x3 kernel costs nine times what a 1x1 does; neighbours in a smooth input say much the same,
    so that fewer taps with other weights come closer than dropping the rest does. Without
    training it is seldom close: the error predicted says how far off it is.

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

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.convolution.conv_refit import REFIT_REFUSALS, Attempt, Refit
from structopt_onnx.passes.convolution.conv_rows import Layout, Stage
from structopt_onnx.passes.convolution.geometry import Window
from structopt_onnx.passes.convolution.kernel_parts import (
    Taps,
    kept_features,
    label,
    part_of,
    parts_of,
    sizes,
)
from structopt_onnx.passes.convolution.taps import SLICES_BY_INPUT
from structopt_onnx.rewriting.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np

    from structopt_onnx.linalg.regression import Regression
    from structopt_onnx.model.edit import AttributeValue
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.convolution.conv_choice import Factors
    from structopt_onnx.passes.convolution.conv_site import ConvSite
    from structopt_onnx.rewriting.passes import Choice, Refusal


@dataclass(frozen=True)
class ShrinkFilter(Pass):
    """Options of shrink-filter.

    Parameters
    ----------
    target
        Where costs are predicted.
    unseen
        Least share of white inputs among those that are fitted, more where the samples are few:
        samples never show all that comes. 0 fits the samples alone.
    """

    name: ClassVar[str] = "shrink-filter"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = REFIT_REFUSALS

    target: str = "cpu"
    unseen: float = 0.01

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of the patches of each kernel with several taps."""
        return self._refit(scope, facts).needs(scope, facts)

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with the options that no other one beats."""
        return self._refit(scope, facts).propose(scope, facts)

    def _refit(self, scope: Scope, facts: Facts) -> Refit:
        slices = (facts.opset(scope) or 0) >= SLICES_BY_INPUT

        def attempts(site: ConvSite) -> list[Attempt]:
            tried = (_attempt(site, taps, facts) for taps in parts_of(site.kernel))
            return [a for a in tried if a and (slices or a.layout.stages[0].nodes == 1)]

        return Refit(attempts, self.target, self.unseen)


def _attempt(site: ConvSite, taps: Taps, facts: Facts) -> Attempt | None:
    slides = Window(site.kernel, site.strides, site.dilations, site.pads or ())
    dims = facts.dims(site.uses[0].data) if len(site.uses) == 1 else None
    part = part_of(slides, taps, dims)
    if part is None:
        return None
    attributes: dict[str, AttributeValue] = {**site.uses[0].node.attributes, **part[0]}
    attributes.pop("auto_pad", None)
    kept = kept_features(site.kernel, taps, site.inputs // site.groups)
    shape = (*site.shape[:2], *sizes(taps))
    stage = Stage("shrunk", "Conv", attributes, shape, crop=part[1])
    layout = Layout(label(taps), (), (stage,))
    return Attempt(layout, partial(_fit, kept=kept))


def _fit(regression: Regression, kept: np.ndarray) -> tuple[float, Factors]:
    error, maps, lost = regression.refit([kept] * len(regression.fitted))
    return error, ((maps,), lost)
