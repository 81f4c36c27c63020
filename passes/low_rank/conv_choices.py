"""Which layouts are worth fitting for a convolution, at which ranks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from structopt_onnx.passes.convolution.conv_cost import cost
from structopt_onnx.passes.convolution.conv_rows import Layout, dense
from structopt_onnx.passes.low_rank.conv_forms import channel, spatial, tucker
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.convolution.conv_site import ConvSite

_PLANE = 2
# Ranks tried per scheme, and per mode where a scheme has two.
_MOST_RANKS = 12
_MOST_PER_MODE = 6
# Layers too narrow for this many ranks at the target's multiple get halves and quarters of it:
# there the parameters are what a cut saves.
_FEW_RANKS = 4


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
