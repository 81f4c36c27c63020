"""What convolutions in a row cost, and which options are worth offering."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.convolution.conv_rows import Layout
    from structopt_onnx.passes.convolution.conv_site import ConvSite
    from structopt_onnx.rewriting.passes import Option

_MOST_OPTIONS = 24


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
        nodes=len(site.uses) * sum(stage.nodes for stage in layout.stages),
    )
    seconds = TARGETS[target].seconds(replace(total, macs=int(filled)))
    return replace(total, seconds=seconds)


def cost_alone(
    site: ConvSite,
    kernel: tuple[int, ...],
    made: tuple[int, ...],
    target: str,
    *,
    biased: bool,
    nodes: int,
) -> Cost:
    """Count one convolution with a site's channels, its bias included.

    Parameters
    ----------
    site
        Whose channels, groups and type.
    kernel
        Its taps per axis.
    made
        Shape of what it makes, batch and channels first.
    target
        Where time is predicted: that of channels filled up to its multiple.
    biased, nodes
        Whether there is a bias, and how many operators to count.
    """
    size = math.prod(site.shape[:2]) * math.prod(kernel)
    parameters = size + site.outputs * biased
    macs = size * math.prod((made[0], *made[2:]))
    total = Cost(parameters, int(parameters * site.tensor.dtype.itemsize), macs, nodes)
    multiple = TARGETS[target].conv_rank_multiple
    filled = macs * -(-site.outputs // multiple) * multiple // site.outputs
    return replace(total, seconds=TARGETS[target].seconds(replace(total, macs=filled)))


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
