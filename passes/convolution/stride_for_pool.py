"""stride-for-pool: a convolution and the pool behind it become one convolution with a stride.

What it does
    Where pointwise operators at most lie between a convolution and a MaxPool or AveragePool with
    a stride, fits one convolution with both strides to what the pool makes, by least squares on
    the calibration data. Its kernel reaches as far as both did, or keeps a part of that. A Relu
    right before the pool is kept behind it: what was never below zero comes closer by that. Where
    the part reads every other position only, the convolution before makes no more: the resolution
    is lowered ahead of both.

Why
    Most of what the convolution makes is thrown away by the pool. But a maximum is no linear map:
    without training this is seldom close, and the error predicted says how far off it is.

Leaves alone
    Values that are read elsewhere too, partial windows, pools whose indices are read, filters that
    see more numbers than a covariance is worth, weights as for shrink-filter. Without calibration
    data there is nothing to fit to.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.regression import Joint, Regression
from structopt_onnx.linalg.separable import unseen_share
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.conv_cost import cost_alone, offered
from structopt_onnx.passes.convolution.conv_refit import REFIT_REFUSALS
from structopt_onnx.passes.convolution.conv_to_pool import PooledSite, pooled_site
from structopt_onnx.passes.convolution.kernel_parts import (
    kept_features,
    label,
    part_of,
    parts_of,
    sizes,
)
from structopt_onnx.passes.convolution.lowered import lowered
from structopt_onnx.passes.convolution.taps import SLICES_BY_INPUT, sliced
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.edit import AttributeValue
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.convolution.kernel_parts import Taps
    from structopt_onnx.rewriting.cost import Cost

    FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Strided:
    """A convolution in a pool's place: which taps of the window, weight and bias in float64."""

    taps: Taps
    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True)
class StrideForPool(Pass):
    """Options of stride-for-pool.

    Parameters
    ----------
    target
        Where costs are predicted.
    unseen
        Least ridge of the fit, as a share of the inputs' energy, more where the samples are few.
    """

    name: ClassVar[str] = "stride-for-pool"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    refusals: ClassVar[dict[str, str]] = {
        **REFIT_REFUSALS,
        "ceil-mode": "the pool's last window may be partial",
        "indices-read": "the places of the maxima are read",
        "needs-calibration": "what a pool makes can only be fitted to data",
        "pool-dilations": "the pool is dilated",
        "read-elsewhere": "what is pooled is read elsewhere, or a graph output",
        "weight-shared": "other convolutions use the weight, too",
    }

    target: str = "cpu"
    unseen: float = 0.01

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the joint moments of patches and of what pools make of them."""
        found = self._found(scope, facts)
        return [match.statistic for match in found if isinstance(match, PooledSite)]

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with the options that no other one beats."""
        slices = (facts.opset(scope) or 0) >= SLICES_BY_INPUT
        propose = partial(self._proposal, facts=facts, slices=slices)
        yield from facts.workers.each(propose, self._found(scope, facts))

    def _found(self, scope: Scope, facts: Facts) -> Iterator[PooledSite | Refusal]:
        for weight in tuple(scope.graph.initializers.values()):
            found = pooled_site(weight, scope, facts)
            if found is not None:
                yield found

    def _proposal(
        self, match: PooledSite | Refusal, facts: Facts, *, slices: bool
    ) -> Choice | Refusal:
        if isinstance(match, Refusal):
            return match
        site, slides = match.site, match.slides
        name, moments = site.weight.name or "", facts.statistic(match.statistic)
        if moments is None:
            return Refusal("needs-calibration", f"shape {site.shape}", name)
        regression = _regression(match, moments, self.unseen)
        whole = tuple(slice(0, size, 1) for size in slides.kernel)
        pooled = self._cost(match, facts, site.kernel, None)
        options: dict[bool, list[Option]] = {False: [], True: []}
        for taps in (whole, *parts_of(slides.kernel)):
            part = part_of(slides, taps, facts.dims(site.uses[0].data))
            if part is None or (min(part[1]) < 0 and not slices):
                continue
            kept = kept_features(slides.kernel, taps, site.inputs // site.groups)
            size = sizes(taps)
            before, after = pooled, self._cost(match, facts, size, part[1])
            low = lowered(site.uses[0].data, part[0], facts) if min(part[1]) >= 0 else None
            if low is not None:
                every, fewer = low.costs(facts, self.target)
                before, after = before + every, after + fewer
            if after.parameters >= before.parameters and after.macs >= before.macs:
                continue
            error, maps, bias = regression.refit([kept] * site.groups)
            if bias is not None and error < 1:
                made = Strided(taps, maps.reshape(*site.shape[:2], *size), bias)
                patch = partial(_patch, name, made)
                what = label(taps) + ", fewer positions before" * (low is not None)
                options[low is not None].append(Option(what, error, before, after, patch))
        if not any(options.values()):
            return Refusal("no-option-pays", f"shape {site.shape}", name)
        support = moments.count / moments.mean.size
        at = match.made.name or ""
        fronts = [option for group in options.values() for option in offered(group)]
        ordered = tuple(sorted(fronts, key=lambda option: option.error))
        return Choice(frozenset({name}), at, ordered, "calibration", support)

    def _cost(
        self, match: PooledSite, facts: Facts, kernel: tuple[int, ...], crop: tuple[int, ...] | None
    ) -> Cost:
        """Count the convolution as it is (`crop` None) or with a kernel in the pool's place."""
        site = match.site
        made = facts.concrete(site.uses[0].made if crop is None else match.made) or (1, 1)
        kept = 1 + _keeps_relu(match) + (min(crop or (0,)) < 0)
        return cost_alone(
            site,
            kernel,
            made,
            self.target,
            biased=crop is not None or site.uses[0].bias is not None,
            nodes=2 + len(match.between) if crop is None else kept,
        )


def _regression(match: PooledSite, moments: Moments, unseen: float) -> Regression:
    """Return what a pool makes, group by group, as targets of regressions on the patches."""
    groups, slides = match.site.groups, match.slides
    outputs = match.site.outputs
    split = moments.mean.size - outputs
    shared = math.prod(max(1.0, k / s) for k, s in zip(slides.kernel, slides.strides, strict=True))
    ridge = max(1e-10, unseen_share(unseen, moments.count / shared / split))
    seen, fitted = [], []
    for group in range(groups):
        inputs = slice(group * split // groups, (group + 1) * split // groups)
        rows = slice(split + group * outputs // groups, split + (group + 1) * outputs // groups)
        data = Joint(moments.covariance[inputs, inputs], moments.covariance[rows, inputs])
        raised = data.moment + ridge * float(np.mean(data.moment.diagonal())) * np.eye(
            len(data.moment)
        )
        seen.append(data)
        fitted.append(Joint(raised, data.cross))
    total = float(np.trace(moments.covariance[split:, split:]))
    means = moments.mean[:split].reshape(groups, -1), moments.mean[split:].reshape(groups, -1)
    return Regression(tuple(seen), tuple(fitted), total, means)


def _keeps_relu(match: PooledSite) -> bool:
    return bool(match.between) and match.between[-1].op_type == "Relu"


def _patch(name: str, strided: Strided, scope: Scope, facts: Facts) -> Patch | Refusal:
    weight = scope.graph.initializers.get(name)
    match = None if weight is None else pooled_site(weight, scope, facts)
    data = match.site.uses[0].data if isinstance(match, PooledSite) else None
    part = None
    if isinstance(match, PooledSite):
        part = part_of(match.slides, strided.taps, facts.dims(data))
    if not isinstance(match, PooledSite) or part is None or data is None:
        return Refusal("superseded", "an earlier rewrite took it", name)
    attributes, pads = part
    dtype, conv = match.site.tensor.dtype.numpy(), match.site.uses[0].node
    made = match.made.name or name
    nodes: list[NewNode] = []
    read: ir.Value | Fresh = data
    gone: tuple[ir.Node, ...] = (conv, *match.between, match.pool)
    low = lowered(data, attributes, facts) if min(pads) >= 0 else None
    if low is not None:
        nodes, read = low.nodes()
        gone, attributes = (*low.ahead, *gone), {**attributes, **low.attributes}
    if min(pads) < 0:
        read = Fresh(f"{made}_sliced")
        nodes.append(sliced(data, read, pads))
    constants = [
        Fresh(f"{name}_{what}", ir.tensor(np.ascontiguousarray(array, dtype)))
        for what, array in (("strided", strided.weight), ("bias", strided.bias))
    ]
    given: dict[str, AttributeValue] = {"group": match.site.groups, **attributes}
    last = Fresh(f"{made}_strided")
    nodes.append(NewNode("Conv", (read, *constants), (last,), given))
    if _keeps_relu(match):
        positive = Fresh(f"{made}_relu")
        nodes.append(NewNode("Relu", (last,), (positive,)))
        last = positive
    edit = Edit(gone, tuple(nodes), (), {match.made: last})
    title = f"{name} and {match.pool.op_type} '{match.pool.name}' as {label(strided.taps)}"
    return Patch(title, match.pool, {scope: edit})
