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
from itertools import product
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.convolution.conv_refit import REFIT_REFUSALS, Attempt, Refit
from structopt_onnx.passes.convolution.conv_rows import Layout, Stage
from structopt_onnx.passes.convolution.geometry import Window
from structopt_onnx.passes.convolution.taps import SLICES_BY_INPUT, leaves_input, padding_left
from structopt_onnx.rewriting.passes import Pass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structopt_onnx.linalg.regression import Regression
    from structopt_onnx.model.edit import AttributeValue
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.convolution.conv_choice import Factors
    from structopt_onnx.passes.convolution.conv_site import ConvSite
    from structopt_onnx.rewriting.passes import Choice, Refusal

# Sizes tried along an axis, spread evenly where the kernel has more.
_MOST_SIZES = 6


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


def parts_of(kernel: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield the parts of a kernel worth trying: all taps of an axis, or fewer, cut axes alike."""
    for taps in product(*(_lines(size) for size in kernel)):
        cut = {
            (len(range(line.start, line.stop, line.step)), line.step)
            for line, size in zip(taps, kernel, strict=True)
            if line != slice(0, size, 1)
        }
        if len(cut) == 1:
            yield taps


def _lines(size: int) -> Iterator[slice]:
    """Yield all taps of an axis, fewer around the middle, and every other one."""
    yield slice(0, size, 1)
    shorter = range(1, size)
    if len(shorter) > _MOST_SIZES:
        shorter = range(size // _MOST_SIZES, size, size // _MOST_SIZES)
    for length in shorter:
        for start in sorted({(size - length) // 2, (size - length + 1) // 2}):
            yield slice(start, start + length, 1)
    for start in range(2):
        others = range(start, size, 2)
        if len(others) > 1:
            yield slice(start, others[-1] + 1, 2)


def _attempt(site: ConvSite, taps: tuple[slice, ...], facts: Facts) -> Attempt | None:
    slides = Window(site.kernel, site.strides, site.dilations, site.pads or ())
    dims = facts.dims(site.uses[0].data) if len(site.uses) == 1 else None
    pads = padding_left(slides, taps, dims)
    if not leaves_input(pads, dims):
        return None
    places = np.arange(site.taps).reshape(site.kernel)[taps]
    attributes: dict[str, AttributeValue] = {
        **site.uses[0].node.attributes,
        "kernel_shape": places.shape,
        "dilations": tuple(d * t.step for d, t in zip(slides.dilations, taps, strict=True)),
        "pads": tuple(max(pad, 0) for pad in pads),
    }
    attributes.pop("auto_pad", None)
    shape = (*site.shape[:2], *places.shape)
    layout = Layout("taps", (), (Stage("shrunk", "Conv", attributes, shape, crop=pads),))
    label = ",".join(f"{t.start}:{t.stop}" + f":{t.step}" * (t.step > 1) for t in taps)
    fit = partial(_fit, places=places.reshape(-1), taps=site.taps)
    return Attempt(f"taps {label}", layout, fit)


def _fit(regression: Regression, places: np.ndarray, taps: int) -> tuple[float, Factors]:
    inputs = regression.fitted[0].moment.shape[0] // taps
    kept = (np.arange(inputs)[:, None] * taps + places).reshape(-1)
    error, maps, lost = regression.refit([kept] * len(regression.fitted))
    return error, ((maps,), lost)
