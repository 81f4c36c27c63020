"""A convolution whose outputs are taken together in blocks of two along each axis it can."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.model.statistic import BlockStatistic, PatchStatistic
from structopt_onnx.passes.convolution.composition import composed_window
from structopt_onnx.passes.convolution.conv_refit import fitted_to
from structopt_onnx.passes.convolution.conv_site import ConvSite, site_of
from structopt_onnx.passes.convolution.conv_statistic import LARGEST_PATCH
from structopt_onnx.passes.convolution.even_sizes import is_even
from structopt_onnx.passes.convolution.geometry import Window, integers, is_open, window
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.linalg.regression import Regression
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic

    FloatArray = npt.NDArray[np.float64]

RESIZES_BY_FLOOR = 11
"""Opset in which Resize can be told to copy each position into the block that starts there."""


@dataclass(frozen=True, eq=False)
class CoarseSite:
    """A convolution that may make one value per block.

    Parameters
    ----------
    site
        Its weight, used once.
    steps
        Size of a block per spatial axis, 1 or 2.
    slides
        The window that a block sees: that of the convolution, widened and with a stride.
    """

    site: ConvSite
    steps: tuple[int, ...]
    slides: Window

    @property
    def axes(self) -> frozenset[int]:
        """Axes of the output along which positions are taken together."""
        return frozenset(axis + 2 for axis, step in enumerate(self.steps) if step > 1)

    @property
    def averages(self) -> bool:
        """Whether the mean of a block is what the mean of its input makes: no taps, no padding."""
        pads, axes = self.slides.pads, self.slides.axes
        rows = zip(self.steps, self.site.kernel, pads[:axes], pads[axes:], strict=True)
        return all(step == 1 or (k == 1 and not b and not e) for step, k, b, e in rows)

    @property
    def statistic(self) -> Statistic:
        """Moments of what blocks see, or of blocks themselves where there is nothing to fit."""
        if self.averages:
            return BlockStatistic((self.site.uses[0].made.name or "",), 1, self.steps)
        slides, name = self.slides, self.site.uses[0].data.name or ""
        geometry = slides.kernel, slides.strides, slides.dilations, slides.pads
        return PatchStatistic((name,), 1, *geometry)

    def regression(self, facts: Facts, moments: Moments, unseen: float) -> Regression:
        """Return the means of blocks, group by group, as targets of regressions on the patches.

        The energy counted is that of all positions: what differs within a block is lost to any
        one value, and is part of every error.
        """
        placed = self._placed(facts)
        blocks = np.mean(placed, axis=0)
        fit = fitted_to(blocks, self.slides, moments, unseen)
        groups, _, inputs = blocks.shape
        means = moments.mean.reshape(groups, inputs)
        energy = 0.0
        for group in range(groups):
            part = slice(group * inputs, (group + 1) * inputs)
            covariance = moments.covariance[part, part]
            for filters in placed[:, group]:
                apart = (filters - blocks[group]) @ means[group]
                energy += float(np.sum((filters @ covariance) * filters) + apart @ apart)
        return replace(fit, total=energy / len(placed))

    def lost(self, moments: Moments) -> float:
        """Return the share of the energy that means of blocks lose."""
        between, within = float(np.trace(moments.covariance[:-1, :-1])), float(moments.mean[-1])
        return within / (between + within) if within > 0 else 0.0

    def _placed(self, facts: Facts) -> FloatArray:
        """Return the filters at each position of a block.

        Float64 [positions of a block, groups, outputs, inputs * taps of the wider window].
        """
        site = self.site
        stored = np.asarray(facts.array(site.weight), np.float64)
        rows = list(zip(site.kernel, site.dilations, self.steps, strict=True))
        found = []
        for place in product(*(range(step) for step in self.steps)):
            wide = np.zeros((*site.shape[:2], *self.slides.kernel))
            at = [
                slice(offset, offset + (taps - 1) * dilation + 1, dilation)
                if step > 1
                else slice(None)
                for offset, (taps, dilation, step) in zip(place, rows, strict=True)
            ]
            wide[(slice(None), slice(None), *at)] = stored
            found.append(wide.reshape(site.groups, site.outputs // site.groups, -1))
        return np.stack(found)


def coarse_site(weight: ir.Value, scope: Scope, facts: Facts) -> CoarseSite | Refusal | None:
    """Look for a convolution with a weight that makes an even number of positions."""
    name = weight.name or ""
    if not any(use.idx == 1 and _steps_by_one(use.node, facts) for use in weight.uses()):
        return None
    site = site_of(name, scope, facts, thin=True)
    if isinstance(site, Refusal):
        return site
    if len(site.uses) > 1:
        return Refusal("weight-shared", f"{len(site.uses)} convolutions", name)
    if (facts.opset(scope) or 0) < RESIZES_BY_FLOOR:
        return Refusal("opset", f"{facts.opset(scope)}", name)
    first = window(site.uses[0].node, facts)
    if first is None:
        return Refusal("pads-depend-on-size", f"shape {site.shape}", name)
    made = site.uses[0].made
    even = {axis: is_even(made, axis + 2, facts) for axis, s in enumerate(first.strides) if s == 1}
    if not any(even.values()):
        unknown = [axis for axis, known in even.items() if known is None]
        code = "size-unknown" if unknown else "odd-size"
        return Refusal(code, f"axis {2 + (unknown or list(even))[0]} of '{made.name}'", name)
    steps = tuple(2 if even.get(axis) else 1 for axis in range(first.axes))
    ones = (1,) * first.axes
    kernel, dilations = composed_window(first, Window(steps, steps, ones, (0,) * (2 * first.axes)))
    strides = tuple(s * step for s, step in zip(first.strides, steps, strict=True))
    features = site.inputs * math.prod(kernel)
    if features > LARGEST_PATCH:
        return Refusal("statistics-too-large", f"{features} inputs per output", name)
    return CoarseSite(site, steps, Window(kernel, strides, dilations, first.pads))


def _steps_by_one(node: ir.Node, facts: Facts) -> bool:
    """Whether a convolution goes by single steps along an axis that has several positions."""
    if node.op_type != "Conv" or node.domain != "" or is_open(node):
        return False
    dims = facts.dims(node.outputs[0])
    if dims is None:
        return False
    strides = integers(node, "strides", (1,) * len(dims[2:]))
    return any(s == 1 and size != 1 for s, size in zip(strides, dims[2:], strict=True))
