"""Which layouts are worth fitting for a convolution, what they cost and which to offer."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.low_rank.conv_forms import Layout, channel, dense, spatial, tucker
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.low_rank.conv_site import ConvSite
    from structopt_onnx.rewriting.passes import Option

_PLANE = 2
# Ranks tried per scheme, and per mode where a scheme has two.
_MOST_RANKS = 12
_MOST_PER_MODE = 6
# Layers too narrow for this many ranks at the target's multiple get halves and quarters of it:
# there the parameters are what a cut saves.
_FEW_RANKS = 4
_MOST_OPTIONS = 24


def layouts(
    site: ConvSite, facts: Facts, target: str, multiple: int, *, separable: bool
) -> list[Layout]:
    """List layouts with fewer parameters or products than the convolution has.

    Parameters
    ----------
    site, facts
        The weight and what is known about its uses.
    target
        Where it will run.
    multiple
        Ranks are multiples of this; 0 takes the target's, or less for narrow layers.
    separable
        Whether the inputs' moments are at hand, or nothing at all: what schemes other than a cut
        of the outputs need.
    """
    was = cost(site, facts, dense(site), target)

    def pays(layout: Layout) -> bool:
        now = cost(site, facts, layout, target)
        return now.parameters < was.parameters or now.macs < was.macs

    def ranks(form: Callable[[int], Layout], full: int) -> Iterator[int]:
        # Parameters and products of these schemes are proportional to the rank.
        one = cost(site, facts, form(1), target)
        bound = max(-(-was.parameters // one.parameters), -(-was.macs // max(1, one.macs)))
        return _multiples(min(full + 1, bound), multiple, target, _MOST_RANKS)

    groups = site.groups
    full = min(site.outputs // groups, site.inputs // groups * site.taps)
    found = [channel(site, r) for r in ranks(partial(channel, site), full)]
    if separable and site.taps > 1 and groups == 1 and not site.transposed:
        inner = [tucker(site, r, site.outputs) for r in _all(site.inputs, multiple, target)]
        found += inner
        outer = list(_all(site.outputs, multiple, target))
        found += [tucker(site, layout.ranks[0], r) for layout in inner for r in outer]
        if len(site.kernel) == _PLANE and min(site.kernel) > 1:
            for axis in range(_PLANE):
                rows = site.inputs * site.kernel[axis]
                most = min(rows, site.outputs * site.kernel[1 - axis])
                allowed = ranks(partial(spatial, site, first_axis=axis), most)
                found += [spatial(site, r, axis) for r in allowed]
    return [layout for layout in found if pays(layout)]


def _all(channels: int, multiple: int, target: str) -> Iterator[int]:
    return _multiples(channels, multiple, target, _MOST_PER_MODE)


def _multiples(stop: int, multiple: int, target: str, most: int) -> Iterator[int]:
    """Yield up to `most` ranks below `stop`."""
    step = multiple
    if not step:
        step = whole = TARGETS[target].conv_rank_multiple
        while step * _FEW_RANKS > stop and step * 4 > whole and step > 1:
            step //= 2
    step *= max(1, -(-(len(range(step, stop, step))) // most))
    yield from range(step, stop, step)


def cost(site: ConvSite, facts: Facts, layout: Layout, target: str) -> Cost:
    """Count a layout at every use of the weight, its bias left out.

    The time is that of channels filled up to the target's multiple.
    """
    sizes = sum(stage.size for stage in layout.stages)
    multiple = TARGETS[target].conv_rank_multiple
    macs, filled = 0, 0.0
    for use in site.uses:
        read, made = facts.concrete(use.data), facts.concrete(use.made)
        rank = len(site.shape)
        read = (1,) * rank if read is None else read
        made = (1,) * rank if made is None else made
        for stage in layout.stages:
            rows = (made if stage.rows_done else read)[2:3]
            columns = (made if stage.columns_done else read)[3:]
            products = stage.size * math.prod((read[0], *rows, *columns))
            channels = stage.shape[0]
            macs += products
            filled += products * (-(-channels // multiple) * multiple) / max(1, channels)
    total = Cost(
        parameters=sizes,
        bytes=int(sizes * site.tensor.dtype.itemsize),
        macs=macs,
        nodes=len(site.uses) * len(layout.stages),
    )
    seconds = TARGETS[target].seconds(replace(total, macs=int(filled)))
    return replace(total, seconds=seconds)


def offered(options: Sequence[Option]) -> tuple[Option, ...]:
    """Keep options that no other beats in error, parameters and products at once.

    More than a couple of dozen are thinned out evenly. The result is in order of rising error.
    """
    ordered = sorted(options, key=lambda o: (o.error, o.after.parameters, o.after.macs, o.label))
    front: list[Option] = []
    for option in ordered:
        now = option.after
        if not any(
            o.after.parameters <= now.parameters and o.after.macs <= now.macs for o in front
        ):
            front.append(option)
    if len(front) > _MOST_OPTIONS:
        kept = np.linspace(0, len(front) - 1, _MOST_OPTIONS).round().astype(int)
        front = [front[k] for k in kept]
    return tuple(front)
